"""The request path over HTTP: bodies, keys, errors, operations.

`app` puts it together. A request enters by `reporting`, which asks `routes` for the answer; that
finds the operation (`recommend`, `changes`, `operations`), reads the body by `exchange` and checks
it against `bodies`; work that blocks goes to `workers`.

Imports `request`; may be imported by `process` and `cli`.
"""

from __future__ import annotations
