"""What becomes of markets is told once each, and a whole quote currency is followed as it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

from tests.support.waiting import wait_until
from upbit_backbone import InvalidRequestError, MarketDataBackbone
from upbit_backbone.channels import market_watch
from upbit_backbone.channels.market_watch import MarketFacts, changes
from upbit_backbone.models.events import MarketChange, MarketEvent, SubscriptionEvent
from upbit_backbone.simulator import FakeUpbit

KRW = ["KRW-BTC", "KRW-ETH", "KRW-XRP"]
OTHER = "BTC-ETH"


@pytest.fixture
def server() -> Iterator[FakeUpbit]:
    with FakeUpbit(markets=[*KRW, OTHER], trades_per_second=0, ban_after=0) as upbit:
        for symbol in (*KRW, OTHER):  # of these the venue has raised some by itself
            upbit.warn(symbol, warning=False, cautions=[])
        yield upbit


@pytest.fixture
def market(server: FakeUpbit, monkeypatch: pytest.MonkeyPatch) -> Iterator[MarketDataBackbone]:
    """It looks twenty times a second, for nobody waits half a minute here."""
    looks = {"look_seconds": 0.05, "first_look_seconds": 0.05}
    make = market_watch.MarketWatch
    monkeypatch.setattr(market_watch, "MarketWatch", lambda *parts, **more: make(*parts, **more, **looks))
    urls = {"rest_url": server.rest_url, "websocket_url": server.websocket_url}
    with MarketDataBackbone(**urls, timeout_seconds=20.0, idle_connection_seconds=0.5) as backbone:
        backbone.get_markets()
        yield backbone


class Told(list[Any]):
    def of(self, symbol: str) -> list[tuple[MarketChange, str | None, str | None]]:
        events = [event for event in list(self) if isinstance(event, MarketEvent) and event.symbol == symbol]
        return [(event.change, event.before, event.after) for event in events]

    def wait(self, symbol: str, *changes: Any) -> None:
        wait_until(lambda: len(self.of(symbol)) >= len(changes), lambda: f"{changes}, told was {self.of(symbol)}")
        assert self.of(symbol) == list(changes)


@pytest.fixture
def told(market: MarketDataBackbone) -> Told:
    events = Told()
    market.on_event(events.append)
    return events


def happened(events: list[Any]) -> set[tuple[str, MarketChange]]:
    return {(event.symbol, event.change) for event in list(events) if isinstance(event, MarketEvent)}


def looks(server: FakeUpbit, more: int = 2) -> None:
    """Wait until the list was asked for so many times again."""
    had = len(server.requests("/v1/market/all"))
    wait_until(lambda: len(server.requests("/v1/market/all")) >= had + more, "looks at the list")


def test_what_the_list_says_is_told_once(server: FakeUpbit, told: Told) -> None:
    server.list_market("KRW-NEW")
    told.wait("KRW-NEW", (MarketChange.LISTED, None, "NEW/New"))
    server.warn("KRW-ETH", warning=True, cautions=["PRICE_FLUCTUATIONS"])
    raised = [(MarketChange.WARNING_ON, None, None), (MarketChange.CAUTION_ON, None, "PRICE_FLUCTUATIONS")]
    told.wait("KRW-ETH", *raised)
    server.warn("KRW-ETH", warning=False, cautions=[])
    lowered = [(MarketChange.WARNING_OFF, None, None), (MarketChange.CAUTION_OFF, "PRICE_FLUCTUATIONS", None)]
    told.wait("KRW-ETH", *raised, *lowered)
    server.rename("KRW-XRP", korean_name="엑스", english_name="Ex")
    wait_until(lambda: told.of("KRW-XRP"), "the new name")
    ((change, _, after),) = told.of("KRW-XRP")
    assert (change, after) == (MarketChange.RENAMED, "엑스/Ex")
    server.delist(OTHER)
    told.wait(OTHER, (MarketChange.DELISTED, None, None))
    looks(server)
    assert [len(told.of(symbol)) for symbol in ("KRW-NEW", "KRW-ETH", "KRW-XRP", OTHER)] == [1, 4, 1, 1]


def test_what_happens_after_the_first_list_is_told_also_to_who_listened_before_it(
    server: FakeUpbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The list is noticed long before the watch would ask for one by itself.
    make = market_watch.MarketWatch
    looks = {"look_seconds": 0.05, "first_look_seconds": 600.0}
    monkeypatch.setattr(market_watch, "MarketWatch", lambda *parts, **more: make(*parts, **more, **looks))
    with MarketDataBackbone(rest_url=server.rest_url, websocket_url=server.websocket_url) as backbone:
        events = Told()
        backbone.on_event(events.append)
        backbone.get_markets()
        had = len(server.requests("/v1/market/all"))
        wait_until(lambda: len(server.requests("/v1/market/all")) > had, "a look at what became of that list")
        server.list_market("KRW-NEW")
        events.wait("KRW-NEW", (MarketChange.LISTED, None, "NEW/New"))


def test_what_the_streamed_ticker_says_is_told_once(server: FakeUpbit, market: MarketDataBackbone, told: Told) -> None:
    with market.subscribe(KRW, "ticker") as tickers:
        tickers.get(timeout=30.0)
        server.announce_delisting("KRW-XRP", "2099-01-31")
        server.suspend("KRW-ETH")
        server.publish_trade("KRW-XRP")
        server.publish_trade("KRW-ETH")
        told.wait("KRW-XRP", (MarketChange.DELISTING_DATE, None, "2099-01-31"))
        told.wait("KRW-ETH", (MarketChange.SUSPENDED, None, None))
        server.suspend("KRW-ETH", on=False)
        server.publish_trade("KRW-ETH")
        told.wait("KRW-ETH", (MarketChange.SUSPENDED, None, None), (MarketChange.RESUMED, None, None))
    looks(server)  # the ticker streams no more: what it said last holds
    assert len(told.of("KRW-XRP")) == 1


def test_a_list_that_is_cut_short_delists_nothing(server: FakeUpbit, told: Told) -> None:
    server.list_market("KRW-NEW")
    wait_until(lambda: told.of("KRW-NEW"), "a look")
    rows = '[{"market":"KRW-BTC","korean_name":"비트코인","english_name":"Bitcoin"}]'
    server.rest_fault("/v1/market/all", status=200, body=rows, times=6)
    wait_until(lambda: len([each for each in server.requests("/v1/market/all") if each["fault"]]) >= 6, "cut lists")
    looks(server)
    assert [event for event in told if isinstance(event, MarketEvent) and event.change is MarketChange.DELISTED] == []
    assert len(told.of("KRW-NEW")) == 1


def test_what_happens_while_rest_is_out_is_told_when_it_is_back(server: FakeUpbit, told: Told) -> None:
    looks(server)
    server.rest_fault("/v1/market/all", status=503, times=None, seconds=600)
    wait_until(lambda: [each for each in server.requests("/v1/market/all") if each["fault"]], "a failure")
    server.warn("KRW-BTC", warning=True)
    server.clear_faults()
    told.wait("KRW-BTC", (MarketChange.WARNING_ON, None, None))


def test_after_a_look_that_failed_the_next_one_comes_soon(
    server: FakeUpbit, market: MarketDataBackbone, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_watch, "AGAIN_SECONDS", 0.05)
    looks(server)
    server.rest_fault("/v1/market/all", mode="status", status=400, body="", times=None, seconds=600)

    def failures() -> int:
        return len([each for each in server.requests("/v1/market/all") if each["fault"]])

    wait_until(failures, "a failure")
    market._parts.market_watch._look_seconds = 600.0  # only now: what succeeded before would wait as long
    had = failures()
    wait_until(lambda: failures() >= had + 3, "more of them")
    server.warn("KRW-BTC", warning=True)
    server.clear_faults()
    told.wait("KRW-BTC", (MarketChange.WARNING_ON, None, None))


def test_a_quote_currency_is_followed(server: FakeUpbit, market: MarketDataBackbone) -> None:
    events: list[Any] = []
    with market.subscribe(None, "trade", quote="KRW", on_event=events.append) as trades:
        assert {topic.symbol for topic in trades.topics} == set(KRW)
        server.list_market("KRW-NEW")
        wait_until(lambda: ("trade", "KRW-NEW") in server.subscribed(), "the new market")
        server.publish_trade("KRW-NEW")
        wait_until(lambda: "KRW-NEW" in {trade.symbol for trade in trades.queue.drain() or ()}, "its trade")
        server.delist("KRW-ETH")
        wait_until(lambda: [each for each in events if isinstance(each, SubscriptionEvent)], "a notice")
        assert {topic.symbol for topic in trades.topics} == {"KRW-BTC", "KRW-XRP", "KRW-NEW"}
        wait_until(lambda: ("trade", "KRW-ETH") not in server.subscribed(), "the end of the old one")
        (notice,) = [each for each in events if isinstance(each, SubscriptionEvent)]
        assert (notice.topics, notice.subscription) == (("trade:KRW-ETH",), trades.id)
        wait_until(lambda: ("KRW-NEW", MarketChange.LISTED) in happened(events), "what was listed")
        assert OTHER not in {symbol for symbol, _ in happened(events)}
        last = server.publish_trade("KRW-BTC")["sequential_id"]
        while trades.get(timeout=30.0).sequential_id != last:
            pass


def test_nothing_is_missed_while_markets_come_and_go(server: FakeUpbit, market: MarketDataBackbone) -> None:
    with market.subscribe(None, "trade", quote="KRW") as trades:
        wait_until(lambda: ("trade", "KRW-BTC") in server.subscribed(), "the subscription")
        first = trades.get(timeout=30.0)
        made = []
        for number in range(6):
            server.list_market(f"KRW-N{number}")
            wait_until(lambda number=number: ("trade", f"KRW-N{number}") in server.subscribed(), "the new market")
            made += [server.publish_trade("KRW-BTC")["sequential_id"] for _ in range(20)]
            server.delist(f"KRW-N{number}")
        got = [first.sequential_id]
        while got[-1] != made[-1]:
            item = trades.get(timeout=30.0)
            got += [item.sequential_id] if item.symbol == "KRW-BTC" else []
    assert [each for each in got if each in set(made)] == made


def test_following_ends_with_the_subscription(server: FakeUpbit, market: MarketDataBackbone) -> None:
    market.subscribe(None, "ticker", quote="KRW").close()
    server.list_market("KRW-NEW")
    looks(server, 3)
    wait_until(lambda: server.subscribed() == set(), "the end of the subscription at the server")
    assert "0 followers" in repr(market._parts.market_watch)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"symbols": "KRW-BTC", "quote": "KRW"}, "alone"),
        ({"quote": "KRW", "data_types": "trade", "since": "today"}, "alone"),
        ({"quote": "EUR"}, "there are BTC, KRW"),
        ({"quote": "krw"}, "such as 'KRW'"),
        ({}, "symbol"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(
    market: MarketDataBackbone, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(InvalidRequestError, match=word):
        market.subscribe(**options)


def test_what_was_never_said_is_no_change_except_what_a_ticker_alone_says() -> None:
    unknown = MarketFacts("a/b")
    said = MarketFacts("a/b", warning=True, cautions=frozenset({"X"}))
    assert changes(unknown, said) == []
    ending = MarketFacts("a/b", suspended=True, delisting=date(2099, 1, 31))
    assert [change for change, _, _ in changes(unknown, ending)] == [
        MarketChange.SUSPENDED,
        MarketChange.DELISTING_DATE,
    ]
    assert changes(said, said) == []


def test_without_a_listener_nobody_asks_for_the_list(server: FakeUpbit, market: MarketDataBackbone) -> None:
    asked: Callable[[], int] = lambda: len(server.requests("/v1/market/all"))  # noqa: E731
    before = asked()
    with market.subscribe("KRW-BTC", "ticker") as tickers:
        tickers.get(timeout=30.0)
    assert asked() == before
    assert market._parts._market_watch.made is None
