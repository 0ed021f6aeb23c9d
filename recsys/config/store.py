"""The section of the configuration that says where generations are published."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator, model_validator

from recsys.config.base import Closed01, Count, Name, Natural, Positive, Section
from recsys.config.store_url import StoreUrl

__all__ = ["StoreConfig"]


class StoreConfig(Section):
    """Where generations are published. ``RECSYS_STORE_URL`` in the environment goes first.

    Attributes:
        url: "embedded", or one of the forms in `recsys.config.store_url`, without a password.
        namespace: first part of every key.
        ttl_s: seconds after which a generation goes by itself.
        max_user_drop: a publish is refused when users fall by more than this fraction against the
            served generation, a delta when it takes lists from more of them; 1: never.
        require_gate: publish only bundles whose ``gate.json`` says PROMOTE.
        connect_timeout_s: limit of one attempt to connect.
        retries: further attempts after a broken connection.
        max_connections: calls of one process at once (on a cluster: to each node); one more
            waits as long as a read may take, then fails.
        tls_ca_file: certificates to trust, PEM. None: those of the system.
        tls_cert_file: the client's own certificate, PEM. None: none.
        tls_key_file: its key, PEM.
        tls_check_hostname: whether the server's certificate must name the host.
    """

    url: str = "embedded"
    namespace: Name = "recsys"
    ttl_s: Count = 7 * 24 * 3600
    max_user_drop: Closed01 = 0.5
    require_gate: bool = False
    connect_timeout_s: Positive = 0.5
    retries: Natural = 1
    max_connections: Count = 32
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_check_hostname: bool = True

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

    def below(self, directory: Path) -> StoreConfig:
        """A copy whose relative paths are taken from ``directory``."""
        names = ("tls_ca_file", "tls_cert_file", "tls_key_file")
        given = {name: getattr(self, name) for name in names}
        return self.model_copy(
            update={name: directory / path for name, path in given.items() if path is not None}
        )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> StoreConfig:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file must be given together")
        return self
