"""Markets: which exist, the list that questions and subscriptions are checked against; and what Upbit allows in each.

Absence proves nothing: lists come cut short now and then. A list that lost more than a few per cent of what is known is
asked for again, and a market is refused only where the list lacks it *and* Upbit refuses it when asked for by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import ParamSpec, TypeVar, cast

from .. import errors
from .._concurrency import Clock, Deadline, clock_offset, get_logger
from .._lazy import nearest
from ..exchange.markets import Direction, normalise_quote, normalise_symbols, quote_of, rounded, step_at, swapped
from ..models.enums import Priority
from ..models.market import Instrument, MarketInfo
from ..rest.client import RestClient

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger("upbit_backbone.markets")

# A code missing from a list older than this may have been listed since: look again before refusing it.
RELIST_SECONDS = 10.0
SUGGESTIONS = 3
SHRINKS_BY = 0.03  # Upbit has never delisted more at once
MOST_ASKED = 5  # unknown symbols that are asked for by name; a question with more is refused for these already
# Checking a symbol is only the beginning of a question: it gets this part of its time, and never more than so long.
CHECKING_SHARE, CHECKING_SECONDS = 0.4, 3.0
# Where no list was to be had it is not waited for again so soon: a hundred subscriptions would each have waited two
# seconds for a REST that hangs.
GIVEN_UP_SECONDS = 5.0


class MarketDirectory:
    """Upbit's market list, loaded on first need and kept; a failed refresh keeps the last good list. Thread-safe.

    Symbols seen in any answer are known as well, so that a first ticker question needs no list.
    """

    def __init__(
        self,
        load: Callable[[Deadline, Priority], Sequence[MarketInfo]],
        *,
        refused: Callable[[str, Deadline], bool],
        max_age: float,
        clock: Clock,
    ) -> None:
        """`refused` asks Upbit for one market by name, and tells whether the answer was that there is none."""
        self._load = load
        self._refused = refused
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()  # guards the four attributes below; never held while loading
        self._markets: tuple[MarketInfo, ...] = ()
        self._loaded_at = float("-inf")
        self._clock_offset = 0.0  # at that time
        self._known: frozenset[str] = frozenset()
        self._given_up_until = float("-inf")  # no lock: replaced whole, and a second question does no harm

    def knows(self, symbol: str) -> bool:
        """Whether `symbol` was ever seen. No lock: the set is replaced whole."""
        return symbol in self._known

    def age(self) -> float | None:
        """Seconds since the list was loaded, None before the first time."""
        if self._loaded_at == float("-inf"):
            return None
        asleep = max(0.0, clock_offset(self._clock) - self._clock_offset)  # the monotonic clock stood still meanwhile
        return self._clock.monotonic() - self._loaded_at + asleep

    def learn(self, symbols: Iterable[str]) -> None:
        """These symbols exist: they were in an answer."""
        fresh = set(symbols) - self._known
        if fresh:
            with self._lock:
                self._known |= fresh

    def markets(
        self, deadline: Deadline, priority: Priority = Priority.NORMAL, max_age: float | None = None
    ) -> tuple[MarketInfo, ...]:
        """The whole list, at most `max_age` seconds old; an older one if Upbit does not give it now."""
        limit = self._max_age if max_age is None else max_age
        age = self.age()
        if age is not None and limit and age <= limit:
            return self._markets
        try:
            return self.refreshed(deadline, priority)
        except errors.ClosedError:
            raise
        except errors.UpbitBackboneError as error:
            if age is None:
                raise
            log.warning(
                "market list not refreshed, the last one is used", extra={"age": age, "why": errors.one_line(error)}
            )
            return self._markets

    def refreshed(self, deadline: Deadline, priority: Priority) -> tuple[MarketInfo, ...]:
        """The whole list, asked for now; raises where Upbit does not give it."""
        asked_at = self._clock.monotonic()
        markets = self._loaded(deadline, priority)
        with self._lock:
            self._markets = markets
            self._given_up_until = float("-inf")
            self._loaded_at = asked_at  # what came was true when it was asked for, however long it took
            self._clock_offset = clock_offset(self._clock)
            # A delisted market leaves the list and with it what we know.
            self._known = frozenset(market.symbol for market in markets)
        return markets

    def _loaded(self, deadline: Deadline, priority: Priority) -> tuple[MarketInfo, ...]:
        """A list that may be believed: whole as far as can be told, or told twice alike."""
        markets = self._listed(deadline, priority)
        if self._is_plausible(markets):
            return markets
        again = self._listed(deadline, priority)
        codes, others = ({each.symbol for each in one} for one in (markets, again))
        if again and (codes == others or self._is_plausible(again)):
            return again
        raise errors.MalformedDataError(
            f"the market list lacks most of what is known: {len(codes)} and {len(others)} markets of {len(self._known)}"
        )

    def _listed(self, deadline: Deadline, priority: Priority) -> tuple[MarketInfo, ...]:
        """Each market once, whatever Upbit says twice; of two rows of one market the later counts."""
        return tuple({market.symbol: market for market in self._load(deadline, priority)}.values())

    def _is_plausible(self, markets: Sequence[MarketInfo]) -> bool:
        missing = self._known.difference(market.symbol for market in markets)
        return bool(markets) and len(missing) <= SHRINKS_BY * len(self._known)

    def of_quote(self, quote: str | None, priority: Priority, deadline: Deadline) -> list[str]:
        """The markets priced in `quote`, in Upbit's order; InvalidRequestError if there are none."""
        markets = self.markets(deadline, priority)
        codes = [market.symbol for market in markets if quote is None or market.quote == quote]
        if not codes:
            known = ", ".join(sorted({market.quote for market in markets}))
            raise errors.InvalidRequestError(f"quote={quote!r}: no market is priced in it; there are {known}")
        return codes

    def is_gone(self, symbol: str, deadline: Deadline) -> bool:
        """Whether Upbit refuses a market by name as well, which the list lacks."""
        return self._refused(symbol, deadline)

    @property
    def last(self) -> tuple[MarketInfo, ...]:
        """The latest list, nothing before the first."""
        return self._markets

    def meant(self, code: str, deadline: Deadline | None) -> str:
        """The market that `code` says; the swapped one where only that exists ("BTC-KRW").

        Asks Upbit only for a code that looks swapped, and not without a `deadline`: for the list, and as a list may be
        cut, for the market as it is said. Where Upbit cannot be asked, the code is taken as it is said.
        """
        other = swapped(code)
        if other is None or code in self._known:
            return code
        is_gone = self._loaded_at != float("-inf")
        if deadline is not None:
            if self._has_given_up():
                return code
            checking = deadline.fraction(CHECKING_SHARE).sooner(CHECKING_SECONDS)
            try:
                self.markets(checking, max_age=RELIST_SECONDS)
                is_gone = other in self._known and code not in self._known and self._refused(code, checking)
            except errors.ClosedError:
                raise
            except errors.UpbitBackboneError as error:
                self._give_up()
                log.warning("a swapped symbol not looked up", extra={"why": errors.one_line(error)})
                return code
        return other if is_gone and other in self._known and code not in self._known else code

    def require(self, symbols: Sequence[str], deadline: Deadline) -> None:
        """Raise UnknownSymbolError, naming each, if one of `symbols` does not exist.

        Where neither the list nor a market itself can be asked for, nothing is refused: REST will answer for itself,
        and a stream without a first frame is reported. For some seconds after that nobody waits for them again.
        """
        if all(symbol in self._known for symbol in symbols) or self._has_given_up():
            return
        checking = deadline.fraction(CHECKING_SHARE).sooner(CHECKING_SECONDS)
        try:
            self.markets(checking, max_age=RELIST_SECONDS)
            unknown = [symbol for symbol in symbols if symbol not in self._known]
            gone = [symbol for symbol in unknown[:MOST_ASKED] if self._refused(symbol, checking)]
        except errors.ClosedError:
            raise
        except errors.UpbitBackboneError as error:
            self._give_up()
            log.warning("symbols not checked", extra={"why": errors.one_line(error)})
            return
        if gone:
            raise self._unknown([*gone, *unknown[MOST_ASKED:]])
        if unknown:
            log.warning("the market list lacks what exists", extra={"symbols": unknown[:MOST_ASKED]})
            self.learn(unknown[:MOST_ASKED])

    def _give_up(self) -> None:
        self._given_up_until = self._clock.monotonic() + GIVEN_UP_SECONDS

    def _has_given_up(self) -> bool:
        return self._clock.monotonic() < self._given_up_until

    def verdict(self, symbol: str, deadline: Deadline) -> errors.UpbitBackboneError:
        """The error for a market that Upbit has just refused by name: UnknownSymbolError if the list lacks it, too.

        Otherwise one of the two is wrong, which asking again may cure.
        """
        try:
            markets = self.markets(deadline.sooner(CHECKING_SECONDS), max_age=RELIST_SECONDS)
        except errors.UpbitBackboneError as error:
            log.warning("a refusal not checked: no market list", extra={"why": errors.one_line(error)})
            markets = self._markets
        # Or has shown it in another answer since: then the list was cut.
        if symbol in self._known or any(market.symbol == symbol for market in markets):
            return errors.ServerError(f"{symbol}: Upbit answers that there is no such market, but lists it; ask again")
        return self._unknown([symbol])

    def vetted(self, page: Callable[P, list[T]]) -> Callable[P, list[T]]:
        """`page(symbol, …, deadline=)`, but a refusal of its symbol counts only if the list agrees; see `verdict`."""

        def asked(*args: P.args, **options: P.kwargs) -> list[T]:
            try:
                return page(*args, **options)
            except errors.UnknownSymbolError as error:
                symbol, deadline = cast("tuple[str, Deadline]", (args[0], options["deadline"]))
                raise self.verdict(symbol, deadline) from error

        return asked

    def listed(self, quote: str | None = None) -> tuple[str, ...]:
        """The known symbols of one quote currency, or all, in Upbit's order where the list was loaded."""
        order = tuple(market.symbol for market in self._markets) or tuple(sorted(self._known))
        return order if quote is None else tuple(each for each in order if each.startswith(f"{quote}-"))

    def _unknown(self, unknown: Sequence[str]) -> errors.UnknownSymbolError:
        near = [match for symbol in unknown[:SUGGESTIONS] for match in nearest(symbol, self._known, most=2)]
        hint = f"; did you mean {', '.join(dict.fromkeys(near))}?" if near else "; see get_markets()"
        names = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        return errors.UnknownSymbolError(f"Upbit has no market {names}{hint}", symbols=unknown, suggestions=near)

    def __repr__(self) -> str:
        age = self.age()
        loaded = "never loaded" if age is None else f"loaded {age:.0f} s ago"
        return f"<MarketDirectory {len(self._known)} markets, {loaded}>"


