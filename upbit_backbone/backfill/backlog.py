"""Backlog: what was before a subscription's live data, from where its subscriber said (`since=`).

That is a gap whose beginning somebody gave, so a `GapRepair` fills it: what comes live is parked meanwhile, trades are
told apart by id, and a receipt says what Upbit does not keep. It has trackers of its own, because other subscribers to
the same topic did not ask for its past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final
from weakref import ref

from .._arguments import Moment, as_whole, aware
from ..delivery.mailbox import Mailbox
from ..delivery.position import Mark, is_position, read_position
from ..errors import InvalidRequestError, UpbitBackboneError
from ..exchange.endpoints import MAX_DAYS_AGO
from ..exchange.fields import SHUFFLE
from ..exchange.timeframes import timeframe_of_stream
from ..models.enums import Audience, DataType
from ..models.lazy_book import Envelope
from ..models.request import Topic
from .gap_repair import GapRepair
from .sequence import ConnectionId, Start

TODAY: Final = "today"
# A busy market trades some hundred thousand times a day, and Upbit keeps a week of it.
MOST_ITEMS: Final = 2_000_000
# For so long live data waits for the past: order is what `since=` asks for, and a REST that fails may come back.
HOLD_SECONDS: Final = 3600.0
# Breaks of the line are healed before anything comes here, so all of a mailbox's life is one connection.
LINE: Final = ConnectionId("backlog", 1)


def starts_of(since: Moment | int, topics: Iterable[Topic], now: datetime) -> dict[Topic, Start]:
    """From where each topic's past is wanted; InvalidRequestError for what has none, or none that can be said so."""
    topics = tuple(topics)
    if is_position(since):
        marks = read_position(str(since), topics)
        # Two seconds before it, because trades overtake each other by as much; where it ends is told by its number.
        return {
            topic: Start(mark.moment - SHUFFLE, mark.number) if mark.number else Start(_start(topic, mark.moment))
            for topic, mark in marks.items()
        }
    for topic in topics:
        if topic.data_type is not DataType.TRADE and not topic.data_type.is_candle:
            raise InvalidRequestError(f"since={since!r}: {topic.data_type.value} has no past; trades and candles do")
    today = datetime.combine(now.astimezone(UTC).date(), time(), UTC)
    after_id = as_whole(since)
    if after_id is not None:
        if len(topics) > 1 or topics[0].data_type is not DataType.TRADE:
            raise InvalidRequestError(
                f"since={since!r}: an id is one trade's of one market; give a time for the others"
            )
        return {topics[0]: Start(today - timedelta(days=MAX_DAYS_AGO), after_id)}
    moment = today if isinstance(since, str) and since.strip().lower() == TODAY else _moment(since)
    if moment > now + SHUFFLE:
        raise InvalidRequestError(f"since={moment.isoformat()}: that is yet to come; at Upbit it is {now.isoformat()}")
    return {topic: Start(_start(topic, moment)) for topic in topics}


def _moment(since: object) -> datetime:
    try:
        return aware(since, "since")
    except InvalidRequestError as refusal:
        raise InvalidRequestError(
            f"{refusal}; or {TODAY!r}, a trade's sequential_id, or a subscription's position"
        ) from None


def _start(topic: Topic, moment: datetime) -> datetime:
    """A candle is told of from its period's start on."""
    return timeframe_of_stream(topic.data_type).floor(moment) if topic.data_type.is_candle else moment


class OwnTopic(Topic):
    """A topic as one subscription alone follows it, and equal to itself alone."""

    mailbox: ref[BacklogMailbox]  # weak: a subscription ends with the last reference to it

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class BacklogMailbox(Mailbox):
    """A mailbox that gives what was since its `starts` first. What the stream brings meanwhile waits in `repair`."""

    def __init__(self, *settings: Any, repair: GapRepair, starts: Mapping[Topic, Start], **more: Any) -> None:
        super().__init__(*settings, **more)
        self._repair = repair
        self._starts = starts
        self._own = {topic: OwnTopic(*topic) for topic in starts}
        for topic, own in self._own.items():
            own.mailbox = ref(self)
            repair.begin(own, starts[topic])

    def put_many(self, deliveries: Sequence[Envelope], *, is_late: bool = False) -> None:
        """As any mailbox's; each trade once, whether the past brings it or the stream."""
        if self.closed_by_user:
            return
        due: list[Envelope] = []
        for topic, item, arrival in deliveries:
            own = self._own.get(topic)
            if own is None:  # a position says nothing of it
                due.append((topic, item, arrival))
                continue
            given = self._repair.arrived(own, item, LINE, arrival)
            due.extend((topic, each, arrival) for each in given)
        if due:
            super().put_many(due, is_late=is_late)
        if self.closed:  # meanwhile, so that nobody would forget what was remembered just now
            self._forget()
        else:
            self._repair.work_if_needed()

    def seed(self, deliveries: Iterable[Envelope]) -> None:
        """The current values, of topics of which nothing has come by itself: the past ends before them."""
        deliveries = list(deliveries)
        super().seed([each for each in deliveries if each[0] not in self._own])
        followed = [each for each in deliveries if each[0] in self._own]
        self.put_many([each for each in followed if self._repair.last(self._own[each[0]]) is None])

    def marks(self) -> dict[Topic, Mark]:
        """Where nothing has come yet, it is where it began."""
        began = {
            topic: Mark.at(start.moment + SHUFFLE if start.after_id else start.moment, start.after_id)
            for topic, start in self._starts.items()
        }
        return began | super().marks()

    def deliver(self, topic: Topic, items: Sequence[Any]) -> None:
        """What `repair` has put in order: the past, and what waited for it."""
        now, public = self.now(), Topic(*topic)
        self.put_ahead([(public, item, now) for item in items])

    def fail(self, error: UpbitBackboneError) -> None:
        super().fail(error)
        self._forget()

    def close(self) -> None:
        super().close()
        self._forget()

    def _forget(self) -> None:
        if not self.is_foreign:
            for own in self._own.values():
                self._repair.forget(own)


def deliver(topic: Topic, items: Sequence[Any], *, to: Audience = Audience.EVERYONE, is_late: bool = False) -> None:
    """Give `items` to the one whose topic it is. Late ones, too, come before all that waits."""
    mailbox = _mailbox(topic)
    if mailbox is not None and to is not Audience.STRICT:  # who are others: a backlog has one reader
        mailbox.deliver(topic, items)


def owner(topic: Topic) -> str:
    """The name of the subscription whose topic it is."""
    mailbox = _mailbox(topic)
    return "" if mailbox is None else mailbox.name


def _mailbox(topic: Topic) -> BacklogMailbox | None:
    return topic.mailbox() if isinstance(topic, OwnTopic) else None
