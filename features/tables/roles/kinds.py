"""Which column says what kind of event a row is, told by its values, and what kinds are worth."""

from __future__ import annotations

import polars as pl

from features.tables.roles.found import Found, cells, shown
from features.tables.roles.names import ATTRIBUTES, KINDS, rank, words

__all__ = ["PURCHASE", "find_kinds", "find_other_kinds", "is_purchase", "weight_of"]

PURCHASE = 1.0
_MOST, _MOST_NAMED, _MOST_NUMBERS = 50, 200, 20
_FEW, _OFTEN = 12, 1.2
_WEAK = ("type", "kind", "action", "operation", "feedback", "activity", "interaction", "event_id")
_WORTH: dict[float, tuple[str, ...]] = {
    0.1: (
        "view", "views", "viewed", "pv", "pageview", "detail", "details", "browse", "visit", "see",
        "seen", "look", "viewitem", "viewed item", "preview", "ansicht", "angesehen", "vue", "vu",
        "vista", "visto", "visualizacao", "visualizzazione", "bekeken", "просмотр", "浏览",
    ),
    0.2: ("click", "clicks", "clicked", "clickout", "tap", "open", "opened", "clk", "select",
            "klick", "klik", "clic", "клик", "点击"),
    0.5: (
        "cart", "addtocart", "addcart", "carted", "basket", "addtobasket", "atc", "fav",
        "favorite", "favourite", "favorites", "favor", "like", "liked", "likes", "wishlist",
        "addtowishlist", "bookmark", "save", "saved", "collect", "star", "thumbsup", "upvote",
        "follow", "share", "shared", "comment", "heart", "love", "addtocollection", "warenkorb",
        "merkliste", "panier", "carrito", "carrello", "carrinho", "winkelmand", "koszyk", "корзина",
        "收藏", "加购",
    ),
    1.0: (
        "buy", "bought", "purchase", "purchased", "purchases", "transaction", "order", "ordered",
        "checkout", "pay", "paid", "payment", "sale", "sold", "conversion", "convert", "booking",
        "booked", "subscribe", "install", "apply", "reservation", "rent", "download", "complete",
        "completed", "finish", "finished", "play", "played", "listen", "watch", "watched", "stream",
        "read", "rating", "rate", "rated", "review", "kauf", "gekauft", "bestellung", "achat",
        "commande", "compra", "pedido", "acquisto", "aankoop", "zakup", "покупка", "заказ", "购买",
    ),
    0.0: (
        "impression", "impressions", "imp", "show", "shown", "exposure", "expose", "display",
        "removefromcart", "remove", "removed", "removecart", "removefrombasket", "unlike", "unfav",
        "removefromwishlist", "search", "scroll", "hover", "skip", "skipped", "start", "pause",
        "stop", "login", "logout", "unfollow",
    ),
    -1.0: (
        "dislike", "disliked", "hide", "hidden", "return", "returned", "returns", "refund",
        "refunded", "thumbsdown", "downvote", "notinterested", "block", "report", "uninstall",
        "unsubscribe", "reject", "rejected", "spam", "hate", "negative", "retoure", "rückgabe",
        "storno", "retour", "remboursement", "devolucion", "devolucao", "devolución", "reso",
        "zwrot", "возврат", "退货",
    ),
}  # fmt: skip
_KNOWN = {kind: worth for worth, kinds in _WORTH.items() for kind in kinds}
_BUYS = (
    frozenset(_WORTH[1.0][:16])
    | frozenset(_WORTH[1.0][_WORTH[1.0].index("kauf") :])
    | {"rent", "orders", "sales"}
)
_PARTS = (
    ({"return", "returned", "refund", "refunded", "dislike", "hide", "downvote"}, -1.0),
    ({"remove", "removed", "delete", "deleted", "unlike", "impression", "abandoned"}, 0.0),
    ({"cart", "basket", "wishlist", "favorite", "favourite", "fav", "like", "bookmark"}, 0.5),
    ({"purchase", "purchased", "bought", "buy", "order", "ordered", "paid", "payment"}, 1.0),
    ({"click", "clicked"}, 0.2),
    ({"view", "viewed", "detail"}, 0.1),
)


def weight_of(kind: str) -> float | None:
    """What an event of a kind counts beside others, or None where the word says nothing.

    >>> weight_of("Add to Cart"), weight_of("pv"), weight_of("Product Viewed"), weight_of("x")
    (0.5, 0.1, 0.1, None)
    """
    parts = words(kind)
    known = _KNOWN.get("".join(parts))
    if known is not None:
        return known
    return next((worth for some, worth in _PARTS if some & set(parts)), None)


def is_purchase(kind: str) -> bool:
    """Whether a kind says that something was bought."""
    parts = words(kind)
    return "".join(parts) in _BUYS or (weight_of(kind) == 1.0 and bool(_BUYS & set(parts)))


def find_kinds(frame: pl.DataFrame, taken: set[str]) -> Found | None:
    """The column of the kinds of event, or None.

    Args:
        frame: the log.
        taken: columns that play another role.
    """
    found = []
    for place, name in enumerate(frame.columns):
        score = 0.0 if name in taken else _score(frame[name])
        if score:
            found.append((-score, place, name))
    if not found:
        return None
    (_, _, best), *rest = sorted(found)
    return Found(
        best, _evidence(frame[best]), tuple((one, _evidence(frame[one])) for *_, one in rest)
    )


def find_other_kinds(
    frame: pl.DataFrame, taken: set[str], item: str, user: str
) -> tuple[tuple[str, str], ...]:
    """Columns that may hold kinds of event in words that are not known, with their evidence.

    Args:
        frame: the log.
        taken: columns that play a role.
        item: the column of items' ids; what it decides describes items.
        user: that of users'.
    """
    found = []
    for name, dtype in frame.schema.items():
        if name in taken or dtype != pl.String or rank(name, ATTRIBUTES) is not None:
            continue
        column = cells(frame[name])
        if not 2 <= column.drop_nulls().n_unique() <= _FEW or column.null_count():
            continue
        pairs = [frame.select(one, name).n_unique() / frame[one].n_unique() for one in (item, user)]
        if min(pairs) > _OFTEN:
            found.append((name, f"{_evidence(frame[name])}; say in [data.kinds] what each counts"))
    return tuple(found)


def _score(column: pl.Series) -> float:
    """How likely a column holds kinds; 0: it does not."""
    dtype, place = column.dtype, rank(column.name, KINDS, whole=True)
    strong = place is not None and column.name.lower() not in _WEAK
    named = 0.0 if place is None else 1 - place / 100
    if dtype.is_integer():
        few = column.n_unique() <= _MOST_NUMBERS and column.len() > _MOST_NUMBERS
        return named if strong and few and "type" in words(column.name) else 0.0
    if not (dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)):
        return 0.0
    distinct = cells(column.unique()).drop_nulls()
    if not 1 <= len(distinct) <= (_MOST_NAMED if strong else _MOST):
        return 0.0
    known = sum(weight_of(kind) is not None for kind in distinct.to_list())
    share = known / len(distinct)
    if strong and (share > 0 or len(distinct) <= _MOST):
        return named + share
    if place is not None and share >= 0.5:
        return named + share
    return share if share >= 0.6 and (known > 1 or share == 1) else 0.0


def _evidence(column: pl.Series) -> str:
    different = column.drop_nulls().unique(maintain_order=True)
    some = ", ".join(shown(one) for one in different.head(4).to_list())
    more = " and more" if len(different) > 4 else ""
    return f"{len(different):,} kinds of event: {some}{more}"
