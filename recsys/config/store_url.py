"""URLs of the store: one server, a cluster, or the master that Sentinel names.

```
redis://[user@]host[:port][/db]            rediss:// the same with TLS
unix://[user@]/path/to/socket[?db=n]
redis+cluster://[user@]host:port,host:port            rediss+cluster://
redis+sentinel://[user@]host:port,host:port/master[/db]     rediss+sentinel://
```

A password may stand behind the user (``user:password@``) in ``RECSYS_STORE_URL`` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote

__all__ = ["SCHEMES", "StoreUrl", "redact"]

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)
_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_EMBEDDED = "embedded"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)(?::(\d{1,5}))?")
_SCHEME = re.compile(r"[a-z+]+")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """The parts of a URL.

    Attributes:
        kind: "server", "socket", "cluster" or "sentinel".
        tls: whether connections are encrypted.
        hosts: (host, port) of the server, of some nodes of the cluster, or of the Sentinels.
        path: of a Unix socket.
        database: number of the database, 0 on a cluster.
        master: name that Sentinel knows the master by.
        username: of an ACL user; None: the default user.
        password: of that user; never shown.
    """

    kind: Literal["server", "socket", "cluster", "sentinel"]
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    master: str = ""
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> StoreUrl:
        """Take ``url`` apart.

        Raises:
            ValueError: it has another form; the message is a rule that follows the argument's name
                and shows nothing of the URL but its scheme.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            other = scheme.lower() in SCHEMES
            told = separator and (other or _SCHEME.fullmatch(scheme))
            shown = f"{scheme}://..." if told else "no scheme"
            remedy = "; write it in small letters" if other and told else ""
            raise ValueError(
                f"must be {_EMBEDDED!r} or start with {', '.join(f'{s}://' for s in SCHEMES)}, "
                f"got {shown}{remedy}"
            )
        if any(ord(char) < 32 or ord(char) == 127 for char in url) or "%00" in url:
            raise _malformed("it must hold no line break and no other control character")
        rest, _, query = rest.partition("?")
        netloc, slash, path = rest.partition("/")
        login, _, netloc = netloc.rpartition("@")
        username, colon, password = login.partition(":")
        base, _, kind = scheme.partition("+")
        parts = cls(
            kind="server" if not kind else "cluster" if kind == "cluster" else "sentinel",
            tls=base == "rediss",
            username=unquote(username) or None,
            password=unquote(password) if colon else None,
        )
        parts = parts._with_query(query)
        if base == "unix":
            if netloc or not path:
                raise _malformed("unix:// needs a path, as unix:///run/redis.sock")
            return replace(parts, kind="socket", path=unquote(slash + path))
        parts = replace(parts, hosts=_hosts(netloc, _PORTS[parts.kind]))
        if parts.kind == "sentinel":
            return parts._with_master(path)
        if parts.kind == "server":
            if len(parts.hosts) > 1:
                raise _malformed("several hosts need redis+cluster:// or redis+sentinel://")
            return parts._with_database(path)
        if path or parts.database:
            raise _malformed("a cluster has database 0 only; leave out what follows the hosts")
        return parts

    def _with_query(self, query: str) -> StoreUrl:
        parts = self
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name == "password" and parts.password is None:
                parts = replace(parts, password=value)
            elif name == "db":
                parts = parts._with_database(value)
            else:
                raise _malformed(
                    "only db may follow the '?'; timeouts and TLS files are settings of [store]"
                )
        return parts

    def _with_database(self, text: str) -> StoreUrl:
        text = text.strip("/")
        if not text:
            return self
        if not re.fullmatch(r"\d{1,4}", text):
            raise _malformed("the database must be a number")
        return replace(self, database=int(text))

    def _with_master(self, path: str) -> StoreUrl:
        master, _, database = path.partition("/")
        if not master or "@" in path:  # an '@' there is one of a password that was not encoded
            raise _malformed("Sentinel needs the master's name, as redis+sentinel://h:26379/main")
        return replace(self, master=unquote(master))._with_database(database)

    @property
    def shown(self) -> str:
        """The URL with ``***`` in place of the password, fit for a log."""
        if self.kind in ("server", "socket"):
            scheme = "unix" if self.kind == "socket" else "rediss" if self.tls else "redis"
        else:
            scheme = f"{'rediss' if self.tls else 'redis'}+{self.kind}"
        user = quote(self.username or "", safe="")
        login = f"{user}:***@" if self.password is not None else f"{user}@" if user else ""
        default = _PORTS.get(self.kind)
        hosts = ",".join(
            f"{_bracketed(host)}" if port == default else f"{_bracketed(host)}:{port}"
            for host, port in self.hosts
        )
        place = {"socket": quote(self.path), "sentinel": f"/{quote(self.master, safe='')}"}
        database = ""
        if self.database:
            database = f"?db={self.database}" if self.kind == "socket" else f"/{self.database}"
        return f"{scheme}://{login}{hosts}{place.get(self.kind, '')}{database}"


def redact(url: str) -> str:
    """``url`` with its password replaced by ``***``, fit for a log.

    >>> redact("rediss://shop:s3cret@cache:6380/1")
    'rediss://shop:***@cache:6380/1'
    >>> redact("redis+cluster://:s3cret@a:7000,b:7001/")
    'redis+cluster://:***@a:7000,b:7001'
    """
    if url == _EMBEDDED:
        return url
    try:
        return StoreUrl.parse(url).shown
    except ValueError:
        return "<unreadable url>"


def _hosts(netloc: str, port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for part in netloc.rstrip(",").split(","):
        match = _HOST.fullmatch(part)
        if match is None or not 0 < int(match[2] or port) < 65536 or not _is_name(match[1]):
            raise _malformed(
                "each host must be host or host:port; a '/', '#', '?' or '@' of a password "
                "must be percent-encoded"
            )
        found.append((match[1].strip("[]"), int(match[2] or port)))
    return tuple(found)


def _is_name(host: str) -> bool:
    """Whether the parts of a name are as long as they may be; addresses in brackets have one."""
    return host[0] == "[" or all(0 < len(part) < 64 for part in host.removesuffix(".").split("."))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _malformed(rule: str) -> ValueError:
    return ValueError(f"cannot be read: {rule}")
