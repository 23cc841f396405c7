"""A Redis server that may be away: what its absence costs those who keep something together there."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.support.redis_server import RedisServer as Server
from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone._concurrency import SYSTEM_CLOCK
from upbit_backbone.errors import NetworkError
from upbit_backbone.models.enums import RateGroup
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.upstream.scripts import BEGIN
from upbit_backbone.upstream.shared_redis import SharedRedis
from upbit_backbone.wire.redis_server import RedisServer
from upbit_backbone.wire.relay_keys import Keys

KEYS = Keys()
NOW = BEGIN + "return text(now)"


@pytest.fixture
def proxy(server: Server) -> Iterator[ChaosProxy]:
    with ChaosProxy(str(server.socket)) as proxy:
        yield proxy


def url_of(proxy: ChaosProxy) -> str:
    host, port = proxy.address
    return f"redis://{host}:{port}"


def mute(proxy: ChaosProxy) -> None:
    """Connections stay, and new ones are accepted, but nothing is ever answered."""
    proxy.blackhole()
    proxy.freeze()


def part(proxy: ChaosProxy) -> SharedRedis:
    return SharedRedis(url_of(proxy), KEYS, lambda text: None, what="times", clock=SYSTEM_CLOCK)


def looking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "upbit-redis"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of threads that asked Redis something, but for the one that only looks whether it is there."""
    asked: list[str] = []

    def noted(server: RedisServer, *arguments: Any) -> Any:
        asked.append(threading.current_thread().name)
        return run(server, *arguments)

    run = RedisServer.run
    monkeypatch.setattr(RedisServer, "run", noted)
    return asked


def test_a_mute_server_keeps_one_question_waiting_once(
    proxy: ChaosProxy, upbit: FakeUpbit, asked: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with MarketDataBackbone(
        rest_url=upbit.rest_url,
        websocket_url=upbit.websocket_url,
        share_limits_at=url_of(proxy),
        share_limits_between_processes=True,
        timeout_seconds=60,
    ) as market:
        market.get_candles("KRW-BTC", "1m", count=1)
        mute(proxy)
        market.get_candles("KRW-BTC", "1m", count=2)
        asked.clear()
        # By way of answers, limits and breakers, which all are kept there.
        market.get_orderbook("KRW-BTC")
        market._parts.rest._queues[RateGroup.TICKER].breaker.handle_failure(NetworkError("the line is cut"))
        market.get_candles("KRW-BTC", "1m", count=3)
        assert asked == []
    wait_until(lambda: not looking(), "nobody looks")


def test_all_parts_know_of_it_together_and_that_it_is_back(proxy: ChaosProxy, asked: list[str]) -> None:
    mine, theirs = part(proxy), part(proxy)
    assert mine.run_if_there(NOW, [], [])
    proxy.go_away()
    assert mine.run_if_there(NOW, [], []) is None
    assert "away" in repr(theirs)
    asked.clear()
    assert theirs.run_if_there(NOW, [], []) is None
    with pytest.raises(NetworkError, match="cannot be reached"):
        theirs.run(NOW, [], [])
    with pytest.raises(NetworkError, match="cannot be reached"):
        theirs.ask([("PING",)])
    assert asked == []
    proxy.come_back()
    wait_until(lambda: theirs.run_if_there(NOW, [], []) is not None, "it is back")
    assert mine.run_if_there(NOW, [], [])
    wait_until(lambda: not looking(), "nobody looks any more")
    mine.close()
    theirs.close()


def test_nobody_looks_for_those_who_have_gone(proxy: ChaosProxy) -> None:
    mine, theirs, forgotten = part(proxy), part(proxy), part(proxy)
    mute(proxy)
    for each in (mine, theirs, forgotten):
        assert each.run_if_there(NOW, [], []) is None
    assert len(looking()) == 1
    del each, forgotten
    gc.collect()
    mine.close()
    assert len(looking()) == 1
    theirs.close()
    wait_until(lambda: not looking(), "nobody looks")
    assert theirs.run_if_there(NOW, [], []) is None


def test_closed_until_it_is_needed_again_it_knows_nothing(proxy: ChaosProxy, asked: list[str]) -> None:
    mine = part(proxy)
    proxy.go_away()
    assert mine.run_if_there(NOW, [], []) is None
    mine.close(for_good=False)
    proxy.come_back()
    assert mine.run_if_there(NOW, [], [])
    mine.close()
