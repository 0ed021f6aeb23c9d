"""Who may ask what: API keys, of which only digests are kept."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from recsys.errors import ConfigError

__all__ = ["KEYS_FILE_VARIABLE", "KEYS_VARIABLE", "SCOPES", "ApiKey", "ApiKeys", "new_key"]

log = logging.getLogger(__name__)

KEYS_VARIABLE = "RECSYS_API_KEYS"
KEYS_FILE_VARIABLE = "RECSYS_API_KEYS_FILE"
SCOPES = ("read", "feedback", "admin")
"""``read``: ask for items; ``feedback``: send events; ``admin``: change what everybody sees."""
MIN_KEY_LENGTH = 32
MAX_KEY_LENGTH = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ApiKey(NamedTuple):
    """What is kept of one key.

    Attributes:
        name: goes into the log of requests.
        scopes: what it may; none implies another.
        digest: sha256 of the key. Keys are random and long, so no slow hash is needed.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes

    def to_line(self) -> str:
        """As `ApiKeys.parse` reads it."""
        scopes = "+".join(one for one in SCOPES if one in self.scopes)
        return f"{self.name}:{scopes}:{self.digest.hex()}"


class ApiKeys:
    """The keys of one process.

    Args:
        keys: none: reading and feedback are open, admin verbs are shut.

    Raises:
        ConfigError: two keys share a name or a digest.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = tuple(keys)
        for what in ("name", "digest"):
            if len({getattr(key, what) for key in self._keys}) < len(self._keys):
                raise ConfigError(f"two API keys have the same {what}; each needs its own")

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, text: str) -> ApiKeys:
        """Read ``name:scope+scope:digest`` entries, separated by commas or lines.

        Empty entries and what follows a ``#`` are left out.

        Raises:
            ConfigError: an entry breaks a rule; the message names the entry, never its digest.
        """
        lines = (line.partition("#")[0] for line in text.splitlines())
        entries = (one.strip() for line in lines for one in line.split(","))
        return cls(_key(number, one) for number, one in enumerate(filter(None, entries), 1))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ApiKeys:
        """Keys of ``RECSYS_API_KEYS``, and of the file that ``RECSYS_API_KEYS_FILE`` names.

        Raises:
            ConfigError: an entry breaks a rule, or the file cannot be read.
        """
        texts = {KEYS_VARIABLE: environ.get(KEYS_VARIABLE, "")}
        if path := environ.get(KEYS_FILE_VARIABLE):
            try:
                texts[KEYS_FILE_VARIABLE] = Path(path).read_text("utf-8-sig")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "is not text"
                raise ConfigError(f"{KEYS_FILE_VARIABLE}: cannot read {path}: {reason}") from error
        keys: list[ApiKey] = []
        for name, text in texts.items():
            try:
                keys += cls.parse(text)._keys
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        return cls(keys)

    def find(self, secret: str) -> ApiKey | None:
        """The key that ``secret`` is; None: nobody's.

        Every digest is compared, each in constant time, so that how long this takes tells nothing.
        """
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found if MIN_KEY_LENGTH <= len(secret) <= MAX_KEY_LENGTH else None

    def warn(self, address: str, *, admin: bool) -> None:
        """Log what is open that may not be meant to be, and what is shut.

        Args:
            address: numeric, that the process listens on.
            admin: whether admin verbs are on.
        """
        if not self._keys and not ip_address(address.partition("%")[0]).is_loopback:
            log.warning(
                "anybody who reaches %s may ask and send events; set %s (`recsys keys new`) or "
                "listen on 127.0.0.1",
                address,
                KEYS_VARIABLE,
            )
        if admin and not any("admin" in key.scopes for key in self._keys):
            log.warning("serving.admin is true and no key has the scope admin; nobody may use it")


def new_key(name: str, scopes: Iterable[str]) -> tuple[str, ApiKey]:
    """A fresh random key: what the client sends, and what is kept of it.

    Raises:
        ConfigError: the name or a scope breaks a rule.
    """
    secret = f"rsk_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return secret, _key(1, f"{name}:{'+'.join(scopes)}:{digest}")


def _key(number: int, entry: str) -> ApiKey:
    name, _, rest = entry.partition(":")
    listed, _, digest = rest.partition(":")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"API key {number}: the name must be 1 to 64 letters, digits, '.', '_' or '-'; write "
            "name:scope+scope:digest, as `recsys keys new` prints it"
        )
    shown = str(number) if len(name) >= MIN_KEY_LENGTH else name  # that may be the key itself
    scopes = frozenset(listed.split("+"))
    if unknown := sorted(scopes - set(SCOPES)):
        one = unknown[0]
        told = repr(one) if len(one) < MIN_KEY_LENGTH else f"one of {len(one)} characters"
        raise ConfigError(f"API key {shown}: unknown scope {told}; known: {list(SCOPES)}")
    if not _DIGEST.fullmatch(digest):
        raise ConfigError(
            f"API key {shown}: the digest must be 64 hexadecimal digits, got {len(digest)} "
            "characters; `recsys keys new` prints one"
        )
    return ApiKey(name, scopes, bytes.fromhex(digest))
