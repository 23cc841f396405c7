"""Subscription: what a subscriber holds; an iterator, a queue, a context manager, or the handle of a callback."""

from __future__ import annotations

import contextlib
import queue
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from queue import PriorityQueue, Queue, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Self

from .._arguments import whole_number
from .._concurrency import Deadline, calls_users, check_timeout, is_interrupting, spawn_unwaited
from .._lazy import loading
from ..errors import InvalidRequestError
from ..models.enums import DataType, Overflow
from ..models.lazy_book import Datum
from ..models.request import SubscriptionRequest
from .consumer import Consumer
from .event_bus import Listening
from .mailbox import Mailbox, MailboxClosedError, NothingArrivedError
from .position import write_position

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal
    from typing import Literal, TypeAlias, TypedDict

    from typing_extensions import TypeVar

    from .._arguments import Moment
    from ..models.enums import DataStrategy
    from ..models.report import SubscriptionStats

    # What comes. The default is for those who write the class without it; known to type checkers before Python 3.13.
    T_co = TypeVar("T_co", covariant=True, default=Datum)

    # What `subscribe` gives is told by what was asked for, member or word, alone or in a list of one kind.
    TickerKind: TypeAlias = Literal[DataType.TICKER, "ticker"]
    TradeKind: TypeAlias = Literal[DataType.TRADE, "trade"]
    OrderbookKind: TypeAlias = Literal[DataType.ORDERBOOK, "orderbook"]
    CandleKind: TypeAlias = Literal[
        DataType.CANDLE_1S, DataType.CANDLE_1M, DataType.CANDLE_3M, DataType.CANDLE_5M, DataType.CANDLE_10M,
        DataType.CANDLE_15M, DataType.CANDLE_30M, DataType.CANDLE_60M, DataType.CANDLE_240M,
        "candle.1s", "candle.1m", "candle.3m", "candle.5m", "candle.10m", "candle.15m", "candle.30m", "candle.60m",
        "candle.240m", "1s", "1m", "3m", "5m", "10m", "15m", "30m", "1h", "60m", "4h", "240m",
    ]  # fmt: skip
    Symbols: TypeAlias = str | Iterable[str]
    Strategy: TypeAlias = (
        DataStrategy | Literal["auto", "rest_only", "websocket_only", "prefer_rest", "prefer_websocket", "cache_ok"]
    )
    T = TypeVar("T")
    OneOrMore: TypeAlias = T | Iterable[T]

    class SubscribeOptions(TypedDict, total=False):
        """The keyword arguments of `MarketDataBackbone.subscribe`."""

        overflow: Overflow | str | None
        maxsize: int | None
        queue: Queue[Any] | SimpleQueue[Any] | None
        levels: int | None
        level: Decimal | int | str
        gap_order: Literal["live", "strict"]
        timeout: float | None
        end: object
        since: Moment | int | None
        quote: str | None
        on_event: Callable[[Any], object] | None

else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

# What can be asked of a subscription, and what cannot: refused in words, before anything is entered anywhere.

# What comes first after a break: live data, or order.
LIVE, STRICT = "live", "strict"

# Nothing is put into the user's queue at the end, None neither, unless he names a mark.
NO_MARK: Any = object()


def check_arguments(
    requests: Sequence[SubscriptionRequest],
    *,
    overflow: Overflow | str | None = None,
    maxsize: int | None = None,
    queue: object = None,
    callback: object = None,
    on_error: object = None,
    on_event: object = None,
    gap_order: object = LIVE,
    timeout: float | None = None,
    end: object = NO_MARK,
    may_be_empty: bool = False,
) -> Overflow | None:
    """The policy meant by `overflow`; InvalidRequestError that names what a hub could not work with."""
    if not requests and not may_be_empty:
        raise InvalidRequestError("nothing to subscribe to: name at least one symbol and one data type")
    for name, value in (("callback", callback), ("on_error", on_error), ("on_event", on_event)):
        if value is not None and not callable(value):
            raise InvalidRequestError(f"{name}={value!r}: expected something that can be called")
    if queue is not None and callback is not None:
        raise InvalidRequestError("callback= and queue= exclude each other; subscribe twice to have both")
    if queue is not None:
        _check_queue(queue)
    if timeout is not None:
        check_timeout(timeout)
    if end is not NO_MARK and queue is None:
        raise InvalidRequestError(f"end={end!r}: an end mark goes into a queue of your own; give queue= as well")
    if maxsize is not None:
        whole_number(maxsize, "maxsize", low=1, more=", or None for the default")
    if gap_order not in (LIVE, STRICT):
        raise InvalidRequestError(f"gap_order={gap_order!r}: expected {LIVE!r} or {STRICT!r}")
    return _check_overflow(overflow)


