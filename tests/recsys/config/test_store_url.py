from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.store_url import StoreUrl, redact

ANY_TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


SERVER = StoreUrl("server", hosts=(("h", 6379),))
SOCKET = StoreUrl("socket", path="/run/a.sock")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h", SERVER),
        ("redis://h:6379/3", replace(SERVER, database=3)),
        ("rediss://shop@h/", replace(SERVER, tls=True, username="shop")),
        ("redis://:p%40w@[::1]:7", StoreUrl("server", hosts=(("::1", 7),), password="p@w")),
        ("unix:///run/a%2Esock?db=2", replace(SOCKET, database=2)),
        ("unix://me@/run/a.sock?password=x", replace(SOCKET, username="me", password="x")),
        (
            "redis+cluster://a:1,b,[::1]:2/",
            StoreUrl("cluster", hosts=(("a", 1), ("b", 6379), ("::1", 2))),
        ),
        (
            "rediss+cluster://u:p@a",
            StoreUrl("cluster", True, (("a", 6379),), username="u", password="p"),
        ),
        (
            "redis+sentinel://a,b:1/main",
            StoreUrl("sentinel", hosts=(("a", 26379), ("b", 1)), master="main"),
        ),
        (
            "rediss+sentinel://a/ma%20in/4",
            StoreUrl("sentinel", True, (("a", 26379),), master="ma in", database=4),
        ),
    ],
)
def test_each_form(url: str, parts: StoreUrl) -> None:
    assert StoreUrl.parse(url) == parts
    assert replace(StoreUrl.parse(redact(url)), password=None) == replace(parts, password=None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://u:pw@h", r"must be 'embedded' or start with redis://.*got http://\.\.\.$"),
        ("REDIS://pw@h", r"got REDIS://\.\.\.; write it in small letters$"),
        ("pw", "got no scheme$"),
        ("PW://x", "got no scheme$"),
        ("redis://h\n", "it must hold no line break and no other control character"),
        ("unix:///run/%00", "it must hold no line break and no other control character"),
        ("redis://a..b", "each host must be host or host:port"),
        (f"redis://{'a' * 64}.net", "each host must be host or host:port"),
        ("pw@h://x", "got no scheme$"),
        ("redis://h:notaport", "each host must be host or host:port"),
        ("redis://h:70000", "each host must be"),
        ("redis://:p/w@h:6379", "each host must be .*; a '/', '#', '\\?' or '@' of a password"),
        ("redis://", "each host must be"),
        ("redis://h/name", "the database must be a number"),
        ("redis://a,b", r"several hosts need redis\+cluster"),
        ("redis://h?socket_timeout=99", "only db may follow the '\\?'; timeouts and TLS files"),
        ("rediss://h?ssl_cert_reqs=none", "only db may follow"),
        ("redis+cluster://h/1", "a cluster has database 0 only"),
        ("redis+cluster://h?db=1", "a cluster has database 0 only"),
        ("redis+sentinel://u:1/pw@h/main", "Sentinel needs the master's name"),
        ("redis+sentinel://h", "Sentinel needs the master's name"),
        ("redis+sentinel://h/main/one", "the database must be a number"),
        ("unix://", "unix:// needs a path"),
        ("unix://host/run/a.sock", "unix:// needs a path"),
    ],
)
def test_other_forms_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        StoreUrl.parse(url)
    assert "pw" not in str(caught.value).lower()
    assert redact(url) == "<unreadable url>"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:6379/0", "redis://:***@h"),
        ("rediss://me:p%40w@h:1/2", "rediss://me:***@h:1/2"),
        ("redis://me@h", "redis://me@h"),
        ("unix:///a/b.sock?password=pw", "unix://:***@/a/b.sock"),
        ("redis+cluster://:pw@a:1,b:2/", "redis+cluster://:***@a:1,b:2"),
        ("rediss+sentinel://me:pw@a:1,b/main/3", "rediss+sentinel://me:***@a:1,b/main/3"),
        ("embedded", "embedded"),
        ("just text with pw", "<unreadable url>"),
    ],
)
def test_redaction(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(before=ANY_TEXT, after=ANY_TEXT)
def test_a_password_is_never_shown(before: str, after: str) -> None:
    secret = "s3cr3t"
    url = f"redis://user:{before}{secret}{after}@host:1/0"
    assert secret not in redact(url)
    said = ""
    try:
        StoreUrl.parse(url)
    except ValueError as error:
        said = str(error)
    assert secret not in said
