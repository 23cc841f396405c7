"""Snapshots, many markets at once: what streams currently from memory, the rest by as few requests as possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import errors
from .._concurrency import Clock, Deadline, get_logger
from ..exchange.markets import normalise_quote, normalise_symbols
from ..models.enums import DataType, Priority, RequestKind
from ..models.market import OrderbookData, TickerData
from ..models.request import DataRequest, SubscriptionRequest, Topic
from ..rest.batching import Answers
from ..rest.client import RestClient
from ..store.live_store import LiveStore
from .markets import SHRINKS_BY, MarketDirectory
from .rest import AnswerCheck
from .stream import Acquire, Release, trimmed

log = get_logger("upbit_backbone.snapshots")

# From so many missing markets of one quote on, the list of all of them is the smaller question.
LIST_ALL_FROM = 20
REST_SHARE = 0.6  # of the time that is left; what remains is the stream's, which is asked where REST failed

Asked = Callable[[Sequence[Topic]], None]


class TickerSnapshot:
    """Thread-safe. `asked` is told which topics were not answered by a stream, so that they can be promoted; when a
    stream answered one stands in `last_asked`, so that it goes on."""

    def __init__(
        self,
        *,
        store: LiveStore,
        rest: RestClient,
        directory: MarketDirectory,
        check: AnswerCheck,
        asked: Asked,
        last_asked: dict[Topic, float],
        acquire: Acquire,
        release: Release,
        clock: Clock,
        max_symbols: int,
    ) -> None:
        self._store = store
        self._rest = rest
        self._directory = directory
        self._check = check
        self._asked = asked
        self._last_asked = last_asked
        self._acquire = acquire
        self._release = release
        self._clock = clock
        self._max_symbols = max_symbols

    def tickers(
        self,
        symbols: Iterable[str] | None,
        quote: str | None,
        priority: Priority,
        max_age: float | None,
        deadline: Deadline,
    ) -> dict[str, TickerData]:
        """By symbol, in the order given (of one quote: Upbit's): every wanted market that has a price and can be read,
        or an error. Where none is left, the error of the first."""
        if symbols is not None and quote is not None:
            raise errors.InvalidRequestError("give either symbols or quote=, not both")
        if symbols is not None:
            said = normalise_symbols(symbols, limit=self._max_symbols)
            codes: Sequence[str] = tuple(dict.fromkeys(self._directory.meant(code, deadline) for code in said))
        else:
            codes = self._directory.of_quote(None if quote is None else normalise_quote(quote), priority, deadline)
        found = self._live(codes, max_age)
        missing = [code for code in codes if code not in found]
        if missing:
            self._asked([Topic(DataType.TICKER, code) for code in missing])
            answers = self._fetch(missing, len(codes), symbols is not None, priority, max_age, deadline)
            found.update(answers)
            if not found and answers.refused:
                raise next(iter(answers.refused.values()))
        return {code: found[code] for code in codes if code in found}

    def _live(self, codes: Iterable[str], max_age: float | None) -> dict[str, TickerData]:
        now = self._clock.monotonic()
        found: dict[str, TickerData] = {}
        for code in codes:
            topic = Topic(DataType.TICKER, code)
            ticker = self._store.current(topic, now)
            age = self._store.age(topic, now)
            is_young = max_age is None or (age is not None and age <= max_age)
            if isinstance(ticker, TickerData) and is_young:
                found[code] = ticker
                self._last_asked[topic] = now
        return found

    def _fetch(
        self,
        missing: Sequence[str],
        wanted: int,
        are_named: bool,
        priority: Priority,
        max_age: float | None,
        deadline: Deadline,
    ) -> Answers[TickerData]:
        try:
            answers = self._by_rest(missing, are_named, priority, max_age, deadline.fraction(REST_SHARE))
            _check_whole(answers, wanted)
            return answers
        except (errors.InvalidRequestError, errors.ClosedError, errors.MessageTooBigError):
            raise
        except errors.UpbitBackboneError as error:
            # While this IP is banned nothing may be subscribed either: there is nothing to wait for.
            found = {} if isinstance(error, errors.BannedError) else self._by_stream(missing, deadline)
            if len(found) < len(missing):
                raise self._unanswered([code for code in missing if code not in found], error) from error
            return Answers((code, dataclasses.replace(ticker, degraded=True)) for code, ticker in found.items())

    def _by_rest(
        self, missing: Sequence[str], are_named: bool, priority: Priority, max_age: float | None, deadline: Deadline
    ) -> Answers[TickerData]:
        if are_named:
            self._directory.require(missing, deadline)
        by_quote: dict[str, list[str]] = {}
        for code in missing:
            by_quote.setdefault(code.partition("-")[0], []).append(code)
        whole = [quote for quote, codes in by_quote.items() if len(codes) >= LIST_ALL_FROM]
        singles = [code for quote, codes in by_quote.items() if quote not in whole for code in codes]
        found: dict[str, TickerData] = {}
        refused: dict[str, errors.UpbitBackboneError] = {}
        left_out: frozenset[str] = frozenset()
        if whole:
            listed = self._rest.tickers_of_quotes(whole, deadline=deadline, priority=priority, max_age=max_age)
            found, refused = {**listed}, {**listed.refused}
        if singles:
            named = self._rest.tickers(singles, deadline=deadline, priority=priority, max_age=max_age)
            found |= named
            refused |= named.refused
            left_out = named.left_out
        unlisted = [code for code in missing if code not in found and code not in refused and code not in singles]
        if unlisted:  # the list of a whole currency may be cut, so they are asked for by name
            asked_for = self._unlisted(unlisted, len(missing), are_named, priority, deadline)
            found |= asked_for
            refused |= asked_for.refused
            left_out |= asked_for.left_out
        unknown = [code for code in missing if code not in found and code not in refused]
        if unknown and are_named:
            raise self._directory.verdict(unknown[0], deadline)
        # Nobody named the others: they came from our list, which is older than their delisting.
        in_order = ((code, self._checked(found[code], max_age)) for code in missing if code in found)
        return Answers(in_order, {code: refused[code] for code in missing if code in refused}, left_out)

    def _checked(self, ticker: TickerData, max_age: float | None) -> TickerData:
        key = (DataType.TICKER.value, ticker.symbol)
        return self._check.checked(ticker, Topic(DataType.TICKER, ticker.symbol), key, max_age)

    def _unlisted(
        self, codes: Sequence[str], wanted: int, are_named: bool, priority: Priority, deadline: Deadline
    ) -> Answers[TickerData]:
        """The tickers that a list of a whole quote currency lacks. Nobody waits for the last few that nobody named: a
        market without a trade yet has none."""
        try:
            return self._rest.tickers(codes, deadline=deadline, priority=priority)
        except errors.ProtocolError:
            if are_named or len(codes) > max(1.0, SHRINKS_BY * wanted):
                raise
            return Answers()

    def _by_stream(self, missing: Sequence[str], deadline: Deadline) -> dict[str, TickerData]:
        """REST failed: request the topics and take each one's first frame."""
        asked_at = self._clock.monotonic()
        requests = [SubscriptionRequest(Topic(DataType.TICKER, code)) for code in missing]
        found: dict[str, TickerData] = {}
        me = object()
        try:
            self._acquire(me, requests)
            for request in requests:
                ticker = self._store.current(request.topic, self._clock.monotonic())
                if ticker is None:  # it may stream already, in a quiet market: then no frame will come
                    ticker = self._store.wait_newer(request.topic, asked_at, deadline)
                if isinstance(ticker, TickerData):
                    found[request.topic.symbol] = ticker
        finally:
            try:
                self._release(me)
            except BaseException:  # Ctrl-C on the way in: nobody would know of it any more
                self._release(me)
                raise
        self._directory.learn(found)
        return found

    def _unanswered(self, codes: Sequence[str], why: errors.UpbitBackboneError) -> errors.UpbitBackboneError:
        ever_seen = ((code, self._store.last_known(DataType.TICKER, code)) for code in codes)
        known = {code: ticker for code, ticker in ever_seen if ticker is not None}
        names = ", ".join(codes[:5]) + (f" and {len(codes) - 5} more" if len(codes) > 5 else "")
        if not known:
            return (
                why
                if isinstance(why, errors.BannedError)
                else errors.ChannelUnavailableError(
                    f"tickers of {names}: no channel can answer now ({why})", retry_after=why.retry_after
                )
            )
        now = self._clock.wall()
        age = max((now - (ticker.received_at or ticker.timestamp)).total_seconds() for ticker in known.values())
        return errors.StaleDataError(
            f"tickers of {names}: only values up to {age:.1f} s old are known, see .last_known ({why})",
            last_known=known,
            age=age,
            retry_after=why.retry_after,
        )

    def __repr__(self) -> str:
        return f"<TickerSnapshot {self._directory!r}>"


def _check_whole(answers: Answers[Any], wanted: int) -> None:
    """Raise where Upbit left out more than a few of what was asked for: one market may lack a row, but a cut answer is
    no answer. Who asks for one that is missing is told why."""
    left_out = answers.left_out
    if left_out and (len(left_out) > max(1.0, SHRINKS_BY * wanted) or len(left_out) == wanted):
        raise answers.refused[min(left_out)]
    if left_out:
        log.warning("markets left out of an answer", extra={"symbols": sorted(left_out)})


# Many order books at once: what streams currently from memory, the rest by one request for each few hundred.


class OrderbookSnapshot:
    """Thread-safe. `asked` and `last_asked` as in `TickerSnapshot`."""

    def __init__(
        self,
        *,
        store: LiveStore,
        rest: RestClient,
        directory: MarketDirectory,
        check: AnswerCheck,
        asked: Asked,
        last_asked: dict[Topic, float],
        clock: Clock,
        max_symbols: int,
    ) -> None:
        self._store = store
        self._rest = rest
        self._directory = directory
        self._check = check
        self._asked = asked
        self._last_asked = last_asked
        self._clock = clock
        self._max_symbols = max_symbols

    def orderbooks(
        self, symbols: Iterable[str], levels: int, priority: Priority, max_age: float | None, deadline: Deadline
    ) -> dict[str, OrderbookData]:
        """By symbol, in the order given: every book that can be read, or an error. Where none is left, the error of the
        first."""
        said = normalise_symbols(symbols, limit=self._max_symbols)
        codes = tuple(dict.fromkeys(self._directory.meant(code, deadline) for code in said))
        found = {code: book for code in codes if (book := self._live(code, max_age)) is not None}
        missing = [code for code in codes if code not in found]
        if missing:
            self._asked([Topic(DataType.ORDERBOOK, code) for code in missing])
            self._directory.require(missing, deadline)
            answers = self._rest.orderbooks(
                missing, levels=levels, deadline=deadline, priority=priority, max_age=max_age
            )
            _check_whole(answers, len(codes))
            for code in missing:
                if code in answers.refused:
                    continue
                if code not in answers:
                    raise self._directory.verdict(code, deadline)
                topic = Topic(DataType.ORDERBOOK, code)
                question = DataRequest(kind=RequestKind.ORDERBOOK, symbols=(code,), levels=levels)
                found[code] = self._check.checked(answers[code], topic, question, max_age)
            if not found:
                raise next(iter(answers.refused.values()))
        return {code: trimmed(found[code], levels) for code in codes if code in found}  # type: ignore[misc]  # books stay books

    def _live(self, code: str, max_age: float | None) -> OrderbookData | None:
        topic, now = Topic(DataType.ORDERBOOK, code), self._clock.monotonic()
        book, age = self._store.current(topic, now), self._store.age(topic, now)
        is_young = max_age is None or (age is not None and age <= max_age)
        if not isinstance(book, OrderbookData) or not is_young:
            return None
        self._last_asked[topic] = now
        return book

    def __repr__(self) -> str:
        return f"<OrderbookSnapshot {self._directory!r}>"
