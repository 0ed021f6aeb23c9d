"""What a policy would have earned, from a log: estimators and their diagnostics.

May be imported by the other folders of `simulation`, which it knows nothing of.
"""

from __future__ import annotations