def _check_overflow(overflow: Overflow | str | None) -> Overflow | None:
    if overflow is None:
        return None
    try:
        return Overflow(overflow)
    except ValueError:
        words = ", ".join(f"Overflow.{each.name}" for each in Overflow)
        raise InvalidRequestError(f"overflow={overflow!r}: expected one of {words}") from None


def _check_queue(target: object) -> None:
    is_queue = isinstance(target, Queue | SimpleQueue)
    if not is_queue or isinstance(target, PriorityQueue | Mailbox):
        raise InvalidRequestError(
            f"queue={type(target).__name__}: expected a queue.Queue, queue.LifoQueue or queue.SimpleQueue"
        )


# What a subscription is about that follows a quote currency, until there is a market list.
NO_MARKETS = "no market list yet"
# For so long a loop waits for its first item in silence.
SILENCE_SECONDS = 10.0
# Who asks so briefly asks again and again, and needs no reason each time: it costs more than the look itself.
POLLED_SECONDS = 1.0

# A full queue of the user's cannot be woken by us; closing is noticed between two such waits.
FORWARD_SLICE_SECONDS = 0.25

AnyQueue = queue.Queue[Any] | queue.SimpleQueue[Any]


class SubscriptionId(str):
    """Names one subscription; give it to `unsubscribe`."""

    __slots__ = ()


