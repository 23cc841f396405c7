"""A REST channel in front of the simulator, with a limiter nobody else shares."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.config import BackboneConfig
from upbit_backbone.exchange.endpoints import RestCall
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.events import Event
from upbit_backbone.rest.client import RestClient
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.unify.rest import decode_answer

WAIT_SECONDS = 20.0


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(seconds)


def last_request(upbit: FakeUpbit) -> int:
    """The number of the newest entry of the wire log, usable as `since`."""
    log = upbit.wire_log(limit=1)
    return int(log[-1]["n"]) if log else 0


class Scene:
    """One channel and what it told: `remembered` answers and `events`."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.remembered: list[Any] = []
        self.events: list[Event] = []
        self.measured: list[tuple[str, float, BaseException | None, int]] = []
        self.host = str(uuid.uuid4())
        self.config = BackboneConfig(url=url, **settings)
        self.limiter = RateLimiter(self.host, self.config.rest_requests_per_second, emit=self.events.append)
        self.rest = RestClient(
            self.config,
            limiter=self.limiter,
            door=self._take,
            emit=self.events.append,
            measure=lambda *call: self.measured.append(call),
        )

    def _take(self, call: RestCall, body: bytes, received_at: datetime) -> list[Any]:
        items = decode_answer(call, body, received_at)
        self.remembered += items
        return items

    def close(self) -> None:
        assert self.rest.close(Deadline.after(WAIT_SECONDS)) == []
        self.limiter.close()


@pytest.fixture(scope="session")
def calm() -> Iterator[FakeUpbit]:
    """A simulator in which nothing moves by itself and no limit of one test gets in the way of the next."""
    with FakeUpbit(trades_per_second=0, rest_limit=100_000, ban_after=0) as upbit:
        yield upbit


@pytest.fixture
def upbit(calm: FakeUpbit) -> Iterator[FakeUpbit]:
    """The session's simulator, free of faults and connections."""
    yield calm
    calm.clear_faults()
    calm.drop_connections("rst", "rest")


@pytest.fixture
def scene(upbit: FakeUpbit) -> Iterator[Callable[..., Scene]]:
    """`scene(**settings)`: a channel that is closed when the test ends."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Scene:
            made = Scene(settings.pop("url", upbit.rest_url), **settings)
            stack.callback(made.close)
            return made

        yield make
