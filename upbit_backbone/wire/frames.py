"""WebSocket frames (RFC 6455), read from bytes: no socket, no clock, no thread.

Own code instead of websocket-client's reader, because that one was measured at 81 of 86 conformance cases,
without any size limit, with quadratic cost for fragmented messages and at 19 µs per frame; this one fails
closed on all of them, is capped and linear, and cuts a data frame out of a large read in less than 1 µs.

    reader = FrameReader()
    for event in reader.feed(chunk):        # bytes | Ping | Pong | Close | ProtocolViolation, in wire order
        ...

`feed` does not raise a violation, because the messages decoded before it in the same chunk must not be lost:
it is the last event of the list, an exception ready to be raised or reported, and carries the close code to
send. After a violation or a Close the reader ignores all further input.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeGuard

from msgspec import Struct

from ..errors import MessageTooBigError, ProtocolError, one_line

# Without bounds a frame that merely announced 2^40 bytes cost another reader 862 MiB in three seconds, and 32,000
# fragments cost it 70 s of CPU. What Upbit sends stays far below.
MAX_FRAME_BYTES: Final = 1_048_576
MAX_MESSAGE_BYTES: Final = 1_048_576
MAX_FRAGMENTS: Final = 64
MAX_CONTROL_BYTES: Final = 125  # RFC 6455, 5.5

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FIN, _RSV, _OPCODE, _MASK = 0x80, 0x70, 0x0F, 0x80
_CONTROL = 0x08
_LENGTH_16, _LENGTH_64 = 126, 127
_WHOLE_BINARY: Final = _FIN | BINARY
_MIN_HEADER, _MEDIUM_HEADER, _LONG_HEADER = 2, 4, 10
# Its first two bytes as one number, and the length in the next two.
_SHORT_BINARY: Final = _WHOLE_BINARY << 8
_MEDIUM_BINARY: Final = _SHORT_BINARY | _LENGTH_16
_medium_header = struct.Struct(">HH").unpack_from

PROTOCOL_ERROR, NO_STATUS, INVALID_PAYLOAD, TOO_BIG = 1002, 1005, 1007, 1009
# 1004, 1005, 1006 and 1015 must never travel; 1016-2999 are unassigned (RFC 6455 section 7.4).
_VALID_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)))


class ProtocolViolation(ProtocolError):  # noqa: N818  # an event as much as an error
    """The server broke RFC 6455: send `close_code`, drop the connection."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f"WebSocket protocol violation ({close_code}): {reason}")
        self.close_code = close_code
        self.reason = reason


class OversizeViolation(ProtocolViolation, MessageTooBigError):  # noqa: N818  # as above
    """The server announced more bytes or fragments than we are willing to hold."""

    def __init__(self, reason: str) -> None:
        super().__init__(TOO_BIG, reason)


class Ping(Struct, frozen=True):
    payload: bytes


class Pong(Struct, frozen=True):
    payload: bytes


class Close(Struct, frozen=True):
    """The server's close frame; `code` is 1005 where it gave none, `reason` is safe to log."""

    code: int
    reason: str


FrameEvent = bytes | Ping | Pong | Close | ProtocolViolation


_MESSAGE: Final = frozenset((bytes,))


def only_messages(events: Sequence[FrameEvent]) -> TypeGuard[Sequence[bytes]]:
    """Whether there are messages among these events and nothing else, as nearly always."""
    if len(events) == 1:  # the dearest case of all: a read for a single message
        return type(events[0]) is bytes
    return _MESSAGE.issuperset(map(type, events))


class _Header(NamedTuple):
    first: int
    start: int
    end: int


