"""Circuit breakers that know of each other by way of a Redis server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.clock import ManualClock
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone._concurrency import SYSTEM_CLOCK
from upbit_backbone.errors import ChannelUnavailableError, NetworkError
from upbit_backbone.resilience.circuit_breaker import CircuitBreaker
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.upstream.shared_circuits import SharedCircuits

ERROR = NetworkError("the line is cut")
KEY = "{upbit}:limits:default:upbit:breaker:REST-ticker"
Make = Callable[[ManualClock], CircuitBreaker]


@pytest.fixture
def breaker(server: RedisServer) -> Iterator[Make]:
    """That of another process with each call."""
    with ExitStack() as things:

        def one(clock: ManualClock) -> CircuitBreaker:
            circuits = SharedCircuits(server.url, "upbit", "default", "upbit", clock=SYSTEM_CLOCK)
            things.callback(circuits.close)
            return CircuitBreaker(
                "REST ticker", failures=3, reset_seconds=60.0, probes=1, clock=clock, elsewhere=circuits
            )

        yield one


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.handle_failure(ERROR)


def test_while_one_is_open_a_single_failure_opens_another_and_nothing_else_does(breaker: Make) -> None:
    mine, theirs, well = (breaker(ManualClock()) for _ in range(3))
    fail(mine, 2)
    fail(theirs)
    assert theirs.state == "closed"
    fail(mine)
    assert mine.state == "open"
    assert theirs.state == well.state == "closed"  # it may be the other's own line that is cut
    fail(theirs)
    with pytest.raises(ChannelUnavailableError) as refused:
        theirs.admit()
    assert refused.value.retry_after is not None
    assert 0.0 < refused.value.retry_after <= 60.0
    assert well.call(lambda: "works") == "works"


def test_when_one_has_found_that_it_works_again_the_others_count_by_themselves(
    breaker: Make, server: RedisServer
) -> None:
    clock = ManualClock()
    mine, theirs = breaker(clock), breaker(ManualClock())
    fail(mine, 3)
    assert 0 < server.client.pttl(KEY) <= 60_000
    clock.now += 61.0
    mine.call(bool)
    assert mine.state == "closed"
    assert server.client.keys("*") == []
    fail(theirs, 2)
    assert theirs.state == "closed"


def test_what_a_process_that_died_had_opened_ends_by_itself(breaker: Make, server: RedisServer) -> None:
    fail(breaker(ManualClock()), 3)
    server.client.pexpire(KEY, 50)
    wait_until(lambda: not server.client.exists(KEY), "the end of the note")
    theirs = breaker(ManualClock())
    fail(theirs, 2)
    assert theirs.state == "closed"


@pytest.mark.parametrize("command", [("SET", KEY, "open"), ("SET", KEY, "UPBITBR1"), ("LPUSH", KEY, "open")])
def test_what_is_not_ours_is_refused_by_name_and_left_alone(
    breaker: Make, server: RedisServer, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    server.client.execute_command(*command)
    before = server.client.dump(KEY)
    mine = breaker(ManualClock())
    fail(mine, 3)
    assert mine.state == "open"
    assert server.client.dump(KEY) == before
    assert "did not write" in str(caplog.records[0].__dict__["why"])


def test_without_redis_each_counts_for_itself(breaker: Make, server: RedisServer) -> None:
    mine = breaker(ManualClock())
    server.kill()
    fail(mine, 2)
    assert mine.state == "closed"
    fail(mine)
    assert mine.state == "open"


def test_the_breaker_of_handshakes_is_shared_as_well(server: RedisServer, upbit: FakeUpbit) -> None:
    settings = {"share_limits_at": server.url, "share_limits_between_processes": True}
    addresses = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
    with (
        MarketDataBackbone(**settings, **addresses, breaker_failures=3) as mine,
        MarketDataBackbone(**settings, **addresses, breaker_failures=3) as theirs,
    ):
        fail(mine._parts.connect_breaker, 3)
        fail(theirs._parts.connect_breaker)
        assert theirs._parts.connect_breaker.state == "open"
