"""Files that a run leaves: headers, model files, arrays mapped into memory, locks, provenance.

Imports no other folder; may be imported from everywhere in `recsys` and `serving`.
"""

from __future__ import annotations
