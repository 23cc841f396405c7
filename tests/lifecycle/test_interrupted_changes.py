"""A change of what is streamed that breaks off anywhere is made good: by whoever was interrupted, or by the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone, ResourceError, Subscription
from upbit_backbone.channels.market_watch import MarketWatch
from upbit_backbone.sessions.connection_pool import ConnectionPool
from upbit_backbone.sessions.session import Session
from upbit_backbone.sessions.session_manager import SessionManager
from upbit_backbone.sessions.subscription_plan import Registry
from upbit_backbone.simulator import FakeUpbit

WAIT_SECONDS = 30.0
STEPS: list[tuple[type, str]] = [
    (Registry, "_change"),
    (ConnectionPool, "place"),
    (ConnectionPool, "release"),
    (SessionManager, "_changed"),
    (SessionManager, "_place"),
    (Session, "note_change"),
    (Session, "wake"),
]


@contextmanager
def interrupted(
    owner: type, name: str, when: str, error: type[BaseException] = KeyboardInterrupt
) -> Iterator[list[str]]:
    """Have the next call of a method interrupted, before or after it did its work."""
    step, struck = getattr(owner, name), []

    def interrupt(*arguments: object, **options: object) -> object:
        if struck:
            return step(*arguments, **options)
        struck.append(name)
        if when == "after":
            step(*arguments, **options)
        raise error("broken off")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        yield struck


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[f"{owner.__name__}.{name}" for owner, name in STEPS])
def test_a_broken_off_change_leaves_nothing_and_keeps_nothing_from_anybody(
    owner: type, name: str, when: str, market: MarketDataBackbone, upbit: FakeUpbit
) -> None:
    parts = market._parts
    with market.subscribe("KRW-BTC", "trade") as trades:
        trades.get(timeout=WAIT_SECONDS)
        closing = market.subscribe("KRW-ETH", "trade")
        for change in (lambda: market.subscribe("KRW-XRP", ["trade", "ticker"]).close(), closing.close):
            with interrupted(owner, name, when) as struck:
                try:
                    change()
                except KeyboardInterrupt:
                    assert struck
                else:
                    assert not struck  # this change does not come along there
            assert parts.sessions.topics() == parts.hub.topics
            assert market.health().sessions
        assert parts.sessions.topics() == parts.hub.topics == trades.topics
        wait_until(lambda: upbit.subscribed() == {("trade", "KRW-BTC")}, "nothing else to be streamed")
        with market.subscribe("KRW-XRP", "trade") as others:
            assert others.get(timeout=WAIT_SECONDS).symbol == "KRW-XRP"


def call_back(market: MarketDataBackbone) -> object:
    return market.subscribe_realtime("KRW-ETH", "trade", callback=id, on_event=id)


def follow_a_quote(market: MarketDataBackbone) -> Subscription:
    return market.subscribe(None, "trade", quote="USDT")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ResourceError])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("subscribe", [call_back, follow_a_quote], ids=lambda function: function.__name__)
def test_a_subscribing_that_breaks_off_where_markets_begin_to_be_watched_leaves_no_subscription(
    subscribe: Callable[[MarketDataBackbone], object],
    when: str,
    error: type[BaseException],
    market: MarketDataBackbone,
) -> None:
    """It is in all tables by then, and who called has not got it: nobody could ever close it."""
    parts = market._parts
    with market.subscribe("KRW-BTC", "trade") as trades:
        # What was raised is held while all is looked at, as a notebook holds it: with its traceback and their frames.
        with interrupted(MarketWatch, "start", when, error) as struck, pytest.raises(error) as raised:
            subscribe(market)
        assert struck
        assert raised.tb
        wait_until(lambda: parts.sessions.topics() == parts.hub.topics == trades.topics, "nothing else to be wanted")
        assert [each.id for each in parts.hub._all()] == [trades.id]
        assert parts.events._listening == ()
