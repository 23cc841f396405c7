"""A TLS 1.3 server in front of a plain one that changes its keys in mid-stream, which Python's ssl cannot be asked for.

The certificate is made by trustme, the protocol spoken by tlslite-ng.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType

import trustme

from upbit_backbone._concurrency import Deadline, join_all, spawn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore where there is one
    from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
    from tlslite.constants import KeyUpdateMessageType
    from tlslite.errors import TLSAbruptCloseError

READ_BYTES = 65_536


class _Line(TLSConnection):  # type: ignore[misc]
    """A connection whose both directions may change their keys at the same time."""

    def __init__(self, sock: socket.socket, lock: threading.RLock) -> None:
        super().__init__(sock)
        self.closeSocket = False
        self._change = lock

    def _handle_keyupdate_request(self, request: object) -> Iterator[object]:
        with self._change:  # both secrets are written at once, from what they both were
            yield from super()._handle_keyupdate_request(request)

    def _shutdown(self, resumable: bool) -> None:
        with self._change:  # and nothing is taken away from under who is writing
            super()._shutdown(resumable)


class RekeyingFront:
    """Carries each connection to `upstream`, in two threads, until `close`; `rekey` may be called from any thread."""

    def __init__(self, upstream: tuple[str, int], authority: trustme.CA) -> None:
        self._upstream = upstream
        certificate = authority.issue_cert("127.0.0.1")
        self._chain = X509CertChain()
        self._chain.parsePemList("".join(pem.bytes().decode() for pem in certificate.cert_chain_pems))
        self._key = parsePEMKey(certificate.private_key_pem.bytes().decode(), private=True)
        self._lock = threading.RLock()  # guards what is written to the client, and the two lists
        self._open: list[_Line] = []
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = False
        self.url = f"wss://127.0.0.1:{self._listener.getsockname()[1]}/websocket/v1"
        self._threads = [spawn(self._accept, "test-rekeying-front")]

    def rekey(self, *, both_ways: bool) -> None:
        """New keys for what the server says; with `both_ways` the client is asked to change its own, too."""
        kind = KeyUpdateMessageType.update_requested if both_ways else KeyUpdateMessageType.update_not_requested
        with self._lock:
            for client in self._open:
                for _ in client.send_keyupdate_request(kind):
                    raise AssertionError("a blocking socket asked to wait")

    def secrets(self) -> tuple[bytes, bytes]:
        """What the keys of the newest connection are made from: the server's and the client's."""
        with self._lock:
            session = self._open[-1].session
            return bytes(session.sr_app_secret), bytes(session.cl_app_secret)

    def close(self) -> None:
        self._stopping = True
        with self._lock:
            socks = [self._listener, *self._socks]
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        assert join_all(self._threads, Deadline.after(5)) == []
        for sock in [self._listener, *self._socks]:
            sock.close()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # closed
            settings = HandshakeSettings()
            settings.minVersion = settings.maxVersion = (3, 4)
            client = _Line(sock, self._lock)
            client.handshakeServer(certChain=self._chain, privateKey=self._key, settings=settings)
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._socks += [sock, server]
                self._open.append(client)
            self._threads.append(spawn(lambda: self._down(server, client), "test-rekeying-down"))  # noqa: B023
            self._threads.append(spawn(lambda: self._up(client, server), "test-rekeying-up"))  # noqa: B023

    def _down(self, server: socket.socket, client: _Line) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(READ_BYTES):
                with self._lock:
                    client.sendall(data)

    def _up(self, client: _Line, server: socket.socket) -> None:
        with contextlib.suppress(OSError, TLSAbruptCloseError):
            while data := client.recv(READ_BYTES):
                server.sendall(data)

    def __enter__(self) -> RekeyingFront:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
