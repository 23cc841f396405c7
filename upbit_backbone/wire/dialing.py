"""Dialling: from a host name to a connected, encrypted socket (resolve, connect, proxy, TLS) under one deadline.

websocket-client's own way has no deadline for name resolution, tries further addresses after two errors only
and takes proxies from the environment. Sockets made here are non-blocking from birth.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import os
import socket
import ssl
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from .._concurrency import SingleFlight, at_fork, spawn
from ..errors import (
    AuthenticationError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    RequestTimeoutError,
    one_line,
)
from .io_deadline import WRITE, IoDeadline, read_exactly, read_final_head, retry_until_ready, send_all

_CONNECTING = frozenset((0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)))

# (family, kind, protocol, socket address)
Address = tuple[int, int, int, tuple[Any, ...]]

# Shared by the whole process: a hanging resolver costs one stuck thread per host, not one per attempt.
_lookups: SingleFlight[str, Future[list[Address]]] = SingleFlight()


def _forget_lookups() -> None:
    # In a forked child the threads that were to complete these lookups do not exist.
    global _lookups
    _lookups = SingleFlight()


# Joining such a lookup in the child would be a wait until the deadline, every time, for this host.
at_fork(_forget_lookups)


def resolve(host: str, port: int, io_deadline: IoDeadline) -> list[Address]:
    """All addresses of `host`, families alternating, so that a broken IPv6 route costs one attempt."""
    flight, leads = _lookups.join(host)
    if leads:
        try:
            _start_lookup(host, flight)
        except BaseException as interruption:  # Ctrl-C: who shares the lookup, or asks later, must not wait for nobody
            _complete(flight, NetworkError(f"the lookup of {host} was interrupted ({type(interruption).__name__})"))
            raise
    # In slices: getaddrinfo takes no timeout and nothing can call it off, so the asker goes and the lookup stays.
    io_deadline.wait_done(flight)
    try:
        found = flight.result()
    except Exception as theirs:
        raise NetworkError(f"{io_deadline.what}: cannot resolve {host}: {one_line(theirs)}") from theirs
    return [(family, kind, protocol, (where[0], port, *where[2:])) for family, kind, protocol, where in found]


def _start_lookup(host: str, flight: Future[list[Address]]) -> None:
    try:
        spawn(partial(_look_up, host, flight), f"upbit-resolve-{host}")
    except RuntimeError as theirs:  # "can't start new thread"
        _complete(flight, theirs)


def _complete(flight: Future[list[Address]], outcome: list[Address] | Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # interrupted, and yet begun: both may come here
        if isinstance(outcome, Exception):
            flight.set_exception(outcome)
        else:
            flight.set_result(outcome)


def _look_up(host: str, flight: Future[list[Address]]) -> None:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        _complete(flight, _alternating([(row[0], row[1], row[2], row[4]) for row in found]))
    except BaseException as theirs:  # noqa: BLE001  # whatever it is, the waiting callers get it
        _complete(
            flight, theirs if isinstance(theirs, Exception) else NetworkError(f"the lookup broke off: {theirs!r}")
        )


def _alternating(addresses: list[Address]) -> list[Address]:
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for turn in zip_longest(*families.values()) for address in turn if address is not None]


def connect(host: str, port: int, io_deadline: IoDeadline) -> socket.socket:
    """A TCP connection to the first address that answers; each gets an equal share of the time left."""
    addresses = resolve(host, port, io_deadline)
    failures: dict[str, OSError | NetworkError] = {}
    for position, address in enumerate(addresses):
        try:
            # An equal share of what is left, not of the whole: what a refused address did not use goes to those after
            # it. Any error moves on; websocket-client moves on after two errno values only.
            return _connect_one(address, io_deadline.share(1 / (len(addresses) - position)))
        except (OSError, NetworkError) as error:
            failures[str(address[3][0])] = error
    tried = "; ".join(f"{where}: {_why(error)}" for where, error in failures.items()) or "no address"
    all_late = bool(failures) and all(isinstance(error, RequestTimeoutError) for error in failures.values())
    kind = RequestTimeoutError if all_late else NetworkError
    last = next(reversed(failures.values()), None)
    raise kind(f"{io_deadline.what}: cannot connect to {host}:{port} ({one_line(tried)})") from last


def _why(error: OSError | NetworkError) -> str:
    if isinstance(error, RequestTimeoutError):
        return "no answer"
    return str(getattr(error, "strerror", None) or error)


def _in_words(code: int) -> str:
    # Windows' sockets have codes of their own (10061), of which its C library, so os.strerror, says "Unknown error".
    theirs: dict[int, str] = getattr(socket, "errorTab", {})
    return theirs.get(code) or os.strerror(code)


def _connect_one(address: Address, io_deadline: IoDeadline) -> socket.socket:
    family, kind, protocol, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # A request or a pong is one small write; Nagle would hold it back until what was written before is
        # acknowledged.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        code = sock.connect_ex(where)
        if code in _CONNECTING:
            io_deadline.wait_socket(sock, WRITE)
            # Writable alone does not mean connected: a refused connection is writable, too.
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, _in_words(code))
    except BaseException:
        sock.close()
        raise
    return sock


def start_tls(sock: socket.socket, context: ssl.SSLContext, host: str, io_deadline: IoDeadline) -> ssl.SSLSocket:
    """The TLS handshake; the socket is closed if it fails."""
    try:
        # The handshake is a step of its own, because inside wrap_socket it would know no deadline and no `stop`.
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    try:
        retry_until_ready(tls.do_handshake, tls, io_deadline)
    except BaseException:
        tls.close()
        raise
    return tls


def dial(
    host: str, port: int, context: ssl.SSLContext | None, proxy: Proxy | None, io_deadline: IoDeadline
) -> socket.socket:
    """A connected socket to `host`: through the proxy if there is one, encrypted if a context is given."""
    if proxy is None:
        sock = connect(host, port, io_deadline)
    else:
        sock = connect(proxy.host, proxy.port, io_deadline.about(f"{io_deadline.what}, through the proxy"))
        try:
            open_tunnel(sock, proxy, host, port, io_deadline)
        except BaseException:
            sock.close()
            raise
    return sock if context is None else start_tls(sock, context, host, io_deadline)


# Proxy: the way through one, named or found in the environment, up to a tunnel that leads to the host itself.
#
# HTTP proxies (CONNECT) and SOCKS5. PySocks knows the latter, with a timeout per socket call: a proxy that drips bytes
# never meets it, and nothing can call it off.

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
