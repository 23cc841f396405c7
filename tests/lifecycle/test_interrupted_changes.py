"""A change of what is streamed that breaks off anywhere is made good: by whoever was interrupted, or by the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import MarketDataBackbone
from upbit_backbone.sessions.connection_pool import ConnectionPool
from upbit_backbone.sessions.session import Session
from upbit_backbone.sessions.session_manager import SessionManager
from upbit_backbone.sessions.subscription_plan import Registry
from upbit_backbone.simulator import FakeUpbit

WAIT_SECONDS = 10.0
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
def interrupted(owner: type, name: str, when: str) -> Iterator[list[str]]:
    """Have the next call of a method interrupted, before or after it did its work."""
    step, struck = getattr(owner, name), []

    def interrupt(*arguments: object, **options: object) -> object:
        if struck:
            return step(*arguments, **options)
        struck.append(name)
        if when == "after":
            step(*arguments, **options)
        raise KeyboardInterrupt

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