class Subscription(Generic[T_co]):
    """Live data for one consumer.

    Read it with a `for` loop, `get(timeout=)` or `.queue`; or hand in a callback or a queue of your own, and items
    come by themselves. `close()` (or leaving the `with` block) ends it: loops finish, waiting `get`s raise ClosedError
    at once, and no callback begins after it has returned. Several threads may read one subscription; each item goes to
    one of them. One that is read by its holder ends with the last reference to it (or to its queue or iterator); one
    with a callback or a queue of your own lives until it is closed.
    """

    def __init__(
        self,
        subscription_id: SubscriptionId,
        requests: tuple[SubscriptionRequest, ...],
        mailbox: Mailbox,
        *,
        consumer: Consumer | None,
        release: Callable[[Subscription[Any]], None],
        close_seconds: float,
        timeout: float | None = None,
        forwarding: Forwarding | None = None,
        why_silent: Callable[[], str] = lambda: "",
    ) -> None:
        self.id = subscription_id
        self.be_about(requests)
        self.mailbox = mailbox
        self._consumer = consumer
        self._release = release
        self._close_seconds = close_seconds
        self._timeout = timeout
        self._forwarding = forwarding
        self._why_silent = why_silent
        self._has_begun = False  # a loop has got its first item, or was told that none comes
        self._is_released = False
        self.listening: Listening | None = None  # to events, where the subscriber wants them

    def be_about(self, requests: tuple[SubscriptionRequest, ...]) -> None:
        """Note what it is for; whoever follows a quote currency changes it."""
        self.requests = requests
        self.topics = frozenset(request.topic for request in requests)

    @property
    def queue(self) -> Queue[T_co]:
        """The subscription's own bounded `queue.Queue`. Whoever holds it keeps the subscription alive."""
        self.mailbox.owner = self
        return self.mailbox

    @property
    def is_fed(self) -> bool:
        """Whether a thread of its own empties it, into a callback or a queue of the subscriber's."""
        return self._consumer is not None

    def get(self, timeout: float | None = None) -> T_co:
        """The next item; RequestTimeoutError (also `queue.Empty`) after `timeout` seconds (default: the subscription's
        own, None waits for ever), ClosedError once closed."""
        self._check_readable()
        timeout = self._timeout if timeout is None else timeout
        try:
            return self.mailbox.get(timeout=timeout)  # type: ignore[return-value]  # of the topics asked for
        except NothingArrivedError as late:
            if timeout is not None and timeout < POLLED_SECONDS:
                raise
            raise self._nothing_arrived() from late

    def __iter__(self) -> Iterator[T_co]:
        self._check_readable()
        return self

    def __next__(self) -> T_co:
        try:
            timeout = self._timeout if self._has_begun else self._begin()
            return self.mailbox.get(timeout=timeout)  # type: ignore[return-value]  # of the topics asked for
        except NothingArrivedError as late:
            raise self._nothing_arrived() from late
        except MailboxClosedError:
            # And no other ClosedError: a loop that came along into a forked child must not just end.
            raise StopIteration from None

    def _nothing_arrived(self) -> NothingArrivedError:
        return NothingArrivedError(
            f"{self.id}: nothing arrived on the subscription by the deadline ({self._topics_in_words()}); "
            f"{self._why_silent()}"
        )

    def _begin(self) -> float | None:
        """Wait for the first item, and say so where none comes: a loop without a network shows nothing at all.

        Gives what is left of the loop's own timeout.
        """
        whole = Deadline.after(self._timeout)
        is_there = self.mailbox.wait_news(whole.sooner(SILENCE_SECONDS))
        if is_there or whole.expired:
            self._has_begun = is_there
            return whole.remaining()  # where none came, the loop's own timeout says it
        self._has_begun = True
        warnings.warn(
            f"{self.id}: nothing has come for {SILENCE_SECONDS:.0f} s ({self._topics_in_words()}); "
            f"{self._why_silent()}. The loop goes on waiting; subscribe(…, timeout=) gives it an end, market.health() "
            "tells more",
            stacklevel=3,
        )
        return whole.remaining()

    def _topics_in_words(self) -> str:
        topics = sorted(map(str, self.topics)) or [NO_MARKETS]
        return ", ".join(topics[:3]) + (f" and {len(topics) - 3} more" if len(topics) > 3 else "")

    def close(self, timeout: float | None = None) -> None:
        """End the subscription. Idempotent, from any thread and from its own callback.

        Waits for a callback under way, but not longer than `timeout` (default: the configured close timeout). Called
        from a finalizer, a weakref callback or a signal handler that interrupts this library, it waits for nothing:
        the subscription counts as closed, and a thread of its own does the rest.
        """
        try:
            deadline = Deadline.after(self._close_seconds if timeout is None else timeout)
        finally:  # whatever interrupts it: once begun, it is done
            is_interrupting_us = is_interrupting()
            if is_interrupting_us:
                self.mailbox.begin_close()
                spawn_unwaited(self.begin_close, f"upbit-closing-{self.id}")
            else:
                self.begin_close()
        if is_interrupting_us:
            return
        self.finish_close(deadline)

    def begin_close(self) -> None:
        """The first half of `close`: nothing more is delivered, nobody is waited for."""
        if self.mailbox.is_foreign:
            return
        # The mailbox before the request: the other way round what still arrives would be delivered to somebody who has
        # left.
        try:
            self.mailbox.close()
            if self.listening is not None:
                self.listening.begin_close()
        finally:
            self._is_released = True
            try:
                self._release(self)
            except BaseException:  # Ctrl-C on the way in: nobody would know of it any more
                self._release(self)
                raise

    def finish_close(self, deadline: Deadline) -> list[str]:
        """The second half: wait for the calls under way; names of threads that are still running."""
        if self.mailbox.is_foreign:
            return []
        running = [] if self._consumer is None else self._consumer.stop(deadline)
        return running if self.listening is None else running + self.listening.finish_close(deadline)

    def __del__(self) -> None:
        # Nobody can read it any more, nor close it. A callback's is held by the hub, and by its own thread to the end.
        if getattr(self, "_is_released", True) or self.is_fed or sys.is_finalizing():
            return
        self.mailbox.begin_close()
        if is_interrupting():  # garbage is collected wherever it happens to be, perhaps under the hub's own lock
            spawn_unwaited(self.begin_close, f"upbit-closing-{self.id}")
        else:
            self.begin_close()

    def ensure(self) -> None:
        """Have the callback's thread replaced, if that has died and there was none to replace it then."""
        if self._consumer is not None:
            self._consumer.ensure()

    @property
    def closed(self) -> bool:
        """Whether nothing more can come: it was closed, or has ended and was read to its end."""
        return self.mailbox.closed

    @property
    def position(self) -> str:
        """How far you have come, for `subscribe(…, since=)`, also in another run of the program: with it you get what
        came after the last trade and candle of each market that this subscription has given you, or your queue, each
        once and in order. A text of some fifty characters a market; write it down with what you made of the item.

        Order books and tickers have no past, and none is kept of them. What comes late after a break (`late=True`) is
        behind a position already; with `gap_order="strict"` nothing comes late.
        """
        return write_position(self.mailbox.marks())

    @property
    def stats(self) -> SubscriptionStats:
        """Counters at one moment: received == delivered + dropped + pending."""
        with loading():
            from ..models.report import SubscriptionStats

        received, delivered, dropped, pending = self.mailbox.counts()
        overflow = self.mailbox.overflow
        return SubscriptionStats(
            subscription=self.id,
            topics=len(self.topics),
            policy=overflow.value if overflow is not None else self._default_policy(),
            received=received,
            delivered=delivered,
            dropped=dropped,
            pending=pending,
            lag=self.mailbox.lag,
            errors=0 if self._consumer is None else self._consumer.errors,
            closed=self.closed,
            lost=self.mailbox.lost,
            ahead_of_end=None if self._forwarding is None else self._forwarding.ahead_of_end,
        )

    def _default_policy(self) -> str:
        has_trades = any(topic.data_type is DataType.TRADE for topic in self.topics)
        has_states = any(topic.data_type is not DataType.TRADE for topic in self.topics)
        return "+".join(word for word, is_used in (("conflate", has_states), ("drop_oldest", has_trades)) if is_used)

    def _check_readable(self) -> None:
        if self._consumer is not None:
            raise InvalidRequestError(
                f"{self.id} delivers to its callback or queue; subscribe without one to read it yourself"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        received, delivered, dropped, pending = self.mailbox.counts()
        state = "closed" if self.closed else "open"
        return (
            f"<Subscription {self.id} {state}, {len(self.topics)} topics: "
            f"{received} received, {delivered} delivered, {dropped} dropped, {pending} pending>"
        )


class Forwarding:
    """Moves items on into the user's queue, and an end mark after the last, if one was asked for.

    A full queue makes our own mailbox wait, and there the overflow policy decides; closing interrupts it.
    """

    def __init__(self, target: AnyQueue, mailbox: Mailbox, end: object = NO_MARK, patience: float = 0.0) -> None:
        self._target = target
        self._mailbox = mailbox
        self._end = end
        self._patience = patience  # seconds in which a full queue may make room for the mark
        self.ahead_of_end: int | None = None  # items in front of the mark when it was put in

    @calls_users
    def forward(self, item: Any) -> None:
        if isinstance(self._target, queue.SimpleQueue):
            self._target.put(item)
            return
        while not self._mailbox.closed_by_user:
            try:
                self._target.put(item, timeout=FORWARD_SLICE_SECONDS)
            except queue.Full:
                continue
            return

    @calls_users
    def mark_end(self) -> None:
        """Nothing follows. Who would otherwise wait for ever is told; workers hand the mark on to each other."""
        if self._end is NO_MARK:
            return
        deadline = Deadline.after(self._patience)
        while not self._is_marked(deadline):
            # Nobody reads, or not in time. The mark must get in, or whoever comes later waits for ever: it takes the
            # place of the oldest item, which counts as dropped.
            with contextlib.suppress(queue.Empty):
                self._target.get_nowait()
                self._mailbox.take_back(1)

    def _is_marked(self, deadline: Deadline) -> bool:
        while True:
            ahead = self._target.qsize()
            with contextlib.suppress(queue.Full):
                self._target.put(self._end, timeout=deadline.remaining_or(FORWARD_SLICE_SECONDS))
                self.ahead_of_end = ahead
                return True
            if deadline.expired:
                return False
