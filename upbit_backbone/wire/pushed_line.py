"""Pushed line: what Redis pushes to who has subscribed there, taken as it comes.

Word by word, as redis-py reads, a message costs more than all that becomes of it; and each look whether more is there
gives up the GIL, which comes back late beside a thread that computes (see `held_read`).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ..errors import NetworkError, ProtocolError
from .frames import MAX_MESSAGE_BYTES
from .held_read import held_read, raise_failure

if TYPE_CHECKING:
    from .redis_server import RedisServer

READ_BYTES: Final = 64 * 1024
READS_AT_ONCE: Final = 32
LINE_BYTES: Final = 1024  # that the first line of an answer may have
WORDS: Final = 16  # that one answer may have

# Such as [b"message", channel, data], [b"subscribe", channel, 1] or b"PONG".
Word = bytes | int
Answer = Word | list[Word]

_MESSAGE: Final = b"*3\r\n$7\r\nmessage\r\n$"  # how nearly all begin
_END: Final = b"\r\n"
_CLOSED: Final = "the connection was closed"


class PushedLine:
    """A connection on which channels are heard, for one thread.

    `connection` is redis-py's, connected, and its `sock` read by nobody else. Raises as its server does; ProtocolError
    where what comes is no answer, or too long.
    """

    def __init__(self, server: RedisServer, connection: Any, sock: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self.sock: Final = sock
        room = bytearray(READ_BYTES)
        self._room = memoryview(room)
        self._seconds = self.sock.gettimeout()
        # TLS takes its bytes from the system by itself.
        self._read_held = None if isinstance(self.sock, ssl.SSLSocket) else held_read(self.sock, room)
        self._rest = b""  # of an answer that is not all here yet
        self.has_more = False  # that no selector may know of

    def send(self, *words: str | bytes) -> None:
        """A command, whose answer comes among all others."""
        with self._server.translated():
            self._connection.send_command(*words)

    def answers(self) -> Iterator[Answer]:
        """What is there, without waiting. What raises comes behind what came before it."""
        for _ in range(READS_AT_ONCE):
            with self._server.translated():
                came = self._read()
            if came is None:
                self.has_more = False
                return
            data = self._rest + came if self._rest else came
            place = 0
            while (found := self._next(data, place)) is not None:
                answer, place = found
                yield answer
            self._rest = data[place:]
            if len(came) < READ_BYTES and self._read_held is not None:
                self.has_more = False
                return
        self.has_more = True

    def close(self) -> None:
        self._connection.disconnect()

    def _read(self) -> bytes | None:
        """None where nothing is there."""
        if self._read_held is not None:
            if (count := self._read_held()) < 0:
                raise_failure()
                return None
        else:
            self.sock.settimeout(0)
            try:
                count = self.sock.recv_into(self._room)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            finally:
                self.sock.settimeout(self._seconds)  # for what is sent
        if not count:
            raise NetworkError(f"{self._server.place} cannot be reached: {_CLOSED}")
        return bytes(self._room[:count])

    def _next(self, data: bytes, place: int) -> tuple[Answer, int] | None:
        """The answer at `place`, and where the next one begins; None where it is not all here."""
        if data.startswith(_MESSAGE, place):
            channel = self._text(data, place + len(_MESSAGE))
            if channel is None:
                return None
            if data[channel[1] : channel[1] + 1] == b"$" and (text := self._text(data, channel[1] + 1)) is not None:
                return [b"message", channel[0], text[0]], text[1]
        kind, line, after = self._line(data, place)
        if kind != b"*" or after < 0:
            return self._word(data, place)
        words: list[Word] = []
        for _ in range(self._size(line, WORDS)):
            if (found := self._word(data, after)) is None:
                return None
            word, after = found
            words.append(word)
        return words, after

    def _word(self, data: bytes, place: int) -> tuple[Word, int] | None:
        kind, line, after = self._line(data, place)
        if after < 0:
            return None
        if kind == b"$":
            return self._text(data, place + 1)
        if kind == b":":
            return self._size(line, 1 << 62), after
        if kind == b"+":
            return line, after
        if kind == b"-":
            raise self._server.refusal(line.decode("utf-8", "replace"))
        raise self._no_answer(kind)

    def _text(self, data: bytes, place: int) -> tuple[bytes, int] | None:
        """The bytes whose number stands at `place`."""
        end = data.find(_END, place, place + LINE_BYTES)
        if end < 0:
            self._line(data, place)
            return None
        begin = end + 2
        size = self._size(data[place:end], MAX_MESSAGE_BYTES)
        end = begin + size
        if len(data) < end + 2:
            return None
        if data[end : end + 2] != _END:
            raise self._no_answer(data[end : end + 2])
        return data[begin:end], end + 2

    def _line(self, data: bytes, place: int) -> tuple[bytes, bytes, int]:
        """The first byte of a line, the others, and where the next one begins: -1 where it is not all here."""
        end = data.find(_END, place, place + LINE_BYTES)
        if end < 0:
            if len(data) - place >= LINE_BYTES:
                raise self._no_answer(data[place:])
            return b"", b"", -1
        return data[place : place + 1], data[place + 1 : end], end + 2

    def _size(self, text: bytes, most: int) -> int:
        if not text.isdigit() or int(text) > most:
            raise self._no_answer(text)
        return int(text)

    def _no_answer(self, found: bytes) -> ProtocolError:
        return ProtocolError(f"{self._server.place}: no answer of Redis, or too long a one: {found[:40]!r}")
