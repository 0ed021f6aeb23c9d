"""Clients of one server: limits, logins, TLS, and what they say when they fail."""

from __future__ import annotations

import logging
import threading
import traceback

import pytest
import redis

from recsys.config import load_config
from recsys.errors import ConfigError
from serving.connection import connect
from serving.connection.clients import TlsFiles, store_errors
from serving.errors import StageUnavailable
from tests.serving.connection.certificates import Certificates
from tests.serving.connection.servers import Proxy, free_port, standalone

SECRET = "hunter2-s3cr3t"
DATA = '[data]\nevents = "events.parquet"\nitems = "items.parquet"\n'


# -- what a client is made of -----------------------------------------------------------------


def test_passwords_come_from_the_environment_only(monkeypatch):
    with pytest.raises(ValueError, match=r"password, got redis://u:\*\*\*@h; set RECSYS_STORE_PA"):
        connect(f"redis://u:{SECRET}@h")
    with pytest.raises(ValueError, match=r"password, got unix://:\*\*\*@/s;"):
        connect(f"unix:///s?password={SECRET}")
    monkeypatch.setenv("RECSYS_STORE_PASSWORD", "from-environment")
    kwargs = connect("redis://shop@h:7000").connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"]) == ("shop", "from-environment")
    monkeypatch.setenv("RECSYS_STORE_USERNAME", "reader")
    kwargs = connect("redis://h:7000").connection_pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"]) == ("reader", "from-environment")
    monkeypatch.setenv("RECSYS_STORE_URL", "rediss://me:in-url@other:7001/2")
    pool = connect("redis://h").connection_pool
    assert pool.connection_kwargs["host"] == "other"
    assert pool.connection_kwargs["username"] == "me"
    assert pool.connection_kwargs["password"] == "in-url"
    assert "SSL" in pool.connection_class.__name__


