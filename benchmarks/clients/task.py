"""What every client is told to do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

Seen = Callable[[int], None]
"""Called for each item that reaches user code, with its sequential id (0 where it has none)."""


@dataclass(frozen=True, slots=True)
class Task:
    """Read `kinds` of `symbols` from the server at the URLs. `mode` and `format` concern our own client only."""

    rest_url: str
    websocket_url: str
    kinds: tuple[str, ...]
    symbols: tuple[str, ...]
    mode: str = "queue"
    format: str = "SIMPLE"
    depth: int = 30
    subscribers: int = 1  # with equal subscriptions; more than one in the mode `unread` only
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.kinds[0]

    def arguments(self) -> list[str]:
        """For the command line of a child process."""
        return [
            "--rest-url", self.rest_url, "--websocket-url", self.websocket_url, "--kinds", ",".join(self.kinds),
            "--symbols", ",".join(self.symbols), "--mode", self.mode, "--format", self.format,
            "--depth", str(self.depth), "--subscribers", str(self.subscribers),
        ]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--websocket-url", required=True)
    parser.add_argument("--kinds", required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--mode", default="queue")
    parser.add_argument("--format", default="SIMPLE")
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--subscribers", type=int, default=1)


def parse(args: argparse.Namespace) -> Task:
    kinds, symbols = tuple(args.kinds.split(",")), tuple(args.symbols.split(","))
    how = args.mode, args.format, args.depth, args.subscribers
    return Task(args.rest_url, args.websocket_url, kinds, symbols, *how)