# Instruments: what Upbit allows in each market, the step of its prices and the groupings of its book.


class Instruments:
    """Thread-safe, without state of its own: what was asked lately is in REST's cache."""

    def __init__(self, rest: RestClient, directory: MarketDirectory, *, max_symbols: int) -> None:
        self._rest = rest
        self._directory = directory
        self._max_symbols = max_symbols

    def instruments(
        self, symbols: Iterable[str] | None, quote: str | None, priority: Priority, deadline: Deadline
    ) -> dict[str, Instrument]:
        """By symbol, in the order given (of a quote: Upbit's): each that can be read; where none is left, an error."""
        if symbols is not None and quote is not None:
            raise errors.InvalidRequestError("give either symbols or quote=, not both")
        if symbols is None:
            wanted = None if quote is None else normalise_quote(quote)
            listed = self._directory.markets(deadline, priority)
            codes: Sequence[str] = [each.symbol for each in listed if wanted is None or each.quote == wanted]
            if not codes:
                raise errors.InvalidRequestError(f"quote={quote!r}: no market is priced in it")
        else:
            codes = normalise_symbols(symbols, limit=self._max_symbols)
            codes = tuple(dict.fromkeys(self._directory.meant(code, deadline) for code in codes))
            self._directory.require(codes, deadline)
        found = self._rest.instruments(codes, deadline=deadline, priority=priority)
        if not found and found.refused:
            raise next(iter(found.refused.values()))
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
            except errors.ClosedError:
                raise
            except (errors.UpbitBackboneError, ValueError) as error:
                if step is None:
                    raise
                log.warning("a tick size taken from the table", extra={"symbol": symbol, "why": errors.one_line(error)})
        if step is None:
            raise errors.InvalidRequestError(
                f"{symbol}: neither Upbit nor our table tells how {quote_of(symbol)} prices step"
            )
        return rounded(price, step, direction)

    def __repr__(self) -> str:
        return f"<Instruments {self._directory!r}>"
