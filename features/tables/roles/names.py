"""What columns of each role are usually called; a prior, which values overrule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

__all__ = [
    "ARRIVALS",
    "ATTRIBUTES",
    "EVENT_IDS",
    "EVENT_NAMES",
    "ITEMS",
    "KINDS",
    "MEASURES",
    "ORDERS",
    "OTHER_TIMES",
    "PLACES",
    "QUANTITIES",
    "SESSIONS",
    "TIMES",
    "USERS",
    "WEIGHTS",
    "WEIGHT_NAMES",
    "names_item",
    "names_user",
    "rank",
    "words",
]

EVENT_NAMES = ("event", "event_type", "action", "kind")
"""What a column with the kind of event may be called in a view of a feature store."""
WEIGHT_NAMES = ("weight", "rating", "score", "stars")
"""What a column that weighs events may be called there, the likeliest first."""

USERS = (
    "user", "customer", "member", "visitor", "account", "client", "buyer", "reviewer", "person",
    "profile", "uid", "msno", "household", "subscriber", "shopper", "guest", "player", "reader",
    "listener", "viewer", "student", "patient", "usr", "cust", "author", "kunde", "kunden",
    "usuario", "utilisateur", "cliente", "benutzer", "klant", "utente", "device", "cookie",
)  # fmt: skip
"""Words of a user's id, the likeliest first."""
SESSIONS = ("session", "sess", "visit", "sid", "sitzung", "sesion")
ITEMS = (
    "item", "product", "movie", "article", "song", "track", "book", "video", "sku", "asin", "isbn",
    "listing", "ad", "content", "post", "game", "news", "anime", "recipe", "course", "hotel",
    "restaurant", "business", "venue", "poi", "location", "job", "app", "film", "show", "series",
    "artist", "album", "podcast", "episode", "playlist", "beer", "wine", "joke", "stock", "aid",
    "iid", "pid", "offer", "deal", "property", "artikel", "produkt", "produit", "producto",
    "prodotto", "articulo", "articolo", "offering", "title", "document", "doc", "page", "url",
    "goods", "merchandise", "media", "gmap", "parent",
)  # fmt: skip
"""Words of an item's id, the likeliest first."""
ATTRIBUTES = (
    "category", "categories", "cat", "brand", "type", "class", "department", "dept", "group",
    "genre", "color", "colour", "size", "country", "region", "city", "store", "shop", "channel",
    "name", "desc", "description", "subcategory", "merchant", "seller", "vendor", "manufacturer",
    "gender", "age", "device", "os", "browser", "platform", "language", "status", "section",
    "campaign", "tag", "lang", "state", "zip",
)  # fmt: skip
"""Words of columns that describe an item, a user or a place, and are neither."""
MEASURES = (
    "price", "amount", "cost", "revenue", "total", "discount", "tax", "duration", "seconds",
    "minutes", "hours", "length", "width", "height", "depth", "size", "weight", "age", "year",
    "count", "num", "number", "votes", "share", "ratio", "percent", "pct", "score", "rating",
    "latitude", "longitude", "lat", "lon", "lng", "popularity", "pages", "views", "likes", "sales",
    "average", "avg", "mean", "sum", "min", "max", "rate", "budget", "runtime", "quantity", "qty",
    "stock", "units", "distance", "area", "volume", "speed", "salary", "income", "days", "month",
    "downloads", "followers", "reviews", "ratings", "plays", "clicks", "calories", "level", "rank",
)  # fmt: skip
"""Words of numbers that are measured: more of them is more."""
TIMES = (
    "timestamp", "time", "datetime", "date", "ts", "dat", "when", "at", "day", "moment", "epoch",
    "unix", "datum", "fecha", "zeit", "heure", "data", "on", "utc", "created",
)  # fmt: skip
OTHER_TIMES = (
    "birth", "born", "dob", "release", "released", "publish", "published", "expires", "expiry",
    "end", "updated", "update", "modified", "registered", "signup", "joined", "join", "delivered",
    "delivery", "shipped", "due", "last", "first", "checkout", "until", "valid", "deleted",
    "received", "ingested", "loaded", "inserted", "processed",
)  # fmt: skip
"""Words of times of something else than the event."""
ARRIVALS = (
    "created", "ingested", "received", "loaded", "inserted", "arrived", "arrival", "processed",
    "ingestion", "written",
)  # fmt: skip
PLACES = ("order", "seq", "sequence", "position", "pos", "rank", "step", "idx", "index", "nr")
"""Words of numbers that say what came first."""
KINDS = (
    "event", "event_type", "event_name", "behavior_type", "behaviour_type", "behavior",
    "behaviour", "interaction", "interaction_type", "activity", "activity_type", "action",
    "action_type", "kind", "event_kind", "feedback", "feedback_type", "operation", "verb",
    "click_type", "user_action", "event_category", "type",
)  # fmt: skip
"""Names of the kind of event, the likeliest first."""
WEIGHTS = (
    "weight", "rating", "score", "stars", "overall", "grade", "vote", "note", "star", "rate",
    "bewertung", "review_score", "user_rating", "book_rating", "stars_given", "label", "liked",
    "is_like", "is_liked", "like", "clicked", "is_click", "is_clicked", "click", "purchased",
    "is_purchase", "bought", "converted", "conversion", "watched", "positive", "is_positive",
    "interested", "reward", "implicit", "target", "preference",
    "play_count", "plays", "playcount", "listen_count", "cnt",
)  # fmt: skip
QUANTITIES = ("quantity", "qty", "units", "amount", "count", "pieces", "menge", "cantidad", "num")
ORDERS = (
    "order", "basket", "invoice", "transaction", "receipt", "purchase", "bill", "checkout", "cart",
    "ticket", "trans", "trx", "txn", "bestellung", "rechnung", "pedido", "commande",
)  # fmt: skip
EVENT_IDS = ("event_id", "eventid", "event_uuid", "uuid", "message_id", "insert_id", "row_id")

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")
_ID = ("id", "no", "code", "key", "number", "nr", "num", "uuid", "guid", "hash", "ids", "sk", "pk")


@lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case.

    >>> words("unixReviewTime"), words("CustomerID"), words("Customer ID"), words("t_dat")
    (('unix', 'review', 'time'), ('customer', 'id'), ('customer', 'id'), ('t', 'dat'))
    """
    return tuple(one.lower() for one in _PARTS.findall(name))


def rank(name: str, wanted: Sequence[str], *, whole: bool = False) -> int | None:
    """Place of the first wanted word that a name has, or None; "userid" has the word "user".

    Args:
        name: of a column.
        wanted: words or, with ``whole``, names; the likeliest first.
        whole: the name as a whole must be wanted.
    """
    parts = words(name)
    if whole:
        plain = "".join(parts)
        return next((n for n, one in enumerate(wanted) if one.replace("_", "") == plain), None)
    known = {*parts, *(one.removesuffix(end) for one in parts for end in _ID if one != end)}
    known |= {one.removesuffix("s") for one in parts}
    return next((n for n, one in enumerate(wanted) if one in known), None)


def is_called_id(name: str) -> bool:
    """Whether a name ends like an id's."""
    last = words(name)[-1:]
    return bool(last) and (last[0] in _ID or last[0].endswith("id"))


def names_user(key: str) -> bool:
    """True for a column called like a user's id.

    >>> names_user("customer_id"), names_user("userId"), names_user("item")
    (True, True, False)
    """
    return rank(key, (*USERS, *SESSIONS)) is not None


def names_item(key: str) -> bool:
    """True for a column called like an item's id."""
    return rank(key, ITEMS) is not None
