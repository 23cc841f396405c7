"""Context: what every part of one simulator shares. It knows none of them, so that all may know it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

from upbit_backbone.simulator.engine.clock import Clock
from upbit_backbone.simulator.engine.exchange import Exchange
from upbit_backbone.simulator.serving.faults import Faults
from upbit_backbone.simulator.serving.http_wire import Request
from upbit_backbone.simulator.serving.limits import Limits
from upbit_backbone.simulator.serving.options import Options
from upbit_backbone.simulator.serving.wire_log import WireLog

REMEMBERED_ANSWERS = 64


class Context:
    """Clock, market, limits, faults and log. All of it is used by one thread only."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clock = Clock(options.start_time)
        self.exchange = Exchange(
            options.seed, options.markets, self.clock, options.trades_per_second, options.books_per_second,
            options.unordered_ids, options.retained_trades,
        )  # fmt: skip
        self.limits = Limits(options)
        self.faults = Faults()
        self.log = WireLog(options.wire_log_size)
        self.frozen: set[str] = set()
        """Doors ("rest", "websocket") whose new connections are frozen from their first byte."""
        self.delisting_dates: dict[str, str] = {}
        self.suspended: set[str] = set()
        self._serial = 0
        self._answers: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        # asyncio keeps tasks by weak references only; one that nobody holds may vanish in the middle of its work.
        self._tasks: set[asyncio.Task[None]] = set()

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def remember(self, request: Request, body: bytes) -> None:
        """Keeps the latest good answers, for the fault that repeats an old one."""
        self._answers[request.path, request.raw_query] = body
        self._answers.move_to_end((request.path, request.raw_query))
        if len(self._answers) > REMEMBERED_ANSWERS:
            self._answers.popitem(last=False)

    def remembered(self, request: Request) -> bytes | None:
        return self._answers.get((request.path, request.raw_query))

    def note(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Adds to the wire log with the simulator's own wall time."""
        return self.log.add(kind, self.clock.now_ms(), **facts)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` in the background until it ends or the simulator does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.note("internal-error", error=repr(task.exception()), at=time.time())
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a simulator task failed", "exception": task.exception(), "task": task}
            )
