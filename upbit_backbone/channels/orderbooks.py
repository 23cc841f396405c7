"""Many order books at once: what streams currently from memory, the rest by one request for each few hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .._concurrency import Clock, Deadline
from ..exchange.symbols import normalise_symbols
from ..models.enums import DataType, Priority, RequestKind
from ..models.market import OrderbookData
from ..models.request import DataRequest
from ..models.topic import Topic
from ..rest.client import RestClient
from ..store.live_store import LiveStore
from .markets import MarketDirectory
from .rest import AnswerCheck
from .stream import trimmed


class OrderbookSnapshot:
    """Thread-safe. `asked` is told which topics were not answered by a stream, so that they can be promoted."""

    def __init__(
        self,
        *,
        store: LiveStore,
        rest: RestClient,
        directory: MarketDirectory,
        check: AnswerCheck,
        asked: Callable[[Sequence[Topic]], None],
        clock: Clock,
        max_symbols: int,
    ) -> None:
        self._store = store
        self._rest = rest
        self._directory = directory
        self._check = check
        self._asked = asked
        self._clock = clock
        self._max_symbols = max_symbols

    def orderbooks(
        self, symbols: Iterable[str], levels: int, priority: Priority, max_age: float | None, deadline: Deadline
    ) -> dict[str, OrderbookData]:
        """By symbol, in the order given: every book, or an error."""
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
            for code in missing:
                if code in answers.refused:
                    raise answers.refused[code]
                if code not in answers:
                    raise self._directory.verdict(code, deadline)
                topic = Topic(DataType.ORDERBOOK, code)
                question = DataRequest(kind=RequestKind.ORDERBOOK, symbols=(code,), levels=levels)
                found[code] = self._check.checked(answers[code], topic, question, max_age)
        return {code: trimmed(found[code], levels) for code in codes}  # type: ignore[misc]  # books stay books

    def _live(self, code: str, max_age: float | None) -> OrderbookData | None:
        topic, now = Topic(DataType.ORDERBOOK, code), self._clock.monotonic()
        book, age = self._store.current(topic, now), self._store.age(topic, now)
        is_young = max_age is None or (age is not None and age <= max_age)
        return book if isinstance(book, OrderbookData) and is_young else None

    def __repr__(self) -> str:
        return f"<OrderbookSnapshot {self._directory!r}>"
