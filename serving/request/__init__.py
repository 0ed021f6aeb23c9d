"""One request from its arrival to its answer; knows nothing of HTTP.

`service` asks `intake` for the question (`asked`), `ladder` for its slate and `answering` for the
answer. The ladder tries `stages` in order and makes places of what they found by `slate_rule`;
all of them take the question and return values. Below them are `filters`, `reader` and `timings`.

May be imported by `http`, `assembly` and above.
"""

from __future__ import annotations
