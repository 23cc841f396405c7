"""The router tries what the table names, and what came back meanwhile, before it says that nothing can answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.support.clock import ManualClock
from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ChannelUnavailableError, RequestTimeoutError, StaleDataError, UpbitBackboneError
from upbit_backbone.models.enums import Channel, DataSource, DataStrategy, RequestKind
from upbit_backbone.models.market import TickerData
from upbit_backbone.models.request import DataRequest
from upbit_backbone.monitoring.metrics import Metrics
from upbit_backbone.routing.context import Observation
from upbit_backbone.routing.policy import RoutingContext
from upbit_backbone.routing.promotion import Promotions, RequestFrequency
from upbit_backbone.routing.router import RequestRouter

TICKER = TickerData("KRW-BTC", *[Decimal(1)] * 7, datetime(2026, 11, 22, tzinfo=UTC), DataSource.WEBSOCKET)
ASK = DataRequest(RequestKind.TICKER, ("KRW-BTC",))


class Reader:
    """A channel that gives what its turns say, one after the other."""

    def __init__(self, *turns: TickerData | UpbitBackboneError) -> None:
        self.turns = list(turns)

    def fetch(self, request: DataRequest, deadline: Deadline, look: object = None) -> TickerData:
        turn = self.turns.pop(0)
        if isinstance(turn, UpbitBackboneError):
            raise turn
        return turn


def router_over(facts: dict[str, Any], **readers: Reader) -> Callable[..., Any]:
    """How a router over these channels answers, while these are the facts."""
    clock = ManualClock()
    by_channel = {Channel(name): reader for name, reader in readers.items()}
    made = RequestRouter(
        by_channel,
        lambda request, **known: Observation(RoutingContext(**facts, **known), None),
        lambda request: (TICKER, 1.0),
        frequency=RequestFrequency(10.0),
        promotions=Promotions(lambda owner, requests: None, limit=10, demote_after=60.0),
        metrics=Metrics(),
        clock=clock,
    )
    return lambda request=ASK: made.answer(request, Deadline.after(3.0, clock.monotonic))


GONE = ChannelUnavailableError("session-1 is not connected")
HANGS = RequestTimeoutError("/v1/ticker: not finished by its deadline")
REFUSES = ChannelUnavailableError("the breaker is open", retry_after=2.0)


@pytest.mark.parametrize("rest", [HANGS, REFUSES])
def test_a_line_that_came_back_while_rest_failed_answers_and_says_that_it_is_degraded(rest: UpbitBackboneError) -> None:
    stream = Reader(GONE, TICKER)
    facts = {"is_streamed": True, "stream_is_open": False, "rest_is_open": False}
    answer = router_over(facts, websocket=stream, rest=Reader(rest))
    item, decision = answer()
    assert decision.rule == "both-closed"
    assert (item.current_price, item.degraded, stream.turns) == (Decimal(1), True, [])


def test_a_line_that_breaks_between_the_look_and_the_answer_is_waited_for() -> None:
    facts = {"is_streamed": True, "live_is_current": True}
    answer = router_over(facts, live=Reader(StaleDataError("lost")), rest=Reader(REFUSES), websocket=Reader(TICKER))
    item, decision = answer()
    assert (decision.rule, item.degraded) == ("live", True)


def test_where_nothing_streams_or_rest_alone_is_allowed_its_failure_is_the_answer() -> None:
    answer = router_over({"rest_is_open": False, "stream_is_open": False}, websocket=Reader(GONE), rest=Reader(HANGS))
    with pytest.raises(StaleDataError, match="not finished"):
        answer()
    facts = {"is_streamed": True, "live_is_current": True}
    answer = router_over(facts, rest=Reader(REFUSES), websocket=Reader(TICKER))
    with pytest.raises(ChannelUnavailableError, match="breaker"):
        answer(DataRequest(RequestKind.TICKER, ("KRW-BTC",), strategy=DataStrategy.REST_ONLY))


def test_what_the_stream_says_at_last_is_in_the_error_as_well() -> None:
    facts = {"is_streamed": True, "stream_is_open": False, "rest_is_open": False}
    still = ChannelUnavailableError("session-1 is still not connected")
    answer = router_over(facts, websocket=Reader(GONE, still), rest=Reader(HANGS))
    with pytest.raises(StaleDataError, match="not finished by its deadline; session-1 is still not connected"):
        answer()
