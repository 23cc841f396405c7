"""Questions about one market, put to REST in the way that costs least over time."""

from __future__ import annotations

from .._concurrency import Deadline
from ..errors import InvalidRequestError, MessageTooBigError, ProtocolError, ServerError
from ..models.enums import RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest
from ..models.symbol import QUOTES
from ..rest.batching import Answers
from ..rest.client import RestClient
from ..rest.quote_lists import QuoteLists
from .markets import MarketDirectory


class RestChannel:
    """The first question about a quote currency, and every sweep over its markets, is one list of all of them.

    That list answers the question in the same single round trip, tells which markets exist, and answers whoever asks
    for the next market a moment later.
    """

    def __init__(self, rest: RestClient, directory: MarketDirectory, lists: QuoteLists) -> None:
        self._rest = rest
        self._directory = directory
        self._lists = lists

    def fetch(self, request: DataRequest, deadline: Deadline) -> TickerData | OrderbookData:
        """UnknownSymbolError for a market that does not exist, NoTradesYetError for one without a price,
        MalformedDataError where its row cannot be read; otherwise what `RestClient` raises."""
        if request.kind is RequestKind.ORDERBOOK:
            return self._orderbook(request, deadline)
        return self._ticker(request, deadline)

    def _ticker(self, request: DataRequest, deadline: Deadline) -> TickerData:
        symbol = request.symbol
        quote = symbol.partition("-")[0]
        is_first = not self._directory.knows(symbol)
        may_be_shared = request.max_age != 0  # a list under way left before this call
        if quote in QUOTES and may_be_shared and (request.is_sweep or is_first):
            found = self._all_of(quote, request, deadline)
            if symbol in found:
                return found[symbol]
            if symbol in found.refused:
                raise found.refused[symbol]
        self._directory.require((symbol,), deadline)
        answers = self._rest.tickers((symbol,), deadline=deadline, priority=request.priority, max_age=request.max_age)
        if symbol in answers.refused:
            raise answers.refused[symbol]
        if symbol not in answers:
            raise self._directory.verdict(symbol, deadline)
        return answers[symbol]

    def _all_of(self, quote: str, request: DataRequest, deadline: Deadline) -> Answers[TickerData]:
        try:
            return self._lists.tickers(quote, deadline=deadline, priority=request.priority, max_age=request.max_age)
        except MessageTooBigError:
            raise  # once is enough
        except (InvalidRequestError, ServerError, ProtocolError):
            return Answers()  # a region without this board, or only this endpoint is ill: ask for the one market

    def _orderbook(self, request: DataRequest, deadline: Deadline) -> OrderbookData:
        symbol = request.symbol
        self._directory.require((symbol,), deadline)
        symbols: tuple[str, ...] = (symbol,)
        if request.is_sweep:
            symbols = self._directory.listed(symbol.partition("-")[0]) or symbols
        answers = self._rest.orderbooks(
            symbols,
            levels=request.levels,
            level=request.level,
            deadline=deadline,
            priority=request.priority,
            max_age=request.max_age,
        )
        if symbol in answers:
            return answers[symbol]
        if symbol in answers.refused:
            raise answers.refused[symbol]
        if request.level:
            raise InvalidRequestError(
                f"order book of {symbol} with level={request.level}: Upbit does not group this market's prices so; "
                "level=0 is always possible"
            )
        raise self._directory.verdict(symbol, deadline)

    def __repr__(self) -> str:
        return f"<RestChannel {self._rest!r}>"
