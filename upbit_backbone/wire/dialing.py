"""Dialling: from a host name to a connected, encrypted socket (resolve, connect, tunnel, TLS) under one deadline.

websocket-client's own way has no deadline for name resolution, tries further addresses after two errors only
and takes proxies from the environment. Sockets made here are non-blocking from birth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from concurrent.futures import Future, InvalidStateError
from functools import partial
from itertools import zip_longest
from typing import Any

from .._concurrency import SingleFlight, at_fork, spawn
from ..errors import NetworkError, RequestTimeoutError, one_line
from .io_deadline import WRITE, IoDeadline, retry_until_ready
from .proxy import Proxy, open_tunnel

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
        sock = connect(proxy.host, proxy.port, io_deadline)
        try:
            open_tunnel(sock, proxy, host, port, io_deadline)
        except BaseException:
            sock.close()
            raise
    return sock if context is None else start_tls(sock, context, host, io_deadline)
