"""The limit: a socket, frames cut by their lengths, our own typed decoder; no models, store, order, or mailbox."""

from __future__ import annotations

import json

import websocket

from benchmarks.clients.task import Seen, Task
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.unify.typed import stream_types

READ_BYTES = 262_144


def consume(task: Task, seen: Seen) -> None:
    """Reads until the process ends."""
    connection = websocket.create_connection(task.websocket_url, suppress_origin=True)
    asked = [{"ticket": "limit"}, *({"type": kind, "codes": list(task.symbols)} for kind in task.kinds)]
    connection.send(json.dumps([*asked, {"format": "SIMPLE"}]))
    decode, receive = stream_types(Spelling.SIMPLE).decode_one, connection.sock.recv
    data = b""
    while True:
        data += receive(READ_BYTES)
        position = 0
        while position + 4 <= len(data):
            length, start = data[position + 1], position + 2
            if length == 126:
                length, start = data[position + 2] << 8 | data[position + 3], position + 4
            if start + length > len(data):
                break
            message = decode(data[start : start + length])
            seen(getattr(message, "sequential_id", 0))
            position = start + length
        data = data[position:]
