"""Never run: mypy --strict reads it, to prove that the public API types well from outside."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from datetime import UTC, datetime
from decimal import Decimal
from typing import assert_type

import upbit_backbone as ub
from upbit_backbone import (
    BackboneConfig,
    BannedError,
    CandleData,
    ChannelDecision,
    DataSource,
    DataStrategy,
    DataType,
    GapEvent,
    HealthStatus,
    MarketDataBackbone,
    MarketInfo,
    OrderbookData,
    Overflow,
    Priority,
    Side,
    StaleDataError,
    Subscription,
    SubscriptionId,
    TickerData,
    TradeData,
)


def use(*things: object) -> None:
    """So that nothing above is unused."""


def questions(market: MarketDataBackbone) -> None:
    ticker: TickerData = market.get_ticker("KRW-BTC", realtime=True, priority=Priority.HIGH, timeout=1.0)
    price: Decimal = ticker.current_price
    source: DataSource = ticker.source
    when: datetime = ticker.timestamp
    board: dict[str, TickerData] = market.get_tickers(quote="KRW", max_age=1.0)
    book: OrderbookData = market.get_orderbook("KRW-BTC", levels=5, strategy=DataStrategy.REST_ONLY)
    size: Decimal = book.asks[0].size
    trades: list[TradeData] = market.get_trades("KRW-BTC", count=10)
    candles: list[CandleData] = market.get_candles("KRW-BTC", "1m", count=10, to=datetime.now(UTC))
    total: Decimal = sum((candle.volume for candle in market.iter_candles("KRW-BTC", "1d", count=3)), Decimal(0))
    markets: list[MarketInfo] = market.get_markets(quote="KRW")
    bought: int = sum(1 for trade in market.iter_trades("KRW-BTC", count=10) if trade.side is Side.BID)
    begins: datetime | None = market.history_start("KRW-BTC", "1m", timeout=1.0)
    decision: ChannelDecision = market.explain("ticker", "KRW-BTC")
    use(price, source, when, board, size, trades, candles, total, markets, bought, begins, decision)


def streams(market: MarketDataBackbone) -> None:
    def show(ticker: TickerData) -> None:
        use(ticker)

    name: SubscriptionId = market.subscribe_realtime("KRW-BTC", [DataType.TICKER], callback=show)
    ended: bool = market.unsubscribe(name)
    mine: queue.Queue[TradeData] = queue.Queue()
    market.subscribe(
        ["KRW-BTC"], DataType.TRADE, overflow=Overflow.DROP_OLDEST, maxsize=10, queue=mine, gap_order="strict"
    )
    with market.subscribe("KRW-BTC", "trade") as trades:
        for trade in trades:
            use(trade.price, ended)
        assert_type(trades.get(timeout=1.0), TradeData)
        assert_type(trades.queue, queue.Queue[TradeData])
        use(trades.queue.qsize(), trades.stats.dropped)
    with market.candle_series("KRW-BTC", "1m", size=10) as series, market.live_orderbook("KRW-BTC") as book:
        newest: CandleData | None = series.wait_update(timeout=1.0)
        spread: Decimal | None = book.spread
        use(newest, spread)


def what_a_subscription_gives(market: MarketDataBackbone, kinds: list[DataType], words: list[str]) -> None:
    """By member or word, alone, in a list of one kind, mixed, and where only the program knows."""
    assert_type(market.subscribe("KRW-BTC"), Subscription[TickerData])
    assert_type(market.subscribe("KRW-BTC", "ticker"), Subscription[TickerData])
    assert_type(market.subscribe(["KRW-BTC"], DataType.TRADE), Subscription[TradeData])
    assert_type(market.subscribe(("KRW-BTC",), [DataType.ORDERBOOK], levels=5), Subscription[OrderbookData])
    assert_type(market.subscribe("KRW-BTC", "orderbook", level="10000"), Subscription[OrderbookData])
    assert_type(market.subscribe("KRW-BTC", ["candle.1m", "candle.240m"]), Subscription[CandleData])
    assert_type(market.subscribe("KRW-BTC", (DataType.CANDLE_1S, DataType.CANDLE_60M)), Subscription[CandleData])
    assert_type(market.subscribe("KRW-BTC", "1h", maxsize=10), Subscription[CandleData])
    for subscription in (
        market.subscribe("KRW-BTC", [DataType.TICKER, DataType.TRADE]),
        market.subscribe("KRW-BTC", ["ticker", "candle.1m"]),
        market.subscribe("KRW-BTC", kinds),
        market.subscribe("KRW-BTC", words),
        market.subscribe("KRW-BTC", kinds[0]),
        market.subscribe("KRW-BTC", words[0]),
    ):
        for item in subscription:
            use(item.symbol)  # what all of them have
            if isinstance(item, TradeData):
                use(item.price)

    def without_a_parameter(subscription: Subscription) -> None:
        use(subscription.stats)

    without_a_parameter(market.subscribe("KRW-BTC", "trade"))


def functions() -> None:
    """The module's functions have the methods' arguments."""
    assert_type(ub.get_ticker("KRW-BTC", realtime=True, max_age=1.0), TickerData)
    assert_type(ub.get_tickers(quote="KRW"), dict[str, TickerData])
    assert_type(ub.get_orderbook("KRW-BTC", 5), OrderbookData)
    listed: list[TradeData] = ub.get_trades("KRW-BTC", count=5)
    candles: list[CandleData] = ub.get_candles("KRW-BTC", "1m", 5, to="2026-01-01 09:00+09:00")
    use(listed, candles, ub.get_candles("KRW-BTC").to_dataframe())
    assert_type(ub.get_markets(), list[MarketInfo])
    ub.get_ticker("KRW-BTC", max_ags=1)  # type: ignore[call-arg]
    ub.get_candles("KRW-BTC", "1m", count="5")  # type: ignore[arg-type]


def the_rest(market: MarketDataBackbone) -> None:
    status: HealthStatus = market.health().status
    future: Future[TickerData] = market.submit(market.get_ticker, "KRW-BTC")
    text: str = TickerData.from_json(future.result().to_json()).symbol

    def tell(event: object) -> None:
        if isinstance(event, GapEvent):
            use(event.recovered, event.complete, event.late)

    market.on_event(tell).close()
    use(status, text, ub.get_ticker("KRW-BTC").current_price)


def main() -> None:
    config = BackboneConfig(region="sg", timeout_seconds=2.0)
    try:
        with MarketDataBackbone(config) as market:
            questions(market)
            streams(market)
            the_rest(market)
    except StaleDataError as error:
        use(error.last_known, error.age, error.retry_after)
    except BannedError as error:
        until: datetime | None = error.until
        use(until)
