"""docs/http.md says what the application does: every call in it works, every operation is in it."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.config import ServingConfig
from serving.http.api_keys import ApiKeys, new_key
from serving.http.app import create_app
from serving.http.error_table import ERRORS
from tests.serving.http.http_fake import FakeService

PAGE = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
CALLS = re.findall(r"^\$ (curl .*)$", PAGE, re.MULTILINE)


def request_of(command):
    """Method, path, headers and body of a curl command, as its options say."""
    words = shlex.split(command.replace("'$(date +%s)'", str(int(time.time()))))
    method, path, headers, body = None, None, {}, None
    rest = iter(words[1:])
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(rest)
        elif word.startswith("$RECSYS/"):
            path = word.removeprefix("$RECSYS")
        else:
            assert word == "-s"
    return method or ("GET" if body is None else "POST"), path, headers, body


@pytest.mark.parametrize("command", CALLS)
def test_every_call_works(command):
    method, path, headers, body = request_of(command)
    if "$KEY" in command:
        secret, key = new_key("boss", ["admin"])
        app = create_app(FakeService(), keys=ApiKeys([key]), admin=True)
        headers["X-Api-Key"] = secret
    else:
        app = create_app(FakeService())
    with TestClient(app) as web:
        response = web.request(method, path, headers=headers, content=body)
    assert response.status_code == 200, response.text


def test_every_operation_has_a_call():
    document = create_app(FakeService()).openapi()
    operations = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    called = {(method, path.partition("?")[0]) for method, path, _, _ in map(request_of, CALLS)}
    assert called == operations


def test_the_table_holds_every_error():
    rows = [f"| {one.status} | `{one.code}` | {one.message} |" for one in ERRORS.values()]
    assert "\n".join(rows) in PAGE
    named = set(re.findall(r"\(`([a-z_]+)`\)", PAGE))
    assert named <= set(ERRORS)


def test_the_settings_it_names_are_there():
    for name in re.findall(r"`serving\.([a-z_]+)", PAGE):
        assert name in ServingConfig.model_fields
