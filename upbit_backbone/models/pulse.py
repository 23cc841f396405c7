"""The sign of life of one WebSocket session."""

from __future__ import annotations

from .topic import Topic


class Pulse:
    """Written by its session's own thread only; read by anyone without a lock (each attribute is replaced whole).

    `epoch` grows with every connection, so that data from before a break can never pass for data after it.
    `heard_at` is the monotonic time of the last sign of life (data, pong or UP). `suspect` holds while a silent
    stall is suspected; `mute` are single topics proven mute while the others flow. `connected` is False from the
    moment the line is known to be lost. `clock_offset` is the wall clock minus the monotonic one when the session last
    looked: whoever finds another one later knows before the session does that the machine slept.
    """

    __slots__ = ("clock_offset", "connected", "epoch", "heard_at", "mute", "session", "suspect")

    def __init__(self, session: str) -> None:
        self.session = session
        self.epoch = 0
        self.connected = False
        self.heard_at = float("-inf")
        self.clock_offset: float | None = None
        self.suspect = False
        self.mute: frozenset[Topic] = frozenset()

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<Pulse {self.session} epoch {self.epoch} {state}{' suspect' if self.suspect else ''}>"