def test_every_wait_is_bounded():
    pool = connect(
        "redis://h", timeout_s=0.2, connect_timeout_s=0.1, retries=2, max_connections=3
    ).connection_pool
    assert pool.timeout == pool.connection_kwargs["socket_timeout"] == 0.2
    assert pool.connection_kwargs["socket_connect_timeout"] == 0.1
    assert pool.connection_kwargs["retry"].get_retries() == 2
    assert pool.max_connections == 3
    pool = connect("redis+sentinel://h/main", timeout_s=0.2, max_connections=3).connection_pool
    assert (pool.timeout, pool.max_connections) == (0.2, 3)
    [sentinel] = pool.sentinel_manager.sentinels
    asking = sentinel.connection_pool.connection_kwargs
    assert (asking["socket_timeout"], asking["retry"].get_retries()) == (0.2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://h"}, r"url must be 'embedded' or start with redis://.*got http://"),
        ({"url": "embedded"}, "directory must say where"),
        ({"url": "redis://h", "timeout_s": 0}, "timeouts must be > 0"),
        ({"url": "redis://h", "retries": -1}, "retries must be >= 0"),
        ({"url": "redis://h", "retry_after_s": 0}, "retry_after_s must be > 0, got 0"),
        ({"url": "redis://h", "tls": TlsFiles()}, "tls files need a URL that begins with rediss"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        connect(**arguments)


def test_the_environment_is_named_where_its_url_is_wrong(monkeypatch):
    monkeypatch.setenv("RECSYS_STORE_URL", f"redis://:{SECRET}/@h")
    with pytest.raises(ValueError, match="RECSYS_STORE_URL cannot be read: each host") as caught:
        connect("redis://h")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# -- no more calls at once than connections ---------------------------------------------------


def test_one_call_too_many_waits_a_bounded_time_and_is_told(redis_server_url):
    client = connect(redis_server_url, timeout_s=0.2, max_connections=2, retries=0)
    held = [client.connection_pool.get_connection() for _ in range(2)]
    with (
        pytest.raises(StageUnavailable, match=r"could not read: MaxConn.*all 2 connections were"),
        store_errors("read"),
    ):
        client.get("k")
    client.connection_pool.release(held.pop())
    assert client.get("k") is None
    client.connection_pool.release(held.pop())
    client.close()


def test_a_thread_gets_the_connection_that_becomes_free(redis_server_url):
    client = connect(redis_server_url, timeout_s=5, max_connections=1)
    held = client.connection_pool.get_connection()
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(client.ping()))
    waiting.start()
    client.connection_pool.release(held)
    waiting.join()
    assert answers == [True]
    client.close()


# -- a network that fails ---------------------------------------------------------------------


def test_a_network_that_is_cut_and_comes_back(redis_server_url):
    with Proxy(redis_server_url) as network:
        client = connect(network.url, timeout_s=0.2, connect_timeout_s=0.2)
        assert client.ping()
        network.cut()
        with pytest.raises(StageUnavailable, match="could not ping"), store_errors("ping"):
            client.ping()
        network.restore()
        assert client.ping()
        network.blackhole()
        with pytest.raises(StageUnavailable, match="Timeout"), store_errors("ping"):
            client.ping()
        network.restore()
        assert client.ping()
        client.close()


def test_a_connection_that_broke_while_idle_is_made_again(redis_server_url):
    with Proxy(redis_server_url) as network:
        client = connect(network.url, retries=1)
        assert client.ping()
        network.cut()
        network.restore()
        assert client.ping()
        client.close()


def test_a_hung_server(own_store):
    client = connect(own_store.url, timeout_s=0.2, retries=0)
    client.set("k", "v")
    own_store.stop_process()
    with pytest.raises(StageUnavailable, match="Timeout reading"), store_errors("read"):
        client.get("k")
    own_store.cont()
    assert client.get("k") == b"v"
    client.close()


@pytest.fixture
def own_store():
    with standalone() as store:
        yield store


# -- users and passwords ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["valkey", "redis"])
def secured(request):
    users = [
        "user default off",
        f"user shop on >{SECRET} ~* +@all",
        f"user nobody on >{SECRET} ~other:* +ping",
    ]
    server = standalone(request.param, users=users, login={"username": "shop", "password": SECRET})
    with server as store:
        yield store


def test_a_user_and_its_password(secured, monkeypatch):
    monkeypatch.setenv("RECSYS_STORE_USERNAME", "shop")
    monkeypatch.setenv("RECSYS_STORE_PASSWORD", SECRET)
    client = connect(secured.url)
    assert client.ping()
    assert client.acl_whoami() == "shop"
    client.close()


@pytest.mark.parametrize(
    ("username", "password", "message"),
    [
        ("shop", SECRET + "x", "AuthenticationError: (WRONGPASS )?invalid username-password pair"),
        ("unknown", SECRET, "AuthenticationError"),
        (None, None, "AuthenticationError: Authentication required"),
        (None, SECRET, "AuthenticationError"),
        ("nobody", SECRET, "NoPermissionError"),
    ],
)
def test_no_error_shows_a_password(secured, monkeypatch, caplog, username, password, message):
    caplog.set_level(logging.DEBUG)
    if username:
        monkeypatch.setenv("RECSYS_STORE_USERNAME", username)
    if password:
        monkeypatch.setenv("RECSYS_STORE_PASSWORD", password)
    client = connect(secured.url, retries=0)
    with pytest.raises(StageUnavailable, match=message) as caught, store_errors("write"):
        client.set("k", "v")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text
    assert SECRET not in repr(client) + repr(client.connection_pool)
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://shop@127.0.0.1:{port}",
        "redis+cluster://shop@127.0.0.1:{port}",
        "redis+sentinel://shop@127.0.0.1:{port}/main",
        "rediss://shop@127.0.0.1:{port}",
        "unix://shop@/nowhere/{port}.sock",
    ],
)
def test_a_server_that_is_gone_shows_no_password(url, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RECSYS_STORE_PASSWORD", SECRET)
    monkeypatch.setenv("RECSYS_STORE_SENTINEL_PASSWORD", SECRET)
    client = connect(url.format(port=free_port()), connect_timeout_s=0.2, timeout_s=0.2)
    with pytest.raises(StageUnavailable) as caught, store_errors("ping"):
        client.ping()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text
    assert SECRET not in repr(client)
    client.close()


# -- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_store():
    with standalone("redis", tls=True) as store:
        yield store


def test_tls(tls_store):
    client = connect(tls_store.url, tls=TlsFiles(ca_file=tls_store.certificates.ca))
    assert client.ping()
    client.close()
    files = tls_store.certificates
    client = connect(tls_store.url, tls=TlsFiles(files.ca, files.client, files.client_key))
    assert client.ping()
    client.close()


def test_an_unknown_authority_is_refused(tls_store, tmp_path):
    for tls in (None, TlsFiles(ca_file=Certificates.make(tmp_path).ca)):
        client = connect(tls_store.url, tls=tls, retries=0)
        with pytest.raises(StageUnavailable, match="CERTIFICATE_VERIFY"), store_errors("ping"):
            client.ping()
        client.close()


def test_another_host_is_refused_unless_asked_for(tmp_path):
    with standalone("redis", tls=True, names="subjectAltName=DNS:elsewhere.example") as store:
        ca = store.certificates.ca
        client = connect(store.url, tls=TlsFiles(ca_file=ca), retries=0)
        with pytest.raises(StageUnavailable, match="IP address mismatch"), store_errors("ping"):
            client.ping()
        client.close()
        client = connect(store.url, tls=TlsFiles(ca_file=ca, check_hostname=False))
        assert client.ping()
        client.close()


def test_a_server_that_wants_a_certificate(tmp_path):
    with standalone("redis", tls=True, tls_auth_clients="yes") as store:
        files = store.certificates
        client = connect(store.url, tls=TlsFiles(files.ca), retries=0)
        with pytest.raises(redis.ConnectionError):  # which of two messages depends on timing
            client.ping()
        client.close()
        client = connect(store.url, tls=TlsFiles(files.ca, files.client, files.client_key))
        assert client.ping()
        client.close()


def test_tls_files_are_looked_at_first(tmp_path):
    there = tmp_path / "there.pem"
    there.touch()
    with pytest.raises(ValueError, match=r"tls_ca_file must be a file, got .*gone\.pem, which is"):
        TlsFiles(ca_file=tmp_path / "gone.pem")
    with pytest.raises(ValueError, match="tls_cert_file and tls_key_file must be given together"):
        TlsFiles(cert_file=there)


# -- the configuration ------------------------------------------------------------------------


def test_settings_of_the_configuration_reach_the_client(tls_store, tmp_path):
    from serving.assembly import open_client

    (tmp_path / "ca.crt").write_bytes(tls_store.certificates.ca.read_bytes())
    (tmp_path / "recsys.toml").write_text(
        f'{DATA}[store]\nurl = "{tls_store.url}"\ntls_ca_file = "ca.crt"\nmax_connections = 3\n'
        "connect_timeout_s = 0.7\nretries = 4\n"
    )
    client = open_client(load_config(tmp_path / "recsys.toml"), timeout_s=0.9)
    assert client.ping()
    pool = client.connection_pool
    assert (pool.max_connections, pool.timeout) == (3, 0.9)
    assert pool.connection_kwargs["socket_connect_timeout"] == 0.7
    assert pool.connection_kwargs["retry"].get_retries() == 4
    client.close()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('url = "unix:///s?password=pw"', "store.url: must not hold a password"),
        ('url = "redis+cluster://:pw@h"', "store.url: must not hold a password"),
        ('url = "redis://h/x"', "store.url: cannot be read: the database must be a number"),
        ('tls_cert_file = "c.pem"', "store: tls_cert_file and tls_key_file must be given"),
        ('password = "pw"', "unknown setting 'store.password'"),
        ("max_connections = 0", "store.max_connections must be >= 1, got 0"),
    ],
)
def test_settings_that_are_refused(lines, message, tmp_path):
    (tmp_path / "recsys.toml").write_text(f"{DATA}[store]\n{lines}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "recsys.toml")
    assert "pw" not in str(caught.value)
