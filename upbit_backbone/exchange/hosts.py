"""Where Upbit answers, and in which formats its stream speaks. Pure.

Each region is a venue of its own, with its own listings, fiat currency and limits.
Docs: the REST and WebSocket guides. All REST paths start with /v1, the public stream is /websocket/v1.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

REGION_HOSTS: Final = {
    "kr": "api.upbit.com",
    "sg": "sg-api.upbit.com",
    "id": "id-api.upbit.com",
    "th": "th-api.upbit.com",
}

# docs: websocket-guide; the LIST formats came 2025-07-07. The format belongs to the connection, not to a request.
WEBSOCKET_FORMATS: Final = ("SIMPLE", "DEFAULT", "JSON_LIST", "SIMPLE_LIST")

HTTPS_PORT: Final = 443
# What "this machine" is called, and what the name resolves to.
_LOOPBACK: Final = "127.0.0.1"


def normal_host(address: str) -> str:
    """One name for one server, however it is written: for limits and bans, which Upbit counts per server.

    `address` is a URL, or a host with or without a port (then taken for https). `HTTPS://API.Upbit.com.:443` and
    `api.upbit.com` are one server, as are `localhost:8080`, `[::1]:8080` and `127.0.0.1:8080`.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    host = _normal_name((parts.hostname or "").rstrip("."))
    port = parts.port or (80 if parts.scheme in ("http", "ws") else HTTPS_PORT)
    if port == HTTPS_PORT:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _normal_name(name: str) -> str:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: always this machine
        return _LOOPBACK
    try:
        literal = ip_address(name)
    except ValueError:
        return name
    if isinstance(literal, IPv6Address):
        literal = literal.ipv4_mapped or literal
    return _LOOPBACK if literal == ip_address("::1") else str(literal)
