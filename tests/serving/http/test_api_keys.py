"""Who may ask what over HTTP."""

from __future__ import annotations

import hashlib
import json
import logging
import time

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recsys.errors import ConfigError
from serving.cli import app as command
from serving.http.api_keys import ApiKeys, new_key
from serving.http.app import create_app
from tests.serving.http.http_fake import FakeService

SECRETS = {name: f"rsk_{name}_{'0' * 40}" for name in ("reader", "sender", "boss", "all")}
SCOPES = {"reader": "read", "sender": "feedback", "boss": "admin", "all": "read+feedback+admin"}
TEXT = "\n".join(
    f"{name}:{SCOPES[name]}:{hashlib.sha256(secret.encode()).hexdigest()}"
    for name, secret in SECRETS.items()
)
CALLS = {
    "read": ("POST", "/v1/recommend", {}),
    "feedback": (
        "POST",
        "/v1/events",
        {"events": [{"user_id": "ann", "item_id": "i1", "timestamp": time.time()}]},
    ),
    "admin": ("POST", "/v1/items/hide", {"item_ids": ["i1"]}),
}
ALL_READ = [
    ("POST", "/v1/recommend/batch", {"questions": [{}]}),
    ("POST", "/v1/similar", {"item_id": "i1"}),
    ("GET", "/v1/similar?item_id=i1", None),
    ("POST", "/v1/rank", {"item_ids": ["i1"]}),
    ("POST", "/v1/explain", {"item_ids": ["i1"]}),
    ("GET", "/v1/generations", None),
    ("GET", "/metrics", None),
]
ALL_ADMIN = [
    ("POST", "/v1/items/restore", {"item_ids": ["i1"]}),
    ("POST", "/v1/admin/flip", {"generation": "g1"}),
    ("POST", "/v1/admin/rollback", None),
]


def ask(web, call, secret=None, **options):
    method, path, body = call
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return web.request(method, path, json=body, headers=headers | options.get("headers", {}))


def code_of(response):
    return response.json()["error"]["code"]


@pytest.fixture
def web():
    app = create_app(FakeService(), keys=ApiKeys.parse(TEXT), admin=True)
    with TestClient(app) as web:
        yield web


@pytest.mark.parametrize("name", list(SECRETS))
def test_a_key_opens_its_scopes_and_no_others(web, name):
    for scope, call in CALLS.items():
        response = ask(web, call, SECRETS[name])
        if scope in SCOPES[name].split("+"):
            assert response.status_code == 200
        else:
            assert (response.status_code, code_of(response)) == (403, "forbidden")
            assert response.json()["error"]["message"] == f"the key has no scope {scope}"


@pytest.mark.parametrize("call", ALL_READ + ALL_ADMIN, ids=lambda call: call[1])
def test_every_operation_asks_for_a_key(web, call):
    response = ask(web, call)
    assert (response.status_code, code_of(response)) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert ask(web, call, SECRETS["sender"]).status_code == 403
    assert ask(web, call, SECRETS["all"]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {SECRETS['reader']}"},
        {"Authorization": f"Bearer {SECRETS['reader']}x"},
        {"Authorization": f"Bearer {SECRETS['reader'][:-1]}"},
        {"Authorization": SECRETS["reader"]},
        {"X-Api-Key": ""},
        {"X-Api-Key": hashlib.sha256(SECRETS["reader"].encode()).hexdigest()},
        {"X-Api-Key": b"\xff" * 40},
        {"X-Api-Key": "a" * 5000},
    ],
)
def test_what_is_no_key(web, headers):
    response = ask(web, CALLS["read"], headers=headers)
    assert (response.status_code, code_of(response)) == (401, "unauthorized")


def test_both_headers_carry_a_key(web):
    for headers in (
        {"X-Api-Key": SECRETS["reader"]},
        {"Authorization": f"bearer  {SECRETS['reader']} "},
        {"Authorization": "Basic x", "X-Api-Key": SECRETS["reader"]},
    ):
        assert ask(web, CALLS["read"], headers=headers).status_code == 200


def test_health_and_the_document_are_open(web):
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert web.get(path).status_code == 200


def test_a_key_is_asked_for_before_the_body_is_read(web):
    response = web.post("/v1/recommend", content=b"{" * 10**7)
    assert response.status_code == 401


def test_the_log_names_the_key_and_never_holds_it(web, caplog):
    with caplog.at_level(logging.INFO, logger="serving.access"):
        ask(web, CALLS["read"], SECRETS["reader"])
        ask(web, CALLS["feedback"], SECRETS["reader"])
        ask(web, CALLS["read"], "x" * 40)
    lines = [record.fields for record in caplog.records if record.name == "serving.access"]
    assert [(one.get("key"), one["status"]) for one in lines] == [
        ("reader", 200),
        ("reader", 403),
        (None, 401),
    ]
    assert SECRETS["reader"] not in str([vars(record) for record in caplog.records])


def test_without_keys_reading_and_feedback_are_open():
    with TestClient(create_app(FakeService())) as web:
        assert ask(web, CALLS["read"]).status_code == 200
        assert ask(web, CALLS["read"], "whatever").status_code == 200
        assert ask(web, CALLS["feedback"]).status_code == 200


