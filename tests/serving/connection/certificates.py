"""A certificate authority of one test, made with the program `openssl`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_LOCAL = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, of a server for localhost, and of a client."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @classmethod
    def make(cls, directory: Path, names: str | None = None) -> Certificates:
        """Write a new authority and what it signed into ``directory``; ``names`` of the server."""
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on the PATH")
        ca, ca_key = directory / "ca.crt", directory / "ca.key"
        _openssl(
            *("req", "-x509", "-subj", "/CN=test authority", "-days", "2"),
            *("-keyout", ca_key, "-out", ca, *_KEY),
        )
        paths = [ca]
        for name in ("server", "client"):
            key, request, signed = (directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
            _openssl("req", "-subj", f"/CN={name}", "-keyout", key, "-out", request, *_KEY)
            extensions = directory / f"{name}.ext"
            extensions.write_text(
                (names or _LOCAL) if name == "server" else "keyUsage=digitalSignature"
            )
            _openssl(
                *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
                *("-days", "2", "-extfile", extensions, "-out", signed),
            )
            paths += [signed, key]
        return cls(*paths)

    def server_options(self) -> dict[str, Any]:
        """Settings of a server's configuration file."""
        return {
            "tls_cert_file": self.server,
            "tls_key_file": self.server_key,
            "tls_ca_cert_file": self.ca,
            "tls_auth_clients": "optional",
        }

    def client_options(self) -> dict[str, Any]:
        """Arguments of `redis.Redis`."""
        return {
            "ssl": True,
            "ssl_check_hostname": False,
            "ssl_ca_certs": str(self.ca),
            "ssl_certfile": str(self.client),
            "ssl_keyfile": str(self.client_key),
        }


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
