"""The section of the configuration that says where generations are published."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import field_validator

from recsys.config_base import Count, Name, Section

__all__ = ["StoreConfig"]


class StoreConfig(Section):
    """Where generations are published. ``RECSYS_STORE_URL`` in the environment goes first."""

    url: str = "embedded"
    namespace: Name = "recsys"
    ttl_s: Count = 7 * 24 * 3600

    @field_validator("url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        if value == "embedded":
            return value
        parts = urlsplit(value)
        if parts.password:
            raise ValueError(
                "must not hold a password: set RECSYS_STORE_PASSWORD, or put the whole URL in "
                "RECSYS_STORE_URL"
            )
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(
                f"must be 'embedded' or start with redis://, rediss:// or unix://, got {value!r}"
            )
        return value
