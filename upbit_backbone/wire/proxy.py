"""Proxy: the way through one, named or found in the environment, up to a tunnel that leads to the host itself.

HTTP proxies (CONNECT) and SOCKS5. PySocks knows the latter, with a timeout per socket call: a proxy that drips bytes
never meets it, and nothing can call it off.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from ..errors import AuthenticationError, InvalidRequestError, NetworkError, ProtocolError
from .io_deadline import IoDeadline, read_exactly, read_final_head, send_all

FROM_ENVIRONMENT: Final = "env"
_EXPECTED: Final = "http://[user:password@]host:port, socks5://[user:password@]host:port, or env"
# Names of one thing to us: the proxy looks the host's name up, which an office's own DNS may not know.
_SOCKS_SCHEMES: Final = ("socks5", "socks5h")
_WEB_SCHEMES: Final = {"wss": "https", "ws": "http"}
MAX_CREDENTIAL_BYTES: Final = 255  # of SOCKS5 (RFC 1929)

# RFC 1928
_VERSION: Final = 5
_OPEN, _PASSWORD, _NONE_ACCEPTABLE = 0, 2, 255
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SOCKS_ANSWERS: Final = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "took too long",
    7: "CONNECT not supported",
    8: "kind of address not supported",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """Whom to ask for a tunnel; its credentials show up nowhere but on its wire."""

    host: str
    port: int
    scheme: str = "http"
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str, what: str = "proxy") -> Proxy:
        """Raises InvalidRequestError, which names `what` and repeats nothing of the URL but its scheme."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        # Neither the text nor the parser's error is repeated: both may hold the password.
        if host is None or port is None or parts.path not in ("", "/"):
            raise InvalidRequestError(f"{what}: expected {_EXPECTED}") from None
        if parts.scheme not in ("http", *_SOCKS_SCHEMES):
            raise InvalidRequestError(f"{what}: no way through {parts.scheme} proxies is known here; give {_EXPECTED}")
        user = None if parts.username is None else unquote(parts.username)
        password = unquote(parts.password or "")
        if max(len(each.encode()) for each in (user or "", password)) > MAX_CREDENTIAL_BYTES:
            raise InvalidRequestError(f"{what}: expected a user and a password of {MAX_CREDENTIAL_BYTES} bytes at most")
        return cls(host, port, parts.scheme, user, password)

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


def proxy_for(url: str, setting: str | None) -> Proxy | None:
    """The proxy on the way to `url`: the one that is set, or what the environment says of that host ("env").

    The environment is read as `requests` reads it: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, and on Windows and
    macOS the system's settings.
    """
    if setting is None:
        return None
    if setting != FROM_ENVIRONMENT:
        return Proxy.parse(setting)
    from urllib.request import getproxies, proxy_bypass  # slow to import, and seldom needed

    parts = urlsplit(url)
    scheme = _WEB_SCHEMES.get(parts.scheme, parts.scheme)
    found = getproxies()
    name = scheme if found.get(scheme) else "all"
    address = found.get(name)
    if not address or proxy_bypass(parts.netloc):
        return None
    return Proxy.parse(address if "://" in address else f"http://{address}", f"{name.upper()}_PROXY, for proxy='env'")


def open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int, io_deadline: IoDeadline) -> None:
    """Ask the proxy for a tunnel to `host`; afterwards `sock` speaks with the host itself."""
    if proxy.scheme == "http":
        _ask_http(sock, proxy, host, port, io_deadline)
    else:
        _ask_socks(sock, proxy, host, port, io_deadline)


def _ask_http(sock: socket.socket, proxy: Proxy, host: str, port: int, io_deadline: IoDeadline) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.user is not None:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    send_all(sock, "\r\n".join([*lines, "", ""]).encode("ascii"), io_deadline)
    head, early = read_final_head(sock, io_deadline)
    answer = f"{io_deadline.what}: proxy {proxy.address} answered {head.status} {head.reason}".rstrip()
    if head.status == 407:
        raise AuthenticationError(f"{answer}; it wants other credentials: proxy=http://user:password@host:port")
    if not 200 <= head.status < 300:
        raise NetworkError(answer)
    # The host has not been spoken to yet, so this is no answer of its.
    if early:
        raise ProtocolError(f"{answer} and sent data nobody asked for")


def _ask_socks(sock: socket.socket, proxy: Proxy, host: str, port: int, io_deadline: IoDeadline) -> None:
    who = f"{io_deadline.what}: SOCKS proxy {proxy.address}"
    methods = bytes((_OPEN,)) if proxy.user is None else bytes((_OPEN, _PASSWORD))
    send_all(sock, bytes((_VERSION, len(methods))) + methods, io_deadline)
    version, method = read_exactly(sock, 2, io_deadline)
    if version != _VERSION:
        raise ProtocolError(f"{who} does not speak SOCKS5")
    wants_password = method == _PASSWORD and proxy.user is not None
    if method == _NONE_ACCEPTABLE or (wants_password and not _is_admitted(sock, proxy, io_deadline)):
        raise AuthenticationError(f"{who} wants other credentials: proxy=socks5://user:password@host:port")
    if method not in methods:
        raise ProtocolError(f"{who} chose a method that was not offered ({method})")
    send_all(sock, bytes((_VERSION, 1, 0)) + _socks_address(host) + port.to_bytes(2, "big"), io_deadline)
    _, reply, _, kind = read_exactly(sock, 4, io_deadline)
    if reply:
        raise NetworkError(f"{who} answered: {_SOCKS_ANSWERS.get(reply, f'failure {reply}')}")
    # Where the proxy went out from, which is nothing to us, but must be read.
    length = {_IPV4: 4, _IPV6: 16}.get(kind) or read_exactly(sock, 1, io_deadline)[0]
    read_exactly(sock, length + 2, io_deadline)


def _is_admitted(sock: socket.socket, proxy: Proxy, io_deadline: IoDeadline) -> bool:
    user, password = (proxy.user or "").encode(), proxy.password.encode()
    send_all(sock, b"\1" + bytes((len(user),)) + user + bytes((len(password),)) + password, io_deadline)
    return read_exactly(sock, 2, io_deadline)[1] == 0


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes((_NAME, len(host))) + host.encode("ascii")
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed
