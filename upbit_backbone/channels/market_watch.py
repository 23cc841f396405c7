"""Market watch: what becomes of markets, told once each; and whole quote currencies, followed as they change.

Upbit says it in two places: its market list (listed, gone, names, warnings, cautions), which is asked for now and then,
and the streamed ticker (suspended, delisting date), which is looked at where one streams. The list proves no absence:
a market is gone once Upbit refuses it by name as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final, NamedTuple

from .._concurrency import Clock, Deadline, Flag, LoopThread, get_logger
from ..errors import ClosedError, UpbitBackboneError, one_line
from ..models.enums import DataType, Priority
from ..models.events import Event, MarketChange, MarketEvent
from ..models.market import MarketInfo, TickerData
from ..models.request import Topic
from .markets import MOST_ASKED, MarketDirectory

log = get_logger("upbit_backbone.markets")

# Told within thirty seconds of Upbit's saying so: one look, at a list that another process may have been given ten
# seconds ago; or a second look, soon, where a request failed.
LOOK_SECONDS: Final = 18.0
AGAIN_SECONDS: Final = 5.0
# Where no list was ever asked for, the first one is what later ones are compared with.
FIRST_LOOK_SECONDS: Final = 5.0
LIST_SECONDS: Final = 0.25  # how soon a list that somebody asks for is noticed
ASKING_SECONDS: Final = 5.0
ACTIVE: Final = "ACTIVE"
CAUTION: Final = "CAUTION"

StreamedTicker = Callable[[Topic], object]
# The markets of the quote currency that exist now; False where nobody follows them any more.
Follow = Callable[[Sequence[str]], bool]


class MarketFacts(NamedTuple):
    """What is known of one market. None: Upbit has not said."""

    name: str
    warning: bool | None = None
    cautions: frozenset[str] | None = None
    suspended: bool | None = None
    delisting: date | None = None


def facts_of(market: MarketInfo, ticker: TickerData | None, known: MarketFacts | None) -> MarketFacts:
    """What both places say together; what neither says now is as it was. Pure."""
    name = f"{market.korean_name or ''}/{market.english_name or ''}"
    warning, suspended, delisting = market.warning, None, None
    if ticker is not None:
        # Whoever says it first: the two may differ for a while, and a flag that goes up and down is none.
        warning = True if ticker.market_warning == CAUTION else warning
        suspended = bool(ticker.is_trading_suspended) or ticker.market_state not in (None, ACTIVE)
        delisting = ticker.delisting_date
    cautions = None if market.cautions is None else frozenset(market.cautions)
    if known is not None:
        warning = known.warning if warning is None else warning
        cautions = known.cautions if cautions is None else cautions
        suspended = known.suspended if suspended is None else suspended
        delisting = known.delisting if ticker is None else delisting
    return MarketFacts(name, warning, cautions, suspended, delisting)


Change = tuple[MarketChange, str | None, str | None]


def changes(before: MarketFacts, after: MarketFacts) -> list[Change]:
    """What happened between two looks: (change, before, after). What was never said before is no change, except what a
    ticker alone can say. Pure."""
    found: list[Change] = []
    if before.name != after.name:
        found.append((MarketChange.RENAMED, before.name, after.name))
    if after.warning != before.warning and before.warning is not None:
        found.append((MarketChange.WARNING_ON if after.warning else MarketChange.WARNING_OFF, None, None))
    if before.cautions is not None and after.cautions is not None:
        found += [(MarketChange.CAUTION_ON, None, flag) for flag in sorted(after.cautions - before.cautions)]
        found += [(MarketChange.CAUTION_OFF, flag, None) for flag in sorted(before.cautions - after.cautions)]
    if bool(before.suspended) != bool(after.suspended):
        found.append((MarketChange.SUSPENDED if after.suspended else MarketChange.RESUMED, None, None))
    if before.delisting != after.delisting:
        dates = (None if each is None else each.isoformat() for each in (before.delisting, after.delisting))
        found.append((MarketChange.DELISTING_DATE, *dates))  # type: ignore[arg-type]  # two of them
    return found


class MarketWatch:
    """Starts with the first listener or follower; looks on a thread of its own, which never runs users' code."""

    def __init__(
        self,
        directory: MarketDirectory,
        *,
        streamed: StreamedTicker,
        emit: Callable[[Event], object],
        clock: Clock,
        look_seconds: float = LOOK_SECONDS,
        first_look_seconds: float = FIRST_LOOK_SECONDS,
    ) -> None:
        self._directory = directory
        self._streamed = streamed
        self._emit = emit
        self._clock = clock
        self._look_seconds = look_seconds
        self._first_look_seconds = first_look_seconds
        self._pause = look_seconds  # until the next look
        self._known: dict[str, MarketFacts] = {}  # of the thread that looks
        # Replaced whole or appended to, and read by the thread that looks: single operations, so no lock.
        self._followers: list[tuple[str, Follow]] = []
        self._stop = Flag()
        self._loop = LoopThread(self._turn, "upbit-markets", is_over=self._stop.is_set)

    def start(self) -> None:
        """From now on changes are told. The list that is known, if any, is what they are changes of."""
        self._loop.ensure()

    def follow(self, quote: str, changed: Follow) -> None:
        """Call `changed(symbols)` with the markets of `quote` after every look, until it says False."""
        self._followers.append((quote, changed))
        self.start()

    def _turn(self) -> None:
        if not self._known:
            self._known = self._told(self._first_list())
            if self._known:
                self._tell_followers()  # some have waited for it
        if not self._stop.wait(self._pause if self._known else 0.0):
            is_told = self.look()
            self._pause = self._look_seconds if is_told else min(self._look_seconds, AGAIN_SECONDS)

    def _first_list(self) -> Sequence[MarketInfo]:
        """The list that somebody else asks for meanwhile, as soon as it is there; nothing where nobody does."""
        # As soon as: a program listens first and asks or follows a moment later, and what happens after that moment is
        # to be told, not to be what later looks are compared with.
        deadline = Deadline.after(self._first_look_seconds)
        while not (listed := self._directory.last) and not deadline.expired:
            if self._stop.wait(deadline.remaining_or(LIST_SECONDS)):
                break
        return listed

    def look(self) -> bool:
        """Ask for the list, look at the tickers, and tell what is new; whether there was a list. Raises nothing of
        ours."""
        deadline = Deadline.after(ASKING_SECONDS, self._clock.monotonic)
        try:
            listed = self._directory.refreshed(deadline, Priority.LOW)
            found = self._told(listed)
            # A list that lacks many is cut rather than true: the others are asked for next time.
            missing = [symbol for symbol in self._known if symbol not in found]
            gone = [symbol for symbol in missing[:MOST_ASKED] if self._directory.is_gone(symbol, deadline)]
        except ClosedError:
            return False
        except UpbitBackboneError as error:
            log.debug("markets not looked at", extra={"why": one_line(error)})
            return False
        known, self._known = (
            self._known,
            found | {symbol: self._known[symbol] for symbol in missing if symbol not in gone},
        )
        if not known:  # the first list: nothing has happened since
            self._tell_followers()
            return True
        for symbol in gone:
            self._tell(symbol, (MarketChange.DELISTED, None, None))  # before its followers let go of it
        for symbol in found.keys() & known.keys():
            for change in changes(known[symbol], found[symbol]):
                self._tell(symbol, change)
        self._tell_followers()
        for symbol in found:
            if symbol not in known:
                self._tell(symbol, (MarketChange.LISTED, None, found[symbol].name))
        return True

    def _told(self, listed: Sequence[MarketInfo]) -> dict[str, MarketFacts]:
        found: dict[str, MarketFacts] = {}
        for market in listed:
            ticker = self._streamed(Topic(DataType.TICKER, market.symbol))
            streamed = ticker if isinstance(ticker, TickerData) else None
            found[market.symbol] = facts_of(market, streamed, self._known.get(market.symbol))
        return found

    def _tell(self, symbol: str, change: Change) -> None:
        kind, before, after = change
        self._emit(MarketEvent(at=self._clock.wall(), symbol=symbol, change=kind, before=before, after=after))

    def _tell_followers(self) -> None:
        over = []
        for follower in tuple(self._followers):
            quote, changed = follower
            try:
                if not changed([symbol for symbol in self._known if symbol.startswith(f"{quote}-")]):
                    over.append(follower)
            except ClosedError:
                return
            except UpbitBackboneError as error:  # no room on the connections: told, and tried again with the next look
                log.warning("a new market not followed", extra={"quote": quote, "why": one_line(error)})
        for follower in over:
            self._followers.remove(follower)

    def close(self, deadline: Deadline) -> list[str]:
        """Stop looking; the thread's name if it still runs at the deadline."""
        self._stop.set()
        return self._loop.join(deadline)

    def __repr__(self) -> str:
        return f"<MarketWatch of {len(self._known)} markets, {len(self._followers)} followers>"
