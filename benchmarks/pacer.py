"""A WebSocket server that sends real frames at an even pace and stamps the microsecond of sending into them.

The simulator's load mode sends a burst every 10 ms and its times are milliseconds, as Upbit's are: enough to count CPU,
too coarse for latencies far below one. So the pacer asks the simulator for one frame per topic with the client's own
subscription message, and repeats those, spread evenly; a trade's `sequential_id` becomes the wall clock in
microseconds (16 digits, like Upbit's), which the receiver compares with its own, on the same machine.

    python -m benchmarks.pacer --upstream ws://127.0.0.1:…/websocket/v1      # then on stdin: "rate 1000", "counters"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import websocket

from benchmarks.children import say, told
from upbit_backbone.simulator.serving.framing import BINARY, CLOSE, PING, PONG, Unpacker, accept_key, header, pack

CAPTURE_SECONDS = 10.0
MAX_UNSENT = 64 * 1024 * 1024
TIMES = re.compile(rb'"(?:tms|ttms|timestamp|trade_timestamp)":(\d+)')
IDS = re.compile(rb'"(?:sid|sequential_id)":(\d+)')
SIZES = re.compile(rb'(?<="(?:as|bs)":)[0-9.E-]+|(?<="(?:ask_size|bid_size)":)[0-9.E-]+')
SIZES_CHANGED = 4  # of a book's, from one frame to the next: 3 of 100 numbers, as Upbit's books were recorded


TIME_DIGITS, ID_DIGITS, SIZE_DIGITS = 13, 16, 10


@dataclass(frozen=True, slots=True)
class Piece:
    """One frame, cut where times, ids and sizes are put in."""

    parts: tuple[bytes, ...]
    digits: tuple[int, ...]  # which of them is put in, by its length

    def stamped(self, milliseconds: bytes, microseconds: int) -> bytes:
        size = b"0.%07d1" % (microseconds % 10**7)
        texts = {TIME_DIGITS: milliseconds, ID_DIGITS: b"%d" % microseconds, SIZE_DIGITS: size}
        out = [self.parts[0]]
        for digits, part in zip(self.digits, self.parts[1:], strict=True):
            out.append(texts[digits])
            out.append(part)
        return b"".join(out)


def cut(payload: bytes) -> Piece:
    """A frame around a payload, with 13 digits for each time, 16 for an id, and 10 for a few of a book's sizes."""
    payload = payload.replace(b'"SNAPSHOT"', b'"REALTIME"')
    sizes = [size.span() for size in SIZES.finditer(payload)]
    changing = sizes[:: -(-len(sizes) // SIZES_CHANGED)] if sizes else []
    marks = [(mark.span(1), TIME_DIGITS) for mark in TIMES.finditer(payload)]
    marks += [(mark.span(1), ID_DIGITS) for mark in IDS.finditer(payload)]
    marks += [(span, SIZE_DIGITS) for span in changing]
    parts, digits, at = [], [], 0
    for (start, end), length in sorted(marks):
        parts.append(payload[at:start])
        digits.append(length)
        at = end
    parts.append(payload[at:])
    whole = sum(map(len, parts)) + sum(digits)
    return Piece((header(whole, BINARY) + parts[0], *parts[1:]), tuple(digits))


@dataclass(eq=False, slots=True)
class Client:
    """One connection: what it still has to be sent, and what it sends."""

    sock: socket.socket
    unpacker: Unpacker = field(default_factory=lambda: Unpacker(False))
    out: bytearray = field(default_factory=bytearray)
    pieces: list[Piece] = field(default_factory=list)


class Pacer:
    """Serves any number of clients; `rate` is the number of frames a second over all of them."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._clients: list[Client] = []
        self._fresh: deque[tuple[Client, list[Piece]]] = deque()  # filled by capturing threads
        self._deck: list[tuple[Client, Piece]] = []
        self._next = 0
        self._last_id = 0
        self.rate = 0.0
        self.tick = 0.001
        self.sent = 0

    def counters(self) -> dict[str, Any]:
        return {"sent": self.sent, "clients": len(self._clients), "pieces": len(self._deck)}

    def run(self) -> None:
        """Serve until the process ends."""
        due, last = 0.0, time.monotonic()
        while True:
            now = time.monotonic()
            due = min(due + (now - last) * self.rate, max(self.rate * 0.1, 1.0))
            last = now
            count, due = int(due), due - int(due)
            if count and self._deck:
                self._send(count)
            pause = max(0.0, min(self.tick, (1.0 - due) / self.rate if self.rate else self.tick))
            self._serve(max(pause, self.tick / 2) if count else pause)

    def _send(self, count: int) -> None:
        # Clients leave and come between ticks, never within one.
        for _ in range(count):
            client, piece = self._deck[self._next % len(self._deck)]
            self._next += 1
            if len(client.out) < MAX_UNSENT:
                client.out += self._stamped(piece)
                self.sent += 1
        for client in list(self._clients):
            self._flush(client)

    def _stamped(self, piece: Piece) -> bytes:
        microseconds = self._last_id = max(time.time_ns() // 1000, self._last_id + 1)
        return piece.stamped(b"%d" % (microseconds // 1000), microseconds)

    def _flush(self, client: Client) -> None:
        if not client.out:
            return
        try:
            del client.out[: client.sock.send(client.out)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _serve(self, pause: float) -> None:
        while self._fresh:
            client, pieces = self._fresh.popleft()
            client.pieces = pieces
            for piece in pieces:  # the first frame of each topic comes at once
                client.out += self._stamped(piece)
            self._reshuffle()
        sockets = {client.sock: client for client in self._clients}
        waiting = [client.sock for client in self._clients if client.out]
        readable, writable, _ = select.select([self._listener, *sockets], waiting, [], pause)
        for sock in writable:
            self._flush(sockets[sock])
        for sock in readable:
            if sock is self._listener:
                self._accept()
            else:
                self._read(sockets[sock])

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(5.0)
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(4096)
            if not more:
                sock.close()
                return
            head += more
        found = re.search(rb"(?i)sec-websocket-key:\s*(\S+)", head)
        accept = accept_key(found.group(1).decode() if found else "").encode()
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        sock.setblocking(False)
        self._clients.append(Client(sock))

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        for opcode, payload in client.unpacker.feed(data):
            if opcode == PING:
                client.out += pack(payload, PONG)
            elif opcode == CLOSE:
                client.out += pack(payload, CLOSE)
                self._flush(client)
                self._drop(client)
                return
            elif opcode != PONG and payload.strip() not in (b"PING", b"ping"):
                threading.Thread(target=self._capture, args=(client, payload.decode()), daemon=True).start()

    def _capture(self, client: Client, message: str) -> None:
        """One frame per topic from the simulator, by the client's own subscription."""
        frames: dict[tuple[str, str], bytes] = {}
        wanted = count_topics(message)
        message = message.replace('"isOnlyRealtime":true', '"isOnlyRealtime":false')
        message = message.replace('"isOnlyRealtime": true', '"isOnlyRealtime": false')
        deadline = time.monotonic() + CAPTURE_SECONDS
        connection = websocket.create_connection(self._upstream, timeout=2.0, suppress_origin=True)
        try:
            connection.send(message)
            while len(frames) < wanted and time.monotonic() < deadline:
                payload = connection.recv()
                payload = payload.encode() if isinstance(payload, str) else payload
                item = json.loads(payload)
                item = item[0] if isinstance(item, list) else item
                key = (item.get("type") or item.get("ty"), item.get("code") or item.get("cd"))
                frames.setdefault(key, payload)
        except websocket.WebSocketTimeoutException:
            pass  # some topics have nothing to show
        finally:
            connection.close()
        self._fresh.append((client, [cut(payload) for payload in frames.values()]))

    def _reshuffle(self) -> None:
        self._deck = [(client, piece) for client in self._clients for piece in client.pieces]
        # Types alternate, as they do in life; a fixed stride that is coprime to the length visits everything.
        length = len(self._deck)
        if length > 3:
            stride = next(step for step in range(length // 3 + 1, length) if _coprime(step, length))
            self._deck = [self._deck[number * stride % length] for number in range(length)]

    def _drop(self, client: Client) -> None:
        with contextlib.suppress(ValueError):
            self._clients.remove(client)
        client.sock.close()
        self._reshuffle()


def count_topics(message: str) -> int:
    """How many (type, code) a subscription message asks for."""
    return sum(len(part["codes"]) for part in json.loads(message) if "codes" in part)


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1


def main() -> None:
    parser = argparse.ArgumentParser(description="evenly paced, stamped frames")
    parser.add_argument("--upstream", required=True)
    pacer = Pacer(parser.parse_args().upstream)
    threading.Thread(target=pacer.run, daemon=True).start()
    say(websocket_url=f"ws://127.0.0.1:{pacer.port}/websocket/v1")
    for line in told():
        word, _, value = line.partition(" ")
        if word == "rate":
            pacer.rate = float(value)
        elif word == "tick":
            pacer.tick = float(value)
        say(**pacer.counters())


if __name__ == "__main__":
    main()
