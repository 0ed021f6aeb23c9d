"""The page of a report and its parts: style, light and dark, and nothing to fetch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

from recsys.evaluation.drawing import NUM_COLOURS

__all__ = ["folded", "legend", "page", "section", "table"]

# Eight colours that stay apart for colour-blind readers, after Okabe and Ito (2008).
STYLE = """
:root{color-scheme:light dark;--page:#fff;--card:#f6f7f9;--text:#1d2330;--soft:#5b6474;
--line:#d9dde4;--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#cc79a7;--c4:#56b4e9;--c5:#d55e00;--c6:#8a8f98;--c7:#b8a800}
@media(prefers-color-scheme:dark){:root{--page:#14171d;--card:#1d222b;--text:#e7eaf0;--soft:#a2acbd;
--line:#343b48;--c0:#4aa8e0;--c1:#f0b73c;--c2:#2fc69b;--c3:#de9cc1;--c4:#8ecdf3;--c5:#f08147;
--c6:#a9aeb7;--c7:#dccb2e}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.7rem;line-height:1.2;margin:.4em 0 .8em}
h2{font-size:1.15rem;margin:0 0 .3em}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;
margin:0 0 18px}
p{margin:.2em 0 .9em;max-width:44em}
ul{margin:.6em 0 0;padding-left:1.2em;color:var(--soft);font-size:.88rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.whisker{stroke:var(--text);stroke-width:1.4;fill:none}
.mark{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:4 4;fill:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:16px 24px;
margin-top:14px}
figure{margin:0}
figcaption{font-size:.88rem;color:var(--soft);margin:0 0 4px}
figcaption b{color:var(--text)}
.fill{fill:var(--c)}
.line{stroke:var(--c);stroke-width:2.2;fill:none;stroke-linejoin:round}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.88rem;margin:0 0 6px}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;
background:var(--c)}
.s0{--c:var(--c0)}.s1{--c:var(--c1)}.s2{--c:var(--c2)}.s3{--c:var(--c3)}
.s4{--c:var(--c4)}.s5{--c:var(--c5)}.s6{--c:var(--c6)}.s7{--c:var(--c7)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{color:var(--soft);font-weight:600}
tbody th{color:var(--text);font-weight:400}
td.words,th.words{white-space:normal;text-align:left;min-width:15em}
summary{cursor:pointer;font-weight:600}
"""


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML document; ``title`` is plain text, ``body`` HTML, ``style`` further CSS."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{body}\n</main></body></html>\n"
    )


def section(title: str, text: str, body: str) -> str:
    """A part of the page; ``text`` and ``body`` are HTML, ``title`` is plain."""
    return f"<section><h2>{escape(title)}</h2><p>{text}</p>{body}</section>"


def legend(names: Iterable[str]) -> str:
    """What the colours stand for, in the order of the series; empty for a single one."""
    entries = [
        f'<span><i class="key s{number % NUM_COLOURS}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(entries)}</div>' if len(entries) > 1 else ""


def folded(title: str, body: str) -> str:
    """HTML that is shown when the reader opens it; ``title`` is plain text."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def table(rows: Sequence[Sequence[str]], *, words: Collection[int] = ()) -> str:
    """Plain cells; the first row is the head, and the first cell of each row names it.

    Args:
        rows: of equal length.
        words: numbers of the columns that hold sentences.
    """

    def line(row: Sequence[str], *, head: bool) -> str:
        cells = []
        for column, text in enumerate(row):
            scope = "col" if head else "" if column else "row"
            tag, scoped = ("th", f' scope="{scope}"') if scope else ("td", "")
            style = ' class="words"' if column in words else ""
            cells.append(f"<{tag}{scoped}{style}>{escape(text)}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    head, body = line(rows[0], head=True), "".join(line(row, head=False) for row in rows[1:])
    inside = f"<thead>{head}</thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table>{inside}</table></div>'
