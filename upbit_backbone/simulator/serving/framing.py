"""WebSocket frames as a server sees them: pack ours, unpack the client's masked ones."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class FrameError(Exception):
    """The client broke the protocol; `code` is the close code it deserves."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def pack(payload: bytes, opcode: int = BINARY, fin: bool = True, rsv1: bool = False) -> bytes:
    """One unmasked frame."""
    return header(len(payload), opcode, fin, rsv1) + payload


def header(length: int, opcode: int = BINARY, fin: bool = True, rsv1: bool = False) -> bytes:
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if length < 126:
        return bytes((first, length))
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def close_payload(code: int | None, reason: str = "") -> bytes:
    return b"" if code is None else struct.pack("!H", code) + reason.encode()[:123]


class Deflater:
    """permessage-deflate without context takeover on either side."""

    ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    @staticmethod
    def compress(payload: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]

    @staticmethod
    def decompress(payload: bytes) -> bytes:
        unpacker = zlib.decompressobj(-15)
        message = unpacker.decompress(payload + b"\x00\x00\xff\xff", MAX_MESSAGE_BYTES)
        # The bound holds for what comes out: a few kilobytes can unpack to gigabytes.
        if unpacker.unconsumed_tail:
            raise FrameError(1009, "message too big")
        return message


class Unpacker:
    """Feed it bytes; it gives (opcode, payload) of whole messages and of control frames."""

    def __init__(self, deflate: bool) -> None:
        self._deflate = deflate
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._opcode = 0
        self._compressed = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Raises `FrameError` at the first frame that breaks the protocol."""
        self._buffer += data
        messages = []
        while (frame := self._next_frame()) is not None:
            message = self._message(*frame)
            if message is not None:
                messages.append(message)
        return messages

    def _next_frame(self) -> tuple[int, bool, bool, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, fin, rsv1 = buffer[0] & 0x0F, bool(buffer[0] & 0x80), bool(buffer[0] & 0x40)
        # A real server hangs up on a client that breaks the protocol; leniency here would hide our own mistakes.
        if buffer[0] & 0x30 or (rsv1 and not self._deflate):
            raise FrameError(1002, "reserved bits")
        if not buffer[1] & 0x80:
            raise FrameError(1002, "client frames must be masked")
        length, at = buffer[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(buffer) < 2 + size:
                return None
            length, at = int.from_bytes(buffer[2 : 2 + size], "big"), 2 + size
        if opcode >= 0x8 and (length > 125 or not fin):
            raise FrameError(1002, "control frame")
        if length > MAX_MESSAGE_BYTES:
            raise FrameError(1009, "message too big")
        if len(buffer) < at + 4 + length:
            return None
        mask, body = bytes(buffer[at : at + 4]), bytes(buffer[at + 4 : at + 4 + length])
        del buffer[: at + 4 + length]
        return opcode, fin, rsv1, unmask(body, mask)

    def _message(self, opcode: int, fin: bool, rsv1: bool, payload: bytes) -> tuple[int, bytes] | None:
        if opcode in (CLOSE, PING, PONG):
            return opcode, payload
        if opcode not in (CONTINUATION, TEXT, BINARY) or (opcode == CONTINUATION) != bool(self._opcode):
            raise FrameError(1002, "unexpected opcode")
        if opcode:
            self._opcode, self._compressed = opcode, rsv1
        self._parts.append(payload)
        if not fin:
            return None
        whole, kind = b"".join(self._parts), self._opcode
        self._parts, self._opcode = [], 0
        return kind, Deflater.decompress(whole) if self._compressed else whole


def unmask(body: bytes, mask: bytes) -> bytes:
    if not body:
        return body
    repeated = (mask * (len(body) // 4 + 1))[: len(body)]
    # As one big number, which is one operation in C; byte by byte, a subscription to 855 markets takes long.
    return (int.from_bytes(body, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(body), "big")
