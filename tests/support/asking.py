"""Programs that ask the simulator in processes of their own, all at once, as those of several machines do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_until
from upbit_backbone.simulator import FakeUpbit

# Asks for candles of so many markets from the first on: what others ask as well is asked once.
FOR_CANDLES = """
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from upbit_backbone import MarketDataBackbone
    count, first = map(int, sys.argv[1:3])
    with MarketDataBackbone(timeout_seconds=60) as market, ThreadPoolExecutor(6) as pool:
        symbols = [each.symbol for each in market.get_markets()][first : first + count]
        print("ready", flush=True)
        sys.stdin.readline()
        list(pool.map(lambda symbol: market.get_candles(symbol, "1m", count=1), symbols))
"""


def many_markets(count: int) -> FakeUpbit:
    """Enough of them that nobody asks twice for one."""
    return FakeUpbit(seed=7, markets=[f"KRW-{chr(65 + each // 26)}{chr(65 + each % 26)}" for each in range(count)])


class Asking:
    """A program that shares limits at `redis` and has a temporary folder of its own, as on a machine of its own. It has
    asked a first question when this is made, and goes on when it is told to `begin`; leaving the block kills it."""

    def __init__(
        self,
        upbit: FakeUpbit,
        redis: str,
        folder: Path,
        *arguments: object,
        program: str = FOR_CANDLES,
        inside: Sequence[str] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        settings = {
            "TMPDIR": str(folder),
            "UPBIT_BACKBONE_SHARE_LIMITS_AT": redis,
            "UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES": "1",
        }
        self._process = subprocess.Popen(
            [*inside, sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | upbit.environment() | settings,
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.__exit__()
            raise AssertionError("it has ended before it was ready")
        return self

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ends(self, seconds: float = 90.0) -> int:
        """With what it has ended, within so many seconds."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        self._process.kill()

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


def wait_for_more(upbit: FakeUpbit, count: int) -> None:
    """Until so many candles more have been asked for."""
    enough = len(upbit.requests(group="candle")) + count
    wait_until(lambda: len(upbit.requests(group="candle")) >= enough, f"{count} more")


def assert_limits_were_kept(upbit: FakeUpbit, count: int | None = None) -> None:
    """Ten a second, no 429, and `count` candles were asked for."""
    requests = upbit.requests()
    told = [(entry["t"], entry["port"], entry["raw_query"], entry["status"]) for entry in requests]
    refused = [place for place, entry in enumerate(told) if entry[-1] != 200]
    assert not refused, f"of {len(told)} the {refused}. were refused: {told[max(0, refused[0] - 12) : refused[0] + 1]}"
    assert upbit.busiest(group="candle") <= 10
    asked = [entry["raw_query"] for entry in requests if entry["group"] == "candle"]
    again = [query for query, times in Counter(asked).items() if times > 1]
    assert count is None or len(asked) == count, f"{len(asked)} candles instead of {count}; more than once: {again}"
