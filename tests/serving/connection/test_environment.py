from __future__ import annotations

import pytest

from recsys.config.store_url import StoreUrl
from recsys.errors import ConfigError
from serving.connection import connect
from serving.connection.environment import check_environment, login_of, sentinel_password

SECRET = "s3cr-et"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"redis://:{SECRET}@h:1\n", "must not end with white space, got a line feed"),
        (f" redis://:{SECRET}@h:1", "must not begin with white space, got a space"),
        (f"redis://:{SECRET}@h\t:1", "must hold no control character"),
        (f"redis://:{SECRET}@h\udcff", "must be UTF-8 text, got other bytes"),
        (f"REDIS://:{SECRET}@h:1", r"must be .* got REDIS://\.\.\.; write it in small letters"),
        (f"redis://:{SECRET}@h:1/0?protocol=3", "cannot be read: only db may follow"),
        (f"{SECRET}@h:6379", "must be .* got no scheme"),
        (f"redis://:{SECRET}@h:port", "cannot be read: each host must be"),
    ],
)
def test_a_mistake_in_the_url_names_the_variable_and_no_secret(monkeypatch, url, message):
    monkeypatch.setenv("RECSYS_STORE_URL", url)
    for ask in (lambda: connect("redis://h"), check_environment):
        with pytest.raises(ConfigError, match=f"^RECSYS_STORE_URL {message}") as caught:
            ask()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    ["RECSYS_STORE_USERNAME", "RECSYS_STORE_PASSWORD", "RECSYS_STORE_SENTINEL_PASSWORD"],
)
def test_the_line_feed_of_a_secret_file_is_told(monkeypatch, variable):
    monkeypatch.setenv(variable, f"{SECRET}\n")
    message = f"^{variable} must not end with white space, got a line feed.*a file that holds"
    with pytest.raises(ConfigError, match=message) as caught:
        check_environment()
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        connect("redis+sentinel://h/main")


def test_what_is_empty_is_not_set(monkeypatch):
    for name in ("URL", "USERNAME", "PASSWORD", "SENTINEL_PASSWORD"):
        monkeypatch.setenv(f"RECSYS_STORE_{name}", "")
    check_environment()
    assert login_of(StoreUrl.parse("redis://h")) == {}
    assert sentinel_password() is None


def test_tls_files_are_told_as_settings(monkeypatch, tmp_path):
    from serving.connection.clients import TlsFiles

    with pytest.raises(ConfigError, match=r"tls_ca_file must be a file, got .*none\.pem"):
        TlsFiles(tmp_path / "none.pem")
    monkeypatch.setenv("RECSYS_STORE_URL", "redis://h")
    with pytest.raises(ConfigError, match="got redis://h in RECSYS_STORE_URL"):
        connect("rediss://h", tls=TlsFiles())
