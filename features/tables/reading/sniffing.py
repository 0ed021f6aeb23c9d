"""How a file is written, found from its first block."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import replace
from itertools import islice, pairwise

from features.errors import DataError
from features.tables.reading.files import BLOCK, compression_of, first_block
from features.tables.reading.options import FileFormat, ReadOptions
from features.tables.reading.remote import File
from features.tables.reading.rows import csv_rows

__all__ = ["found_options"]

_SEPARATORS = (",", "\t", ";", "::", "|", "\x01", "^", " ")
_LOOKED_AT = 200
_MOST_COMMENTS = 100
_EXCEL = re.compile(r"sep=(.)", re.IGNORECASE)
_COUNTED = 2
_TELLING, _ENOUGH = 1 << 14, 32
_WESTERN = "cp1252"
_EIGHT_BIT = (
    *(_WESTERN, "cp1250", "iso8859_2", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp1257", "cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
)
"""Encodings that exports are written in; those of DOS would explain nearly any bytes as well."""
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|\d{4}-\d\d-\d\d.*")
_SINGLE_QUOTED = re.compile(r"'[^'\n]*'[^\w\s]")
_NAMED = re.compile(r"[A-Za-z_ ]*id", re.IGNORECASE)
_NOT_TEXT = {
    b"PK\x03\x04": "an Excel or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"SQLite": "a SQLite database",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
}
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def found_options(path: File, said: ReadOptions) -> ReadOptions:
    """What was said, and for the rest what the first block of a file shows.

    Raises:
        DataError: the file is empty, holds no text and is no Parquet, or must not be read.
    """
    if said.format == "parquet":
        return said
    try:
        compression = said.compression or compression_of(path)
    except PermissionError:
        raise DataError(f"{path}: must be readable, got no permission; change its mode") from None
    block = first_block(path, compression)
    if block.startswith(b"PAR1") and said.format is None:
        return replace(said, format="parquet")
    if said.format is None and path.suffix.lower() in (".parquet", ".pq"):
        raise DataError(
            f"{path}: must be a Parquet file, got other bytes; write or copy it again, or rename it"
        )
    if not block:
        raise DataError(f"{path}: must hold rows, got an empty file; check how it was written")
    encoding = codecs.lookup(said.encoding or _encoding(path, block)).name
    text = block.decode(encoding, errors="replace").removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path}: must hold rows, got blank lines alone; check how it was written")
    said = replace(said, compression=compression, encoding=encoding)
    said = replace(said, format=said.format or _format(path, text))
    if said.format != "delimited":
        return said
    said, text = _without_preface(said, text)
    return _delimited(path, text, said)


def _without_preface(said: ReadOptions, text: str) -> tuple[ReadOptions, str]:
    """The text behind comments, or behind the line by which Excel names the separator."""
    lines = text.splitlines(keepends=True)
    if said.skip_lines is None:
        named = _EXCEL.fullmatch(lines[0].strip())
        if named is not None:
            said = replace(said, skip_lines=1, separator=said.separator or named[1])
        else:
            said = replace(said, skip_lines=_comments(lines))
    return said, "".join(lines[said.skip_lines or 0 :])


def _comments(lines: list[str]) -> int:
    """How many of the first lines begin with "#" and have not the form of a row."""
    count = next((n for n, line in enumerate(lines) if not line.startswith("#")), 0)
    if not 0 < count <= _MOST_COMMENTS:
        return 0
    form = [lines[count].count(one) for one in _SEPARATORS[:4]]
    rows = (n for n in range(count) if [lines[n].count(one) for one in _SEPARATORS[:4]] == form)
    return next(rows, count)


def _encoding(path: File, block: bytes) -> str:
    for start, kind in _NOT_TEXT.items():
        if block.startswith(start):
            raise DataError(f"{path}: must be text or Parquet, got {kind}; export it as CSV")
    for mark, encoding in _MARKS.items():
        if block.startswith(mark):
            return encoding
    if b"\0" in block:
        even, odd = block[::2].count(0), block[1::2].count(0)
        if 3 * max(even, odd) < len(block) // 2:
            raise DataError(
                f"{path}: must be text or Parquet, got bytes that are neither; export it as CSV"
            )
        return "utf-16-be" if even > odd else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block, final=len(block) < BLOCK)
    except UnicodeDecodeError:
        return _eight_bit(block)
    return "utf-8"


def _eight_bit(block: bytes) -> str:
    """The encoding of text that is no Unicode; of little of it Western Europe's is assumed."""
    import charset_normalizer

    telling = b"".join(line for line in block.splitlines(True) if not line.isascii())[:_TELLING]
    if sum(byte > 127 for byte in telling) >= _ENOUGH:
        found = charset_normalizer.from_bytes(telling, cp_isolation=[*_EIGHT_BIT], threshold=0.5)
        best = found.best()
        western = [one for one in found if _WESTERN in one.could_be_from_charset]
        if best is not None and not any(
            one.chaos <= best.chaos and one.coherence >= best.coherence for one in western
        ):
            return best.encoding
    try:
        block.decode(_WESTERN)
    except UnicodeDecodeError:
        return "latin-1"
    return _WESTERN


