"""The server's own rhythm."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from upbit_backbone.simulator.control.port import Control
from upbit_backbone.simulator.serving.options import Options
from upbit_backbone.simulator.serving.server import UNSEEN_STEP_SECONDS, Server


def test_a_market_that_nobody_is_connected_to_moves_seldom() -> None:
    """A suite keeps many simulators to its end, of which most are used for seconds."""

    async def seconds_of_eight_steps() -> float:
        server = Server(Options(markets=1, trades_per_second=0), control=lambda server: Control(server).serve)
        steps, advance = asyncio.Semaphore(0), server.context.exchange.advance

        def counted() -> Any:
            steps.release()
            return advance()

        server.context.exchange.advance = counted  # type: ignore[method-assign]
        await server.start()
        for _ in range(2):  # in which its only pair is prepared
            await steps.acquire()
        began = time.monotonic()
        for _ in range(8):
            await steps.acquire()
        took = time.monotonic() - began
        server.stop()
        await server.run_until_stopped()
        return took

    assert asyncio.run(seconds_of_eight_steps()) > 7 * UNSEEN_STEP_SECONDS
