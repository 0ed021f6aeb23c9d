"""What a training step is shown: negatives, frequencies, denoising.

Imports `losses`; may be imported by `training`.
"""

from __future__ import annotations
