"""Names of everything the store holds.

```
{ns}:head                      which generation is served, and which was before
{ns}:generations               sorted set of published generations, by time
{ns}:g:{G}:manifest            written last; a generation without one was never finished
{ns}:g:{G}:items               item ids of the vocabulary, packed; entry i is item index i + 1
{ns}:g:{G}:popular             fallback list, packed like candidates
{ns}:g:{G}:popular:<segment>   fallback list of one segment of the users
{ns}:g:{G}:progress            what a publish has written so far, for one that goes on after it
{ns}:g:{G}:lock                who is writing the generation now; goes by itself when that one dies
{ns}:u:{G}:{b<hex>}:<user>     candidates of one user
{ns}:n:{G}:{b<hex>}:<item>     neighbours of one item, packed like candidates
{ns}:i:{G}:{b<hex>}:<item>     packed feature row of one item
{ns}:alive:{G}                 bitmap over item index, 1 = may be recommended
{ns}:hidden                    set of items that are hidden in every generation
{ns}:s:{b<hex>}:<user>         sorted set of one user's recent events, score = microseconds
{ns}:events                    stream of feedback events
{ns}:experiments               hash of experiment -> "on" or "off"
```

``{b<hex>}`` is a hash tag of Redis Cluster: it spreads users and items over 1,024 buckets, and
keeps one user's keys of all generations in one slot.
"""

from __future__ import annotations

import re
import zlib

__all__ = ["NUM_BUCKETS", "Keys", "bucket"]

NUM_BUCKETS = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def bucket(identifier: str) -> str:
    """Hash tag of a user or item, the same on every machine: ``{b000}`` to ``{b3ff}``."""
    return f"{{b{zlib.crc32(identifier.encode()) % NUM_BUCKETS:03x}}}"


class Keys:
    """Builds key names within one namespace.

    Raises:
        ValueError: the namespace is not a plain name.
    """

    def __init__(self, namespace: str) -> None:
        _check_name(namespace, "namespace")
        self.namespace = namespace
        self.head = f"{namespace}:head"
        self.generations = f"{namespace}:generations"
        self.events = f"{namespace}:events"
        self.experiments = f"{namespace}:experiments"
        self.hidden = f"{namespace}:hidden"

    def manifest(self, generation: str) -> str:
        """Key of the manifest."""
        return f"{self.namespace}:g:{checked_generation(generation)}:manifest"

    def items(self, generation: str) -> str:
        """Key of the packed vocabulary."""
        return f"{self.namespace}:g:{checked_generation(generation)}:items"

    def popular(self, generation: str) -> str:
        """Key of the fallback list."""
        return f"{self.namespace}:g:{checked_generation(generation)}:popular"

    def popular_of(self, generation: str, segment: str) -> str:
        """Key of the fallback list of one segment."""
        return f"{self.popular(generation)}:{segment}"

    def progress(self, generation: str) -> str:
        """Key of what a publish has written so far."""
        return f"{self.namespace}:g:{checked_generation(generation)}:progress"

    def lock(self, generation: str) -> str:
        """Key that the writer of a generation holds."""
        return f"{self.namespace}:g:{checked_generation(generation)}:lock"

    def alive(self, generation: str) -> str:
        """Key of the bitmap of recommendable items."""
        return f"{self.namespace}:alive:{checked_generation(generation)}"

    def user(self, generation: str, user_id: str) -> str:
        """Key of one user's candidates."""
        return f"{self.user_prefix(generation)}{bucket(user_id)}:{user_id}"

    def user_prefix(self, generation: str) -> str:
        """What the keys of all users' candidates begin with."""
        return f"{self.namespace}:u:{checked_generation(generation)}:"

    def neighbours(self, generation: str, item_id: str) -> str:
        """Key of one item's neighbours."""
        return f"{self.namespace}:n:{checked_generation(generation)}:{bucket(item_id)}:{item_id}"

    def item(self, generation: str, item_id: str) -> str:
        """Key of one item's packed features."""
        return f"{self.namespace}:i:{checked_generation(generation)}:{bucket(item_id)}:{item_id}"

    def patterns(self, generation: str) -> list[str]:
        """What SCAN must match for the lists and item rows of a generation."""
        ns, name = self.namespace, checked_generation(generation)
        lists = [f"{ns}:{kind}:{name}:*" for kind in "uni"]
        return [*lists, f"{ns}:g:{name}:popular:*"]

    def kind_of(self, key: bytes) -> tuple[str, str | None]:
        """What a key of the namespace holds, and of which generation; ("other", None) if unknown.

        >>> Keys("shop").kind_of(b"shop:u:g1:{b126}:123456789")
        ('user', 'g1')
        """
        first, *rest = key[len(self.namespace) + 1 :].split(b":", 3)
        if not rest:
            name = first.decode(errors="replace")
            single = ("head", "generations", "events", "experiments", "hidden")
            return (name if name in single else "other"), None
        kind, generation = first, rest[0].decode(errors="replace")
        if kind == b"g" and len(rest) > 1:
            name = rest[1].decode(errors="replace")
            if name == "popular" and len(rest) > 2:
                return "popular of a segment", generation
            known = ("manifest", "items", "popular", "progress", "lock")
            return (name, generation) if name in known else ("other", None)
        if kind == b"s":
            return "session", None
        names = {b"u": "user", b"n": "neighbours", b"i": "item", b"alive": "alive"}
        return (names[kind], generation) if kind in names else ("other", None)

    def session(self, user_id: str) -> str:
        """Key of one user's recent events."""
        return f"{self.namespace}:s:{bucket(user_id)}:{user_id}"


def checked_generation(generation: str) -> str:
    """``generation`` itself.

    Raises:
        ValueError: it is not 1 to 128 letters, digits, ``.``, ``_`` or ``-``.
    """
    return _check_name(generation, "generation")


def _check_name(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} must be 1 to 128 letters, digits, '.', '_' or '-' and start with a letter "
            f"or digit, got {name!r}"
        )
    return name
