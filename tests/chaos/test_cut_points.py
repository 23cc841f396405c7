"""A line may be cut after any byte; half a message is never taken for one, and no trade is lost by it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.chaos.watched import Watched, say
from tests.support.waiting import wait_until
from upbit_backbone.config import BackboneConfig
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.sessions import messages as do
from upbit_backbone.sessions import messages as on
from upbit_backbone.sessions.lifecycle import Lifecycle
from upbit_backbone.simulator import FakeUpbit

REQUESTS = frozenset({SubscriptionRequest(Topic(DataType.TRADE, "KRW-BTC"))})
SEED = 2026
CUTS = 30


@pytest.fixture(scope="module")
def recorded(calm: FakeUpbit) -> bytes:
    """All the bytes of one session after its handshake, as Upbit sent them."""
    from upbit_backbone import MarketDataBackbone

    host, port = calm.websocket_url.split("/")[2].split(":")
    with ChaosProxy((host, int(port))) as line:
        where = f"ws://127.0.0.1:{line.address[1]}/websocket/v1"
        with MarketDataBackbone(rest_url=calm.rest_url, websocket_url=where, ping_interval_seconds=0.2) as market:
            seen = Watched(market, calm, kinds=["trade", "ticker", "candle.1m"])
            for number in range(3):
                calm.publish_trade("KRW-BTC", price=130_000_000 + 1_000 * number)
            last = calm.trades("KRW-BTC")[-1]["sequential_id"]
            wait_until(lambda: [each.sequential_id for each in seen.trades("KRW-BTC")[-1:]] == [last], "the last trade")
        stream = b"".join(line.recorded)
    return stream[stream.index(b"\r\n\r\n") + 4 :]


class Session:
    """A lifecycle that is live, and what it would deliver."""

    def __init__(self) -> None:
        self._lifecycle = Lifecycle("session-1", BackboneConfig(), random=lambda: 0.5,
                                    wall=lambda: datetime(2026, 11, 22, tzinfo=UTC), next_epoch=lambda: 1)  # fmt: skip
        self._lifecycle.handle(on.SubscriptionsChanged(REQUESTS), 0.0)
        self._lifecycle.handle(on.Opened(), 0.0)
        self.delivered: list[bytes] = []

    def receive(self, data: bytes) -> None:
        for effect in self._lifecycle.handle(on.Received(data), 0.1):
            if isinstance(effect, do.Deliver):
                self.delivered += effect.frames

    def is_cut(self) -> ConnectionState:
        effects = self._lifecycle.handle(on.ConnectionLost("cut"), 0.2)
        assert not any(isinstance(effect, do.Deliver) for effect in effects)
        return self._lifecycle.state


def test_a_session_cut_after_any_byte_delivers_whole_messages_only(recorded: bytes) -> None:
    whole = Session()
    whole.receive(recorded)
    assert len(whole.delivered) > 8
    for cut in range(1, len(recorded) + 1):
        session = Session()
        session.receive(recorded[:cut])
        assert session.delivered == whole.delivered[: len(session.delivered)], cut
        assert session.is_cut() is ConnectionState.CONNECTING, cut  # the first retry is immediate
    say(f"{len(recorded)} cut points, {len(whole.delivered)} messages")


def test_a_session_in_any_two_pieces_is_the_same(recorded: bytes) -> None:
    whole = Session()
    whole.receive(recorded)
    for cut in range(1, len(recorded), 3):
        session = Session()
        session.receive(recorded[:cut])
        session.receive(recorded[cut:])
        assert session.delivered == whole.delivered, cut


def test_thirty_cuts_on_the_wire_lose_nothing(
    watch: Callable[..., Watched], proxy: Callable[..., ChaosProxy], upbit: FakeUpbit
) -> None:
    say(f"seed {SEED}")
    chance = random.Random(SEED)
    line = proxy(upbit.websocket_url)
    host, port = line.address
    limits = [chance.randint(1, 260) if number % 5 == 0 else chance.randint(261, 12_000) for number in range(CUTS)]
    seen = watch(
        upbit, ["KRW-BTC", "KRW-ETH"], ["trade", "ticker", "orderbook"],
        websocket_url=f"ws://{host}:{port}/websocket/v1", reconnect_cap_seconds=0.1,
    )  # fmt: skip
    line.cut_after(limits)
    seen.recovers(lambda: upbit.drop_sessions("fin"))
    wait_until(lambda: not line.cuts_left, lambda: f"{line.cuts_left} cuts left; {seen.reasons()[-300:]}", 25.0)
    seen.flows(more=50)
    assert seen.is_whole("KRW-BTC", "KRW-ETH")
    assert seen.malformed == 0
