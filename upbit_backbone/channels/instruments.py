"""Instruments: what Upbit allows in each market, the step of its prices and the groupings of its book."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from .._concurrency import Deadline, get_logger
from ..errors import ClosedError, InvalidRequestError, UpbitBackboneError, one_line
from ..exchange.symbols import normalise_quote, normalise_symbols, quote_of
from ..exchange.ticks import Direction, rounded, step_at
from ..models.enums import Priority
from ..models.market import Instrument
from ..rest.client import RestClient
from .markets import MarketDirectory

log = get_logger("upbit_backbone.markets")


class Instruments:
    """Thread-safe, without state of its own: what was asked lately is in REST's cache."""

    def __init__(self, rest: RestClient, directory: MarketDirectory, *, max_symbols: int) -> None:
        self._rest = rest
        self._directory = directory
        self._max_symbols = max_symbols

    def instruments(
        self, symbols: Iterable[str] | None, quote: str | None, priority: Priority, deadline: Deadline
    ) -> dict[str, Instrument]:
        """By symbol, in the order given (of a quote: Upbit's)."""
        if symbols is not None and quote is not None:
            raise InvalidRequestError("give either symbols or quote=, not both")
        if symbols is None:
            wanted = None if quote is None else normalise_quote(quote)
            listed = self._directory.markets(deadline, priority)
            codes: Sequence[str] = [each.symbol for each in listed if wanted is None or each.quote == wanted]
            if not codes:
                raise InvalidRequestError(f"quote={quote!r}: no market is priced in it")
        else:
            codes = normalise_symbols(symbols, limit=self._max_symbols)
            codes = tuple(dict.fromkeys(self._directory.meant(code, deadline) for code in codes))
            self._directory.require(codes, deadline)
        found = self._rest.instruments(codes, deadline=deadline, priority=priority)
        return {code: found[code] for code in codes if code in found}

    def rounded(
        self, symbol: str, price: Decimal, direction: Direction, present: Callable[[str], Decimal], deadline: Deadline
    ) -> Decimal:
        """`price` on the grid of `symbol`; `present` tells the market's present price, which the endpoint speaks of."""
        known = step_at(symbol, price)
        step = None if known is None else known[1]
        if known is None or step_at(symbol, present(symbol))[0] == known[0]:  # type: ignore[index]  # one table for both
            try:
                (instrument,) = self.instruments((symbol,), None, Priority.NORMAL, deadline).values()
                step = instrument.tick_size or step
            except ClosedError:
                raise
            except (UpbitBackboneError, ValueError) as error:
                if step is None:
                    raise
                log.warning("a tick size taken from the table", extra={"symbol": symbol, "why": one_line(error)})
        if step is None:
            raise InvalidRequestError(f"{symbol}: neither Upbit nor our table tells how {quote_of(symbol)} prices step")
        return rounded(price, step, direction)

    def __repr__(self) -> str:
        return f"<Instruments {self._directory!r}>"
