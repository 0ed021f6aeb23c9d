"""What nobody should send: a clear 4xx, at once, and nothing of it reaches the service."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from fastapi.testclient import TestClient

from serving.http.app import create_app
from tests.serving.http.http_fake import FakeService

JSON = {"Content-Type": "application/json"}
BODIES = {
    "/v1/recommend": {"user_id": "ann"},
    "/v1/recommend/batch": {"questions": [{"user_id": "ann"}]},
    "/v1/similar": {"item_id": "i1"},
    "/v1/rank": {"item_ids": ["i1"]},
    "/v1/explain": {"item_ids": ["i1"]},
    "/v1/events": {"events": [{"user_id": "ann", "item_id": "i1", "timestamp": 1.7e9}]},
}
ID_PLACES = {
    "user": ("/v1/recommend", '{"user_id": %s}'),
    "exclude": ("/v1/recommend", '{"exclude": ["i1", %s]}'),
    "only": ("/v1/recommend", '{"only": [%s]}'),
    "recent": ("/v1/recommend", '{"context": {"recent_items": [%s]}}'),
    "similar": ("/v1/similar", '{"item_id": %s}'),
    "ranked": ("/v1/rank", '{"item_ids": [%s]}'),
    "explained": ("/v1/explain", '{"item_ids": [%s]}'),
    "event user": ("/v1/events", '{"events": [{"user_id": %s, "item_id": 1, "timestamp": 1}]}'),
    "event item": ("/v1/events", '{"events": [{"user_id": 1, "item_id": %s, "timestamp": 1}]}'),
}
BAD_IDS = {
    "empty": '""',
    "64 KiB": '"%s"' % ("x" * 65536),
    "1025 characters": '"%s"' % ("é" * 1_025),
    "NUL": '"a\\u0000b"',
    "line feed": '"a\\n"',
    "escape": '"\\u001b[2J"',
    "delete": '"\\u007f"',
    "C1": '"\\u0085"',
    "NaN": "NaN",
    "Infinity": "Infinity",
    "fraction": "1.5",
    "2**64": str(2**64),
    "400 digits": "9" * 400,
    "true": "true",
    "list": '["a"]',
    "object": '{"$ne": "a"}',
}


@pytest.fixture(scope="module")
def service():
    return FakeService()


@pytest.fixture(scope="module")
def web(service):
    with TestClient(create_app(service)) as web:
        yield web


@pytest.fixture(autouse=True)
def _fresh(service):
    service.asked.clear()


def refused(web, path, content, *, headers=JSON):
    response = web.post(path, content=content, headers=headers)
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert len(error["message"]) < 600
    return response.status_code, error["code"]


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("place", ID_PLACES)
def test_ids_that_are_none(web, service, place, bad):
    path, body = ID_PLACES[place]
    assert refused(web, path, body % BAD_IDS[bad]) == (422, "invalid_request")
    assert service.asked == []


@pytest.mark.parametrize("good", ['"é"', '"a b"', '"\\ud83d\\ude00"', '"{b000}:x"', "7", "-1", "0"])
def test_ids_that_look_odd_and_are_some(web, service, good):
    response = web.post("/v1/recommend", content=f'{{"user_id": {good}}}', headers=JSON)
    assert response.status_code == 200
    found = json.loads(good)
    assert service.asked[0].user_id == str(found)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"user_id": "ann"} {}', "malformed_json"),
        (b"{'user_id': 'ann'}", "malformed_json"),
        (b'{"user_id": "\xff"}', "malformed_json"),
        (b'{"user_id": "\xed\xa0\x80"}', "malformed_json"),  # half a pair, in UTF-8
        (b'{"user_id": "\\ud800"}', "malformed_json"),  # half a pair, escaped
        (b'{"user_id": "\\udc00\\ud800"}', "malformed_json"),
        (b'{"user_id": "a\x00b"}', "malformed_json"),
        (b'\xef\xbb\xbf{"user_id": "ann"}', "malformed_json"),  # a byte order mark
        ('{"user_id": "ann"}'.encode("utf-16"), "malformed_json"),
        (b'{"k": %s}' % (b"9" * 5000), "malformed_json"),
        (b"[" * 100_000, "json_too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "json_too_deep"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "json_too_deep"),
        (b'{"exclude": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json_too_deep"),
    ],
)
@pytest.mark.parametrize("path", BODIES)
def test_what_is_no_json(web, service, path, content, code):
    assert refused(web, path, content) == (400, code)
    assert service.asked == []


@pytest.mark.parametrize("content", [b"null", b"[]", b"1", b'"x"', b"NaN", b"true"])
@pytest.mark.parametrize("path", BODIES)
def test_what_is_no_object(web, path, content):
    assert refused(web, path, content) == (422, "invalid_request")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend", '{"k": %s}'),
        ("/v1/recommend", '{"diversity": %s}'),
        ("/v1/events", '{"events": [{"user_id": 1, "item_id": 1, "timestamp": %s}]}'),
        (
            "/v1/events",
            '{"events": [{"user_id": 1, "item_id": 1, "timestamp": 1, "weight": %s}]}',
        ),
    ],
)
def test_numbers_that_are_none(web, service, path, body, number):
    assert refused(web, path, body % number) == (422, "invalid_request")
    assert service.asked == []


def test_lists_without_end(web, service):
    million = json.dumps({"exclude": [str(number) for number in range(10**6)]})
    assert refused(web, "/v1/recommend", million) == (413, "body_too_large")
    below_the_limit = json.dumps({"exclude": list(range(30_000))})
    assert refused(web, "/v1/recommend", below_the_limit) == (422, "too_many_items")
    assert service.asked == []


def test_a_name_given_twice_counts_once(web, service):
    content = '{"user_id": "ann", "k": 1, "k": 2}'
    assert len(web.post("/v1/recommend", content=content, headers=JSON).json()["items"]) == 2


def test_no_encoding_is_unpacked(web, service):
    bomb = gzip.compress(b" " * 10**7)
    assert len(bomb) < 20_000
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "GZIP", "x"):
        headers = JSON | {"Content-Encoding": encoding}
        assert refused(web, "/v1/recommend", bomb, headers=headers) == (415, "unsupported_encoding")
    headers = JSON | {"Content-Encoding": "identity"}
    assert web.post("/v1/recommend", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application/json, text/plain",
    ],
)
def test_other_media_types(web, service, kind):
    """A page of another site can make a browser send these without asking us first."""
    headers = {} if kind is None else {"Content-Type": kind}
    for path, body in BODIES.items():
        content = json.dumps(body).encode()
        found = refused(web, path, content, headers=headers)
        assert found == (415, "unsupported_media_type")
    assert service.asked == []


@pytest.mark.parametrize("kind", ["Application/JSON", 'application/json; charset="UTF-8"'])
def test_other_spellings_of_json(web, kind):
    headers = {"Content-Type": kind}
    assert web.post("/v1/recommend", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%00",
        "/v1/%ff",
        "//v1/recommend",
        "/v1/../metrics",
        "/" + "x" * 60_000,
        "/v1/recommend%0a",
    ],
)
def test_paths_that_lead_nowhere(web, path):
    response = web.post(path, json={})
    assert response.status_code in (404, 405)
    assert response.json()["error"]["code"] in ("not_found", "method_not_allowed")
    assert len(response.content) < 300


@pytest.mark.parametrize("value", ["a%00", "%0a", "x" * 60_000, "", "%7f"])
def test_queries_that_are_none(web, service, value):
    response = web.get(f"/v1/similar?item_id={value}")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")
    assert service.asked == []


def test_a_query_that_is_no_utf_8_names_an_unknown_item(web, service):
    assert web.get("/v1/similar?item_id=%ed%a0%80").status_code == 200
    assert "\ud800" not in service.asked[0].item_id


# -- what the test client cannot send ---------------------------------------------------------


def scope_of(path="/v1/recommend", method="POST", headers=()):
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), *headers],
    }


async def call(app, *messages, send=None, **options):
    """Statuses that ``app`` answered a request with whose body comes in ``messages``."""
    sent = []
    left = list(messages)

    async def receive():
        message = left.pop(0)
        return await message if asyncio.iscoroutine(message) else message

    async def note(message):
        sent.append(message)

    await app(scope_of(**options), receive, send or note)
    return [one["status"] for one in sent if "status" in one]


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_clients_that_go_before_their_body_is_whole(service):
    app = create_app(service)

    async def ask():
        assert await call(app, GONE) == []
        assert await call(app, part(b"{", True), GONE) == []
        assert await call(app, part(b"{", True), part(b"", True), part(b"}")) == [200]

    asyncio.run(ask())
    assert len(service.asked) == 1
    text = service.telemetry.exposition().decode()
    gone = 'recsys_requests_total{route="/v1/recommend",source="",status="499"} 2.0'
    assert gone in text.splitlines()


def test_bodies_are_cut_off_however_they_come(service):
    app = create_app(service, max_body_bytes=1000)
    endless = [part(b" " * 600, True)] * 1000

    async def ask():
        assert await call(app, *endless) == [413]
        assert await call(app, part(b"{}"), headers=[(b"content-length", b"9" * 30)]) == [413]
        assert await call(app, part(b"{}"), headers=[(b"content-length", b"-1")]) == [200]
        assert await call(app, part(b"{}" + b" " * 998)) == [200]
        assert await call(app, part(b"{}" + b" " * 999)) == [413]

    asyncio.run(ask())


def test_slow_clients_hold_no_thread(service):
    """One thread and nobody may wait for it: it is free while others dawdle at either end."""
    app = create_app(service, max_in_flight=1, max_waiting=0)

    async def ask():
        go = asyncio.Event()

        async def late():
            await go.wait()
            return part(b"}")

        async def never_read(message):
            await go.wait()

        slow = [
            asyncio.ensure_future(call(app, part(b"{", True), late())),
            asyncio.ensure_future(call(app, part(b"{}"), send=never_read)),
        ]
        await asyncio.sleep(0)
        for _ in range(200):
            if len(service.asked) == 1:
                break
            await asyncio.sleep(0.01)
        service.asked.clear()
        assert await call(app, part(b'{"user_id": "quick"}')) == [200]
        assert service.asked[0].user_id == "quick"
        go.set()
        assert (await slow[0]) == [200]
        await slow[1]

    asyncio.run(asyncio.wait_for(ask(), 60))


@pytest.mark.slow
def test_memory_stays_where_it_is(service):
    """A hundred thousand broken requests, each of another kind of broken and with other ids.

    What is read once (parsers, caches of regular expressions, counters of each route) is there
    after the first tenth. From then on the process may grow by 4 MiB, 47 bytes a request: a leak
    of one id each would be more than that.
    """
    app = create_app(service)
    kinds = [
        b'{"user_id": "%d\\u0000"}',
        b'{"k": %d}',
        b'{"field%d": 1}',
        b"[%d" + b"[" * 300,
        b'{"user_id": "%d", "exclude": [' + b"1.5," * 100 + b"1.5]}",
        b'{"user_id": "%d" "k": 1}',
        b'{"questions": [{"user_id": "%d", "k": -1}]}',
    ]
    paths = [*BODIES, "/v1/nothing/%d"]

    async def send(first, last):
        for number in range(first, last):
            path = paths[number % len(paths)]
            path = path % number if "%" in path else path
            body = kinds[number % len(kinds)] % (10_000 + number)
            headers = [(b"x-request-id", b"r%d" % number), (b"x-api-key", b"k%d" % number)]
            (status,) = await call(app, part(body), path=path, headers=headers)
            assert 400 <= status < 500 or path == "/v1/recommend/batch"
            service.asked.clear()

    asyncio.run(send(0, 10_000))
    before = resident_kib()
    asyncio.run(send(10_000, 100_000))
    assert resident_kib() - before < 4 * 1024


def resident_kib():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
