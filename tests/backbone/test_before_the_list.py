"""Subscribed before the market list is there: nobody waits for it, and an unknown market is told all the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.waiting import PATIENCE_SECONDS, wait_until
from upbit_backbone import DataType, InvalidRequestError, MarketDataBackbone, TickerData, UnknownSymbolError
from upbit_backbone.channels import market_watch, markets
from upbit_backbone.models.events import Event, GapEvent, SubscriptionEvent
from upbit_backbone.simulator import FakeUpbit

Backbone = Callable[..., MarketDataBackbone]

LIST = "/v1/market/all"
LATE_SECONDS = 0.8  # many times what subscribe() gives the list


@pytest.fixture(scope="module")
def busy() -> Iterator[FakeUpbit]:
    """An Upbit whose prices move all the time."""
    with FakeUpbit(seed=5, trades_per_second=40, markets=["KRW-BTC", "KRW-ETH"], ban_after=0) as upbit:
        with MarketDataBackbone(url=upbit.url) as market:  # so that all is loaded that streaming needs
            market.subscribe("KRW-BTC").close()
        yield upbit


@pytest.fixture
def market(busy: FakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Iterator[MarketDataBackbone]:
    """One whose list comes late, but comes."""
    monkeypatch.setattr(markets, "CHECKING_SECONDS", PATIENCE_SECONDS)
    # Each time it is asked for: a question of the test before, read only now, is not to be the late one.
    busy.rest_fault(LIST, mode="latency", latency=LATE_SECONDS, times=None)
    yield backbone(at=busy, timeout_seconds=60.0)
    busy.clear_faults()


def now_at(upbit: FakeUpbit) -> datetime:
    return datetime.fromtimestamp(upbit.now_ms() / 1000, UTC)


def has_list(market: MarketDataBackbone) -> bool:
    return market._parts.directory.age() is not None


def test_where_rest_never_answers_the_stream_flows(market: MarketDataBackbone, busy: FakeUpbit) -> None:
    busy.clear_faults()
    busy.rest_fault("*", mode="hang", times=None)
    with market.subscribe("KRW-BTC", "ticker") as tickers:
        assert tickers.get(timeout=PATIENCE_SECONDS).symbol == "KRW-BTC"
        assert not has_list(market)


def test_a_market_that_exists_goes_on_when_the_list_has_come(market: MarketDataBackbone) -> None:
    with market.subscribe("KRW-BTC", "ticker") as tickers:
        wait_until(lambda: has_list(market), "the list")
        before = tickers.stats.received
        wait_until(lambda: tickers.stats.received > before + 10, "more of it")


def test_an_unknown_market_ends_the_loop_by_its_name_once_the_list_is_there(market: MarketDataBackbone) -> None:
    with pytest.raises(UnknownSymbolError, match=r"KRW-NOPE.*") as caught:
        for _ in market.subscribe("KRW-NOPE", "ticker"):
            pass
    assert caught.value.symbols == ("KRW-NOPE",)


def test_one_unknown_market_among_others_ends_it_as_it_would_have_been_refused(market: MarketDataBackbone) -> None:
    heard: list[Event] = []
    tickers = market.subscribe(["KRW-BTC", "KRW-NOPE"], "ticker", on_event=heard.append)
    with pytest.raises(UnknownSymbolError):
        assert {each.symbol for each in tickers} == {"KRW-BTC"}, "the loop came to an end"
    assert tickers.closed
    wait_until(lambda: [event for event in heard if isinstance(event, SubscriptionEvent)], "the event")
    (event,) = (event for event in heard if isinstance(event, SubscriptionEvent))
    assert (event.subscription, "KRW-NOPE" in event.reason) == (tickers.id, True)
    wait_until(lambda: not market._parts.sessions.topics(), "nothing is streamed for nobody")


def test_every_reader_of_it_gets_the_error(market: MarketDataBackbone) -> None:
    tickers = market.subscribe("KRW-NOPE", "ticker")
    with ThreadPoolExecutor(3) as readers:
        asked = [readers.submit(tickers.get) for _ in range(3)]
        errors = [each.exception(timeout=PATIENCE_SECONDS) for each in asked]
    assert {type(error) for error in errors} == {UnknownSymbolError}
    assert len({id(error) for error in errors}) == 3


def test_a_callback_s_on_error_gets_it(market: MarketDataBackbone) -> None:
    items: list[TickerData] = []
    errors: list[BaseException] = []
    market.subscribe_realtime("KRW-NOPE", "ticker", items.append, on_error=errors.append)
    wait_until(lambda: errors, "the error")
    assert [type(error) for error in errors] == [UnknownSymbolError]
    assert not items


def test_a_symbol_said_the_other_way_round_becomes_the_right_one(market: MarketDataBackbone) -> None:
    with market.subscribe("BTC-KRW", "ticker") as tickers:
        assert tickers.get(timeout=PATIENCE_SECONDS).symbol == "KRW-BTC"
        assert {topic.symbol for topic in tickers.topics} == {"KRW-BTC"}


def test_whoever_submits_it_waits_for_the_list(market: MarketDataBackbone) -> None:
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        market.submit(market.subscribe, "KRW-NOPE", DataType.TICKER).result(PATIENCE_SECONDS)
    assert has_list(market)


def test_a_recording_into_a_store_waits_for_the_list(
    market: MarketDataBackbone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from upbit_backbone.sinks import SqliteSink

    file = tmp_path_factory.mktemp("kept") / "market.sqlite"
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        market.record_to(SqliteSink(file), ["KRW-NOPE"])
    assert not file.exists()


def test_a_subscription_that_ended_before_the_list_came_is_left_alone(market: MarketDataBackbone) -> None:
    heard: list[Event] = []
    market.on_event(heard.append)
    market.subscribe("KRW-NOPE", "ticker").close()
    wait_until(lambda: has_list(market), "the list")
    assert market.submit(str, "after what the check has to say").result(PATIENCE_SECONDS)
    assert not [event for event in heard if isinstance(event, SubscriptionEvent)]


# A past to begin with


def test_the_past_comes_as_well_where_the_list_is_late(market: MarketDataBackbone, busy: FakeUpbit) -> None:
    heard: list[Event] = []
    past = now_at(busy) - timedelta(minutes=5)
    with market.subscribe("KRW-BTC", "trade", since=past, on_event=heard.append) as trades:
        assert not has_list(market)
        wait_until(lambda: [each for each in heard if isinstance(each, GapEvent) and each.subscription], "the receipt")
        ids = [trade.sequential_id for trade in trades.queue.drain() if trade.sequential_id is not None]
    assert ids == sorted(set(ids))
    assert len(ids) > 1


def test_an_unknown_market_ends_also_what_waits_for_its_past(market: MarketDataBackbone) -> None:
    trades = market.subscribe(["KRW-BTC", "KRW-NOPE"], "trade", since="today")
    with pytest.raises(UnknownSymbolError, match="KRW-NOPE"):
        for _ in trades:
            pass
    wait_until(lambda: "0 topics, 0 gaps" in repr(market._parts._backlogs.get()), "nobody looks for a past any more")


def test_a_past_of_a_symbol_said_the_other_way_round_is_the_right_one_s(market: MarketDataBackbone) -> None:
    with market.subscribe("BTC-KRW", "trade", since="today") as trades:
        assert {topic.symbol for topic in trades.topics} == {"KRW-BTC"}


def test_a_time_that_is_yet_to_come_by_our_clock_alone_is_asked_of_upbit_s(
    market: MarketDataBackbone, busy: FakeUpbit
) -> None:
    parts = market._parts
    assert parts.rest.clock_offset is None, "Upbit has said nothing yet"
    with pytest.raises(InvalidRequestError, match="yet to come"):
        market.subscribe("KRW-BTC", "trade", since=now_at(busy) + timedelta(days=1))
    assert parts.rest.clock_offset is not None


# A whole currency


def test_the_markets_of_a_currency_come_in_with_the_list(market: MarketDataBackbone) -> None:
    with market.subscribe(quote="KRW") as tickers:
        assert (has_list(market), tickers.topics) == (False, frozenset())
        assert tickers.get(timeout=PATIENCE_SECONDS).symbol in {"KRW-BTC", "KRW-ETH"}
        assert {topic.symbol for topic in tickers.topics} == {"KRW-BTC", "KRW-ETH"}


def test_what_is_known_of_a_currency_begins_at_once(market: MarketDataBackbone, busy: FakeUpbit) -> None:
    busy.clear_faults()
    busy.rest_fault(LIST, mode="hang", times=None)
    market.get_ticker("KRW-ETH")
    with market.subscribe(quote="KRW") as tickers:
        assert "KRW-ETH" in {topic.symbol for topic in tickers.topics}
        assert tickers.get(timeout=PATIENCE_SECONDS).symbol in {"KRW-BTC", "KRW-ETH"}
        assert not has_list(market)


def test_a_currency_without_markets_ends_the_loop(market: MarketDataBackbone) -> None:
    heard: list[Event] = []
    tickers = market.subscribe(quote="EUR", on_event=heard.append)
    with pytest.raises(InvalidRequestError, match="quote='EUR': no market is priced in it; there are KRW"):
        for _ in tickers:
            pass
    wait_until(lambda: [event for event in heard if isinstance(event, SubscriptionEvent)], "the event")


def test_a_currency_is_followed_once_rest_answers_however_late(
    busy: FakeUpbit, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = market_watch.MarketWatch
    looks = {"look_seconds": 0.05, "first_look_seconds": 0.05}
    monkeypatch.setattr(market_watch, "MarketWatch", lambda *parts, **more: make(*parts, **more, **looks))
    busy.rest_fault(LIST, status=503, times=None)
    market = backbone(at=busy, timeout_seconds=0.2)
    known, unknown = market.subscribe(quote="KRW"), market.subscribe(quote="EUR")

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "no market list yet" in record.getMessage()]

    wait_until(lambda: len(said()) == 2, "that there is no list")
    had = len(busy.requests(LIST))
    wait_until(lambda: len(busy.requests(LIST)) > had, "the list to be asked for again")
    assert len(said()) == 2, "once each"
    assert not known.closed
    busy.clear_faults()
    assert known.get(timeout=PATIENCE_SECONDS).symbol in {"KRW-BTC", "KRW-ETH"}
    with pytest.raises(InvalidRequestError, match="no market is priced in it"):
        unknown.get(timeout=PATIENCE_SECONDS)


def test_more_markets_than_are_allowed_end_it(market: MarketDataBackbone, busy: FakeUpbit, backbone: Backbone) -> None:
    narrow = backbone(at=busy, timeout_seconds=60.0, max_subscribed_symbols=1)
    with pytest.raises(InvalidRequestError, match="2 market codes, at most 1"):
        narrow.subscribe(quote="KRW").get(timeout=PATIENCE_SECONDS)


def test_a_loop_over_a_currency_outlives_the_backbone_s_last_reference(busy: FakeUpbit) -> None:
    busy.rest_fault(LIST, mode="latency", latency=LATE_SECONDS, times=None)
    try:
        tickers = MarketDataBackbone(url=busy.url, timeout_seconds=60.0).subscribe(quote="KRW")
        assert not tickers.topics
        gc.collect()
        assert tickers.get(timeout=PATIENCE_SECONDS).symbol in {"KRW-BTC", "KRW-ETH"}
        tickers.close()
    finally:
        busy.clear_faults()
