"""What is data travels between processes; what owns threads and sockets says that it cannot."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import upbit_backbone
from upbit_backbone import DataType, MarketDataBackbone, UpbitBackboneError, errors
from upbit_backbone.models import events


def twin_of(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  # our own, of a moment ago


def test_a_backbone_says_why_it_cannot_be_pickled(market: MarketDataBackbone) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled.*one per process"):
        pickle.dumps(market)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.deepcopy(market)


@pytest.mark.parametrize(
    "make",
    [
        lambda market: market.subscribe("KRW-BTC"),
        lambda market: market.subscribe("KRW-BTC").queue,
        lambda market: market.candle_series("KRW-BTC", size=3),
        lambda market: market.live_orderbook("KRW-BTC"),
        lambda market: market.on_event(print),
    ],
    ids=["Subscription", "queue", "CandleSeries", "LiveOrderbook", "Listening"],
)
def test_nor_can_what_it_hands_out(make: Callable[[MarketDataBackbone], object], market: MarketDataBackbone) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):  # as Python puts it, on the spot
        pickle.dumps(make(market))


def test_every_answer_survives_pickling(market: MarketDataBackbone) -> None:
    with market.subscribe("KRW-BTC", [DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK, DataType.CANDLE_1S]) as all_:
        streamed = [all_.get(timeout=10) for _ in range(20)]
    answers: list[Any] = [
        market.get_ticker("KRW-BTC"),
        market.get_tickers(quote="KRW"),
        market.get_orderbook("KRW-BTC"),
        market.get_trades("KRW-BTC", count=5),
        market.get_candles("KRW-BTC", count=5),
        market.get_markets(),
        market.explain("ticker", "KRW-BTC"),
        market.health(),
        market.performance(),
        market.config,
        *streamed,
    ]
    for answer in answers:
        assert twin_of(answer) == answer
        assert copy.deepcopy(answer) == answer


# Something that fits each annotation of an event's field.
SAMPLES = {
    "datetime": datetime(2026, 11, 22, tzinfo=UTC),
    "str": "text",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "tuple[str, ...]": ("KRW-BTC",),
}


def sample(annotation: str) -> object:
    word = annotation.split(" | ")[0]
    if word in SAMPLES:
        return SAMPLES[word]
    kind = getattr(upbit_backbone, word, None) or getattr(events, word, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind("told")
    return next(iter(kind)) if isinstance(kind, type) and hasattr(kind, "__members__") else None


def test_every_event_survives_pickling() -> None:
    kinds = [kind for kind in vars(events).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) > 8
    for kind in kinds:
        fields = {each.name: sample(str(each.type)) for each in dataclasses.fields(kind)}
        event = kind(**fields)
        assert repr(twin_of(event)) == repr(event)  # errors are equal to themselves only


def test_every_error_survives_pickling_with_what_it_carries() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UpbitBackboneError)]
    assert len(kinds) > 15
    for kind in kinds:
        error = kind("what happened", **({"symbol": "KRW-BTC"} if kind is errors.NoTradesYetError else {}))
        error.retry_after = 2.5
        error.partial, error.resume = [1, 2], "the rest"
        twin = twin_of(error)
        assert type(twin) is kind
        assert (twin.args, vars(twin)) == (error.args, vars(error))
        assert (twin.retryable, twin.whose_fault) == (kind.retryable, kind.whose_fault)
