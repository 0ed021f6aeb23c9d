"""What the environment says of the store: its URL, its user, and the passwords.

```
RECSYS_STORE_URL                 goes before store.url; may hold a password
RECSYS_STORE_USERNAME            the user, where the URL names none
RECSYS_STORE_PASSWORD            its password, where the URL holds none
RECSYS_STORE_SENTINEL_PASSWORD   of the Sentinels
```

A variable that is empty counts as one that is not set.
"""

from __future__ import annotations

import os

from recsys.config.store_url import StoreUrl
from recsys.errors import ConfigError

__all__ = [
    "PASSWORD_VARIABLE",
    "SENTINEL_PASSWORD_VARIABLE",
    "URL_VARIABLE",
    "USERNAME_VARIABLE",
    "check_environment",
    "login_of",
    "parsed_url",
    "sentinel_password",
    "url_of_environment",
]

URL_VARIABLE = "RECSYS_STORE_URL"
USERNAME_VARIABLE = "RECSYS_STORE_USERNAME"
PASSWORD_VARIABLE = "RECSYS_STORE_PASSWORD"
SENTINEL_PASSWORD_VARIABLE = "RECSYS_STORE_SENTINEL_PASSWORD"
_NAMES = {"\n": "a line feed", "\r": "a carriage return", "\t": "a tab", " ": "a space"}


def check_environment() -> None:
    """Look at all variables at once.

    Raises:
        ConfigError: one is wrong; the message has its name and nothing of a secret.
    """
    for name in (USERNAME_VARIABLE, PASSWORD_VARIABLE, SENTINEL_PASSWORD_VARIABLE):
        _value(name)
    if (url := url_of_environment()) is not None and url != "embedded":
        parsed_url(URL_VARIABLE, url)


def url_of_environment() -> str | None:
    """The store's URL; None: not set. Errors as of `check_environment`, but for the URL's form."""
    return _value(URL_VARIABLE)


def parsed_url(name: str, url: str) -> StoreUrl:
    """The parts of a URL.

    Args:
        name: the setting or the variable that it comes from.
        url: not "embedded".

    Raises:
        ConfigError: it has no form that there is; the message shows nothing of it but its scheme.
    """
    try:
        return StoreUrl.parse(url)
    except ValueError as error:
        raise ConfigError(f"{name} {error}") from None


def login_of(where: StoreUrl) -> dict[str, str]:
    """User and password, those that are given; errors as of `check_environment`."""
    username = where.username or _value(USERNAME_VARIABLE)
    password = where.password or _value(PASSWORD_VARIABLE)
    given = {"username": username, "password": password}
    return {name: value for name, value in given.items() if value}


def sentinel_password() -> str | None:
    """That of the Sentinels; errors as of `check_environment`."""
    return _value(SENTINEL_PASSWORD_VARIABLE)


def _value(name: str) -> str | None:
    """What a variable says; what came with a file or a shell and cannot be meant is refused."""
    value = os.environ.get(name)
    if not value:
        return None
    for place, char in (("begin", value[0]), ("end", value[-1])):
        if char.isspace():
            told = _NAMES.get(char, "white space")
            raise ConfigError(
                f"{name} must not {place} with white space, got {told}; set it without (a file "
                "that holds a secret often has a line feed at its end)"
            )
    if not value.isprintable() and any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value):
        raise ConfigError(f"{name} must hold no control character, got one; set it without")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{name} must be UTF-8 text, got other bytes; encode it so")
    return value