@pytest.mark.parametrize("call", [CALLS["admin"], *ALL_ADMIN], ids=lambda call: call[1])
def test_admin_verbs_need_the_setting_and_a_key(call):
    service = FakeService()
    with TestClient(create_app(service, admin=True)) as web:
        assert code_of(ask(web, call)) == "unauthorized"
    with TestClient(create_app(service, keys=ApiKeys.parse(TEXT))) as web:
        response = ask(web, call, SECRETS["all"])
        assert (response.status_code, code_of(response)) == (403, "admin_disabled")
    assert service.asked == []


def test_a_flip_to_what_is_not_there(web):
    response = ask(web, ("POST", "/v1/admin/flip", {"generation": "g9"}), SECRETS["boss"])
    assert (response.status_code, code_of(response)) == (404, "unknown_generation")


def test_short_keys_never_open_anything():
    """Whoever writes the digest of a password gets no key: a plain hash does not protect one."""
    keys = ApiKeys.parse(f"weak:read:{hashlib.sha256(b'password').hexdigest()}")
    assert keys.find("password") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("read:abc", "API key read: unknown scope 'abc'"),
        (":read:" + "0" * 64, "API key 1: the name must be"),
        ("a b:read:" + "0" * 64, "API key 1: the name must be"),
        ("a::" + "0" * 64, "API key a: unknown scope ''"),
        ("a:read+write:" + "0" * 64, "API key a: unknown scope 'write'; known:"),
        ("a:read:" + "0" * 63, "API key a: the digest must be 64 hexadecimal digits, got 63"),
        ("a:read:" + "G" * 64, "API key a: the digest must be 64 hexadecimal digits"),
        ("a:read:{0},a:read:{1}", "two API keys have the same name"),
        ("a:read:{0},b:read:{0}", "two API keys have the same digest"),
    ],
)
def test_broken_entries_are_told(text, message):
    with pytest.raises(ConfigError) as caught:
        ApiKeys.parse(text.format("0" * 64, "1" * 64))
    assert message in str(caught.value)
    assert "0000" not in str(caught.value)


def test_keys_come_from_the_environment(tmp_path):
    lines = TEXT.splitlines()
    file = tmp_path / "keys"
    file.write_text(f"# keys of the shop\n{lines[1]}  # their backend\n\n{lines[2]}\n")
    both = {"RECSYS_API_KEYS": f" {lines[0]} ,", "RECSYS_API_KEYS_FILE": str(file)}
    keys = ApiKeys.from_environment(both)
    assert len(keys) == 3
    assert keys.find(SECRETS["boss"]).name == "boss"
    assert len(ApiKeys.from_environment({})) == 0
    with pytest.raises(ConfigError, match=r"RECSYS_API_KEYS_FILE: cannot read .*No such file"):
        ApiKeys.from_environment({"RECSYS_API_KEYS_FILE": str(tmp_path / "none")})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"RECSYS_API_KEYS_FILE: cannot read .*is not text"):
        ApiKeys.from_environment(both)


def test_the_variable_of_a_wrong_entry_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^RECSYS_API_KEYS: API key a: unknown scope 'b'"):
        ApiKeys.from_environment({"RECSYS_API_KEYS": "a:b:c"})
    file = tmp_path / "keys"
    file.write_text("a")
    with pytest.raises(ConfigError, match=r"^RECSYS_API_KEYS_FILE: API key a: unknown scope ''"):
        ApiKeys.from_environment({"RECSYS_API_KEYS_FILE": str(file)})


@pytest.mark.parametrize("entry", ["{key}:read", "shop:{key}", "{key}", "shop:read:{key}"])
def test_a_key_in_place_of_its_digest_is_never_shown(entry):
    key, _ = new_key("shop", ["read"])
    with pytest.raises(ConfigError) as caught:
        ApiKeys.from_environment({"RECSYS_API_KEYS": entry.format(key=key)})
    assert key not in str(caught.value)
    assert "RECSYS_API_KEYS: API key" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "text", "admin", "told"),
    [
        ("127.0.0.1", "", False, []),
        ("::1", "", False, []),
        ("0.0.0.0", "", False, ["anybody who reaches 0.0.0.0"]),
        ("fe80::1%eth0", "", False, ["anybody who reaches fe80::1%eth0"]),
        ("0.0.0.0", TEXT, True, []),
        ("127.0.0.1", TEXT.splitlines()[0], True, ["no key has the scope admin"]),
    ],
)
def test_doors_that_are_open_are_told(caplog, address, text, admin, told):
    ApiKeys.parse(text).warn(address, admin=admin)
    assert len(caplog.messages) == len(told)
    assert all(one in message for one, message in zip(told, caplog.messages, strict=True))


def test_new_keys_open_and_are_all_different():
    secret, key = new_key("shop", ["feedback", "read"])
    assert ApiKeys.parse(key.to_line()).find(secret) == key
    assert key.to_line().startswith("shop:read+feedback:")
    assert secret not in key.to_line()
    assert len({new_key("shop", ["read"])[0] for _ in range(100)}) == 100


def test_the_verb_prints_a_key_that_works():
    done = CliRunner().invoke(
        command, ["keys", "new", "--name", "shop", "--scopes", "read", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert ApiKeys.parse(told["line"]).find(told["key"]).name == "shop"
    text = CliRunner().invoke(command, ["keys", "new"]).output
    assert "shown once: rsk_" in text
    assert "client:read+feedback:" in text
    refused = CliRunner().invoke(command, ["keys", "new", "--scopes", "everything"])
    assert refused.exit_code == 2
    assert "unknown scope 'everything'" in refused.output