def _plain_name(path: File) -> str:
    """The name in lower case without the suffix of a compression."""
    return path.name.lower().removesuffix(".gz").removesuffix(".zst")


def _format(path: File, text: str) -> FileFormat:
    start, name = text.lstrip()[:1], _plain_name(path)
    if name.endswith((".json", ".jsonl", ".ndjson")) or (
        start in "[{" and not name.endswith((".csv", ".tsv"))
    ):
        return "json_array" if start == "[" else "json_lines"
    return "delimited"


def _delimited(path: File, text: str, said: ReadOptions) -> ReadOptions:
    """Separator and quote with which all rows of the block have the same number of cells."""
    separators = [said.separator] if said.separator else _separators(path)
    quotes = ['"', ""] if said.quote is None else [said.quote]
    if said.quote is None and _SINGLE_QUOTED.match(text):
        quotes.insert(0, "'")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if separators[0] in first:  # a "|" or a space that each cell has is no separator then
        separators = [one for one in separators if one not in "|^ "] or separators
    even = []
    for separator in separators:
        for quote in quotes if separator != "::" or said.quote else [""]:
            rows, fine = _rows(text, separator, quote)
            widths = {len(row) for row in rows}
            if fine and len(widths) == 1 and not (said.quote is None and _kept(rows)):
                even.append((len(rows[0]), separator, quote))
    # Where no form fits all rows the usual one stands, and the reader names the first bad row.
    met = [one for one in separators if one in first and one != " "]
    usual = (1, (met or separators)[0], said.quote if said.quote is not None else '"')
    several = [one for one in even if one[0] > 1]
    _, separator, quote = (several or ([] if met else even) or [usual])[0]
    if separator == "::" and said.quote is None:
        quote = ""
    rows, _ = _rows(text, separator, quote)
    header = _has_header(rows) if said.header is None else said.header
    return replace(said, separator=separator, quote=quote, header=header)


def _kept(rows: list[list[str]]) -> bool:
    """Whether cells are still quoted."""
    return any(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in rows for cell in row)


def _separators(path: File) -> list[str]:
    """Those that files have, the one that the suffix promises first."""
    tabbed = _plain_name(path).endswith((".tsv", ".tab", ".inter", ".item", ".user"))
    own = "\t" if tabbed else ","
    return [own, *(one for one in _SEPARATORS if one != own)]


def _rows(text: str, separator: str, quote: str) -> tuple[list[list[str]], bool]:
    """The first rows that can be read, and whether all can; the last may be cut off."""
    found = csv_rows(io.StringIO(text, newline=""), separator, quote)
    rows = [row for _, _, row in islice(found, _LOOKED_AT)]
    if len(rows) > 1 and len(text) >= BLOCK // 4:
        rows.pop()
    readable = [row for row in rows if not isinstance(row, str)]
    return readable, len(readable) == len(rows) > 0


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: a column of numbers begins with something else."""
    if not rows:
        return True
    head = rows[0]
    body = [row for row in rows[1:] if len(row) == len(head)]
    if any(_NAMED.fullmatch(cell.strip()) for cell in head) or _numbers_columns(head):
        return True
    numeric = [
        number
        for number in range(len(head))
        if (cells := [row[number] for row in body if row[number]])
        and all(_NUMBER.fullmatch(cell) for cell in cells)
    ]
    if body and numeric:
        return any(not _NUMBER.fullmatch(head[number]) for number in numeric)
    return not (any(_NUMBER.fullmatch(cell) for cell in head) or _is_like_the_rest(head, body))


def _is_like_the_rest(head: list[str], body: list[list[str]]) -> bool:
    """Whether cells of the first row are as those below them: the same text, or codes like N12."""
    below = [row for row in body if row != head]
    for place, cell in enumerate(head):
        cells = [row[place] for row in below if row[place]]
        if len(cells) < _COUNTED or not cell:
            continue
        forms = {_DIGITS.sub("0", one) for one in cells}
        if cell in cells or (forms == {_DIGITS.sub("0", cell)} and _DIGITS.search(cell)):
            return True
    return False


def _numbers_columns(head: list[str]) -> bool:
    """Whether cells behind the first, which is no number, count on: columns called by numbers."""
    first, *rest = head
    if len(rest) < _COUNTED or _NUMBER.fullmatch(first) or not all(map(str.isdecimal, rest)):
        return False
    return all(int(one) + 1 == int(other) for one, other in pairwise(rest))