class FrameReader:
    """Turns a server's bytes into messages and control events. Used by one thread at a time."""

    def __init__(
        self,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_fragments: int = MAX_FRAGMENTS,
    ) -> None:
        self._max_frame = max_frame_bytes
        self._max_message = max_message_bytes
        self._max_whole = min(max_frame_bytes, max_message_bytes)
        self._max_fragments = max_fragments
        self._finished = False
        self._buffer = bytearray()  # the incomplete frame at the end of what was fed
        self._needed = _MIN_HEADER  # parsing again is useless before _buffer has this many bytes
        self._fragments: list[bytes] | None = None
        self._fragment_bytes = 0
        self._utf8: codecs.IncrementalDecoder | None = None

    @property
    def finished(self) -> bool:
        """True after a Close or a violation: whatever else arrives is ignored."""
        return self._finished

    def feed(self, data: bytes) -> list[FrameEvent]:
        """The events completed by `data`, in wire order; a violation or a Close is always the last."""
        events: list[FrameEvent] = []
        # RFC 6455 section 7.1.7: after a failure nothing more is processed; a close frame is a peer's last word.
        if self._finished:
            return events
        if self._buffer:
            # Only collected until the next stage (header, frame) is complete: linear, however it is sliced.
            self._buffer += data
            if len(self._buffer) < self._needed:
                return events
            data = bytes(self._buffer)
        elif self._fragments is None and len(data) > _MEDIUM_HEADER:
            # The dearest case of all, a read for a single message, needs no loop.
            head, length = _medium_header(data, 0)
            if (
                head == _MEDIUM_BINARY
                and length == len(data) - _MEDIUM_HEADER
                and _LENGTH_16 <= length <= self._max_whole
            ):
                return [data[_MEDIUM_HEADER:]]
        position = self._cut_whole_binary(data, 0, events)
        if position == len(data):  # as nearly every read ends
            if self._buffer:
                self._buffer = bytearray()
            return events
        try:
            position = self._cut(data, position, events)
        except ProtocolViolation as violation:
            # Without its traceback, which would tie this frame's locals to whoever keeps the event.
            events.append(violation.with_traceback(None))
            self._finish()
        else:
            self._buffer = bytearray() if self._finished else bytearray(data[position:])
        return events

    def _cut(self, data: bytes, position: int, events: list[FrameEvent]) -> int:
        while not self._finished:
            header = self._read_header(data, position)
            if header is None:
                break
            if header.end > len(data):
                self._needed = header.end - position
                break
            self._take(header.first, data[header.start : header.end], events)
            # Tried again after each frame of another kind, so that one ping does not send the rest of a large read the
            # slow way.
            position = self._cut_whole_binary(data, header.end, events)
        return position

    def _cut_whole_binary(self, data: bytes, position: int, events: list[FrameEvent]) -> int:
        """The fast path: whole, unfragmented binary frames below 64 KiB, which is all Upbit normally sends.

        Anything else, wrong or merely unusual, is left to the general path, which alone judges.
        """
        # Inside a fragmented message a whole frame is a violation, which the general path must see: a limit of -1 lets
        # none through.
        limit = -1 if self._fragments is not None or self._finished else self._max_whole
        size = len(data)
        last = size - _MEDIUM_HEADER
        append = events.append
        while position <= last:
            head, length = _medium_header(data, position)
            if head == _MEDIUM_BINARY:
                # Not the shortest form, which is a violation; the general path says so.
                if length < _LENGTH_16:
                    break
                start = position + _MEDIUM_HEADER
            elif _SHORT_BINARY <= head < _MEDIUM_BINARY:
                length = head - _SHORT_BINARY
                start = position + _MIN_HEADER
            else:
                break
            end = start + length
            if end > size or length > limit:
                break
            append(data[start:end])
            position = end
        return position

    def _read_header(self, data: bytes, position: int) -> _Header | None:
        """The checked header at `position`, or None while incomplete; judged as early as its bytes allow."""
        available = len(data) - position
        if available < _MIN_HEADER:
            self._needed = _MIN_HEADER
            return None
        first, length = data[position], data[position + 1]
        self._check_first_bytes(first, length)
        size = _MIN_HEADER
        if length >= _LENGTH_16:
            size = _MEDIUM_HEADER if length == _LENGTH_16 else _LONG_HEADER
            if available < size:
                self._needed = size
                return None
            length = _extended_length(data[position + _MIN_HEADER : position + size])
        self._check_size(first, length)
        return _Header(first, position + size, position + size + length)

    def _check_first_bytes(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RSV:
            raise ProtocolViolation(PROTOCOL_ERROR, "a reserved bit is set though no extension was negotiated")
        if opcode not in _OPCODES:
            raise ProtocolViolation(PROTOCOL_ERROR, f"reserved opcode {opcode:#x}")
        # RFC 6455 section 5.1: a client closes the connection then.
        if second & _MASK:
            raise ProtocolViolation(PROTOCOL_ERROR, "the server masked a frame")
        if opcode & _CONTROL:
            if not first & _FIN:
                raise ProtocolViolation(PROTOCOL_ERROR, f"fragmented control frame {opcode:#x}")
            if second > MAX_CONTROL_BYTES:
                raise ProtocolViolation(PROTOCOL_ERROR, f"control frame {opcode:#x} of more than 125 bytes")
        elif opcode == CONTINUATION and self._fragments is None:
            raise ProtocolViolation(PROTOCOL_ERROR, "continuation frame without a message to continue")
        elif opcode != CONTINUATION and self._fragments is not None:
            raise ProtocolViolation(PROTOCOL_ERROR, "new message inside a fragmented one")

    def _check_size(self, first: int, length: int) -> None:
        # By what the header announces, before a byte of it is collected: waiting for the payload would be what the cap
        # is against.
        if length > self._max_frame:
            raise OversizeViolation(f"frame of {length} bytes, at most {self._max_frame} are accepted")
        if first & _CONTROL:
            return
        total = self._fragment_bytes + length
        if total > self._max_message:
            raise OversizeViolation(f"message of {total} bytes or more, at most {self._max_message} are accepted")
        # Empty fragments add nothing to the size, so they need a bound of their own.
        if self._fragments is not None and len(self._fragments) >= self._max_fragments:
            raise OversizeViolation(f"message of more than {self._max_fragments} fragments")

    def _take(self, first: int, payload: bytes, events: list[FrameEvent]) -> None:
        opcode = first & _OPCODE
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        elif opcode == CLOSE:
            events.append(_parse_close(payload))
            self._finish()
        else:
            self._take_data(opcode, bool(first & _FIN), payload, events)

    def _take_data(self, opcode: int, is_last: bool, payload: bytes, events: list[FrameEvent]) -> None:
        if self._fragments is None:
            self._fragments = []
            # Only text is checked: Upbit's data frames are binary (all of some 2,800 captured ones), and their JSON is
            # judged by the decoder. Incremental, because a fragment may end within a character.
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        if self._utf8 is not None:
            _check_utf8(self._utf8, payload, is_last)
        self._fragments.append(payload)
        self._fragment_bytes += len(payload)
        if is_last:
            events.append(b"".join(self._fragments))
            self._forget_message()

    def _forget_message(self) -> None:
        self._fragments = None
        self._fragment_bytes = 0
        self._utf8 = None

    def _finish(self) -> None:
        self._finished = True
        self._buffer = bytearray()
        self._forget_message()

    def __repr__(self) -> str:
        if self._finished:
            return "<FrameReader finished>"
        fragments = len(self._fragments or ())
        return f"<FrameReader {len(self._buffer)} bytes of a frame, {fragments} fragments of a message>"


def _extended_length(field: bytes) -> int:
    length = int.from_bytes(field, "big")
    if length < _LENGTH_16 or (len(field) > 2 and length < 1 << 16):
        raise ProtocolViolation(PROTOCOL_ERROR, f"length {length} not in its shortest form")
    # RFC 6455 section 5.2: the most significant bit must be 0.
    if length >> 63:
        raise ProtocolViolation(PROTOCOL_ERROR, "64-bit length with its top bit set")
    return length


def _check_utf8(decoder: codecs.IncrementalDecoder, payload: bytes, is_last: bool) -> None:
    try:
        decoder.decode(payload, is_last)
    except UnicodeDecodeError as theirs:
        raise ProtocolViolation(INVALID_PAYLOAD, "text message that is not UTF-8") from theirs


def _parse_close(payload: bytes) -> Close:
    if not payload:
        return Close(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _VALID_CLOSE_CODES:
        raise ProtocolViolation(PROTOCOL_ERROR, f"close frame without a valid code: {payload[:2].hex()}")
    try:
        return Close(code, one_line(payload[2:].decode()))
    except UnicodeDecodeError as theirs:
        raise ProtocolViolation(INVALID_PAYLOAD, "close reason that is not UTF-8") from theirs
