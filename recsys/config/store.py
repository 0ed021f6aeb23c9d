"""The section of the configuration that says where generations are published."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from recsys.config.store_url import StoreUrl
from recsys.settings import Closed01, Count, Name, Natural, Positive, Settings

__all__ = ["ConnectionOptions", "StoreConfig"]


class ConnectionOptions(Settings):
    """How a process talks to the store."""

    namespace: Name = "recsys"
    """First part of every key."""
    connect_timeout_s: Positive = 0.5
    """Limit of one attempt to connect."""
    retries: Natural = 1
    """Further attempts after a broken connection."""
    max_connections: Count = 32
    """Calls of one process at once (on a cluster: to each node); one more waits as long as a read
    may take, then fails."""


class StoreConfig(ConnectionOptions):
    """Where generations are published. ``RECSYS_STORE_URL`` in the environment goes first."""

    url: str = "embedded"
    """Either "embedded" or one of the forms in `recsys.config.store_url`, without a password."""
    ttl_s: Count = 7 * 24 * 3600
    """Seconds after which a generation goes by itself."""
    max_user_drop: Closed01 = 0.5
    """A publish is refused when users fall by more than this share against the served generation, a
    delta when it takes lists from more of them; 1: never."""
    require_gate: bool = False
    """Publish only bundles whose gate.json says PROMOTE."""
    tls_ca_file: Path | None = None
    """Certificates to trust, PEM. Not said: those of the system."""
    tls_cert_file: Path | None = None
    """The client's own certificate, PEM. Not said: none."""
    tls_key_file: Path | None = None
    """Its key, PEM."""
    tls_check_hostname: bool = True
    """Whether the server's certificate must name the host."""

    @field_validator("url")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value == "embedded":
            return value
        if StoreUrl.parse(value).password is not None:
            raise ValueError(
                "must not hold a password: set RECSYS_STORE_PASSWORD, or put the whole URL in "
                "RECSYS_STORE_URL"
            )
        return value

    def below(self, directory: Path) -> Self:
        """A copy whose relative paths are taken from ``directory``."""
        names = ("tls_ca_file", "tls_cert_file", "tls_key_file")
        given = {name: getattr(self, name) for name in names}
        return self.model_copy(
            update={name: directory / path for name, path in given.items() if path is not None}
        )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file must be given together")
        return self
