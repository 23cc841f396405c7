"""What all verbs share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from upbit_backbone.simulator.serving.connection import Connection
from upbit_backbone.simulator.serving.server import Server
from upbit_backbone.simulator.serving.session import Session

PRICE_UNIT = 100_000_000


class VerbsBase:
    """Each public method of a subclass is a verb; arguments are JSON."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._context = server.context
        self._hub = server.hub

    def _chosen(self, session: int | None) -> list[Session]:
        sessions = list(self._hub.sessions.values())
        return sessions if session is None else [one for one in sessions if one.id == session]

    def _send(self, data: bytes, session: int | None) -> int:
        chosen = self._chosen(session)
        for one in chosen:
            one.send_frames(data, {"injected": 1})
        return len(chosen)

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)


def doors_of(target: str) -> list[str]:
    """The doors that `target` (websocket, rest or all) means."""
    known = {"websocket": ["websocket"], "rest": ["rest"], "all": ["rest", "websocket"]}
    if target not in known:
        raise ValueError(f"target must be one of {', '.join(known)}")
    return known[target]


def end(connection: Connection, how: str) -> None:
    """Ends TCP by `fin` or `rst`."""
    if how not in ("fin", "rst"):
        raise ValueError("how must be fin or rst")
    (connection.fin if how == "fin" else connection.reset)()
