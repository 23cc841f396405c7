"""Hub: who gets what, topics to mailboxes. Publishing takes no lock."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from .._concurrency import Deadline, get_logger
from ..errors import ClosedError, UpbitBackboneError
from ..models import events
from ..models.enums import Audience, Overflow
from ..models.lazy_book import Envelope, StoredItem
from ..models.request import SubscriptionRequest, Topic
from .consumer import Consumer, OnError
from .event_bus import EventBus, Listener
from .mailbox import Mailbox
from .subscription import NO_MARK, STRICT, AnyQueue, Forwarding, Subscription, SubscriptionId, check_arguments

if TYPE_CHECKING:
    from ..models.report import SubscriptionStats

log = get_logger("upbit_backbone.delivery")

DEFAULT_QUEUE_SIZE = 100_000
DELISTED = "Upbit has no such market any more; the subscription goes on without it"
CLOSE_SECONDS = 1.5  # of the two seconds within which whoever closes is done

# The current value of a live topic, undecoded, with the monotonic time it came; None where there is none.
Current = Callable[[Topic], Envelope | None]
Acquire = Callable[[str, Iterable[SubscriptionRequest]], object]
Release = Callable[[str], object]


class Hub:
    """Enters what the intake publishes into the mailboxes of those who subscribed to it.

    `current` gives new subscribers the value of topics that are live already. `want` and `release` tell the sessions
    which topics are needed; each request is taken back exactly once, however its subscription ends. `run_job` runs a
    callable on a background worker.
    """

    def __init__(
        self,
        bus: EventBus,
        *,
        current: Current = lambda topic: None,
        acquire: Acquire = lambda owner, requests: None,
        release: Release = lambda owner: None,
        run_job: Callable[[Callable[[], None]], object] | None = None,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        close_seconds: float = CLOSE_SECONDS,
        why_silent: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = bus
        self._current = current
        self._acquire_topics = acquire
        self._release_topics = release
        self._run_job = run_job
        self._queue_size = queue_size
        self._close_seconds = close_seconds
        self._why_silent = why_silent
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards _subscriptions, _closed and every change of _routes
        # Of readers only weak references, here and in the routes: a loop that was left by `break`, or a notebook's cell
        # run once more, leaves a subscription that nobody can read or close any more. It ends with the last reference.
        self._subscriptions: dict[str, Callable[[], Subscription | None]] = {}
        self._closed = False
        # Read without the lock: a route is replaced whole, never changed.
        self._routes: dict[Topic, tuple[ref[Mailbox], ...]] = {}

    # The stream's side

    def publish(
        self, topic: Topic, items: Iterable[StoredItem], *, to: Audience = Audience.EVERYONE, is_late: bool = False
    ) -> int:
        """Deliver items of one topic in their order; how many nobody subscribed to. With `is_late`, newer ones of it
        were delivered before."""
        arrival = self._clock()  # in the mailbox, however long it was parked before
        deliveries = [(topic, item, arrival) for item in items]
        # Without the lock, on the stream's thread: a subscriber who is being entered or taken out must not hold up the
        # others.
        mailboxes = self._mailboxes(topic)
        for mailbox in mailboxes:
            if to is Audience.EVERYONE or mailbox.is_strict is (to is Audience.STRICT):
                mailbox.put_many(deliveries, is_late=is_late)
        return 0 if mailboxes else len(deliveries)

    def refuse(self, topic: Topic, count: int) -> None:
        """So many items of the topic came and are not delivered: every subscriber's figures say so."""
        for mailbox in self._mailboxes(topic):
            mailbox.refuse(count)

    def publish_all(self, deliveries: Sequence[Envelope]) -> int:
        """Deliver what one read brought: each mailbox is entered once. How many items nobody subscribed to."""
        routes = self._routes
        if not routes:
            return len(deliveries)
        if len(deliveries) == 1:  # the dearest case of all: a wake-up for a single message
            mailboxes = routes.get(deliveries[0][0], ())
            for reference in mailboxes:
                if (mailbox_of_it := reference()) is not None:  # or its last reader has just gone
                    mailbox_of_it.put_many(deliveries)
            return 0 if mailboxes else 1
        unrouted = 0
        # One lock and one wake-up for each mailbox and read, not for each item: at 2,000 a second half of what a
        # message costs is waking up.
        shares: dict[ref[Mailbox], list[Envelope]] = {}
        latest, share = None, list[Envelope]()
        for delivery in deliveries:
            mailboxes = routes.get(delivery[0], ())
            if not mailboxes:
                unrouted += 1
            for mailbox in mailboxes:
                if mailbox is not latest:  # as a rule all of a read are for the same
                    latest, share = mailbox, shares.setdefault(mailbox, [])
                share.append(delivery)
        for reference, share in shares.items():
            mailbox_of_it = reference()
            if mailbox_of_it is not None:  # or its last reader has just gone
                mailbox_of_it.put_many(share)
        return unrouted

    def _mailboxes(self, topic: Topic) -> list[Mailbox]:
        return [mailbox for each in self._routes.get(topic, ()) if (mailbox := each()) is not None]

    # The subscribers' side

    def subscribe(
        self,
        requests: Iterable[SubscriptionRequest | Topic],
        *,
        overflow: Overflow | str | None = None,
        maxsize: int | None = None,
        queue: AnyQueue | None = None,
        callback: Callable[[Any], object] | None = None,
        on_error: OnError | None = None,
        on_event: Listener | None = None,
        levels: int | None = None,
        gap_order: str = "live",
        timeout: float | None = None,
        end: object = NO_MARK,
        may_be_empty: bool = False,
        make_mailbox: Callable[..., Mailbox] = Mailbox,
    ) -> Subscription:
        """A subscription to all of `requests`, entered before anything is sent to Upbit, current values first.

        `levels` cuts order books on delivery; `timeout` limits waiting for an item; `end` is put into `queue` at the
        end; `gap_order` is what comes first after a break; with `may_be_empty` it may be about nothing
        until `change`. Raises InvalidRequestError that names the argument, ClosedError after `close`, and whatever
        `want` raises; then nothing is left behind.
        """
        requested = tuple(
            dict.fromkeys(
                request if isinstance(request, SubscriptionRequest) else SubscriptionRequest(request)
                for request in requests
            )
        )
        policy = check_arguments(
            requested,
            overflow=overflow,
            maxsize=maxsize,
            queue=queue,
            callback=callback,
            on_error=on_error,
            on_event=on_event,
            gap_order=gap_order,
            timeout=timeout,
            end=end,
            may_be_empty=may_be_empty,
        )
        name = SubscriptionId(f"sub-{next(self._numbers)}")
        mailbox = make_mailbox(
            policy,
            self._queue_size if maxsize is None else int(maxsize),
            levels=levels,
            is_strict=gap_order == STRICT,
            name=name,
            report=lambda reason, dropped: self._overflowed(name, policy, reason, dropped),
            clock=self._clock,
        )
        forwarding = None if queue is None else Forwarding(queue, mailbox, end, self._close_seconds / 2)
        call = callback if forwarding is None else forwarding.forward
        at_end = None if forwarding is None else forwarding.mark_end
        consumer = None if call is None else self._consumer(name, mailbox, call, on_error, at_end)
        subscription = Subscription(
            name,
            requested,
            mailbox,
            consumer=consumer,
            release=self._release,
            close_seconds=self._close_seconds,
            timeout=timeout,
            forwarding=forwarding,
            why_silent=self._why_silent,
        )
        self._open(subscription, consumer, on_event)
        return subscription

    def unsubscribe(self, subscription_id: str) -> bool:
        """Close the subscription of that name; False if there is none (any more)."""
        subscription = self._named(subscription_id)  # no lock: also for finalizers and signal handlers
        if subscription is None:
            return False
        subscription.close()
        return True

    def change(self, subscription_id: str, requests: Iterable[SubscriptionRequest], why: str = DELISTED) -> bool:
        """Have a subscription be about `requests` from now on, and tell what has left it and `why`; False if it has
        ended.

        Raises what acquiring raises; then nothing has changed.
        """
        requested = tuple(dict.fromkeys(requests))
        topics = {request.topic for request in requested}
        with self._lock:
            subscription = self._named(subscription_id)
            if subscription is None or subscription.closed:
                return False
            before, had = subscription.requests, subscription.topics
            if topics == had:
                return True
            # As with a new subscription: entered before it is requested, so that no item is missed. What stays is not
            # touched, or the items of a moment would be nobody's.
            subscription.be_about(requested)
            self._route(topics - had, subscription.mailbox)
        try:
            self._want_for(subscription)
        except BaseException:
            with self._lock:
                subscription.be_about(before)
                self._unroute(topics - had, subscription.mailbox)
            raise
        with self._lock:
            self._unroute(had - topics, subscription.mailbox)
        if gone := sorted(map(str, had - topics)):
            self._events.emit(
                events.SubscriptionEvent(at=events.now(), topics=tuple(gone), reason=why, subscription=subscription.id)
            )
        return not subscription.closed

    def fail(self, subscription_id: str, error: UpbitBackboneError) -> None:
        """End the subscription of that name, if it still is, by an error that whoever reads it gets."""
        subscription = self.get(subscription_id)
        if subscription is None or subscription.closed:
            return
        topics = tuple(sorted(map(str, subscription.topics)))
        subscription.mailbox.fail(error)
        self._release(subscription)
        if not subscription.is_fed:  # its thread says so by itself
            log.error("%s ended: %s", subscription_id, error)
        self._events.emit(
            events.SubscriptionEvent(at=events.now(), topics=topics, reason=str(error), subscription=subscription_id)
        )

    def get(self, subscription_id: str) -> Subscription | None:
        with self._lock:
            return self._named(subscription_id)

    def _named(self, subscription_id: str) -> Subscription | None:
        found = self._subscriptions.get(subscription_id)
        return None if found is None else found()

    def _all(self) -> list[Subscription]:
        with self._lock:
            found = list(self._subscriptions.values())
        return [subscription for each in found if (subscription := each()) is not None]

    def stats(self) -> list[SubscriptionStats]:
        subscriptions = self._all()
        for subscription in subscriptions:
            # Outside the lock: it may start a thread.
            subscription.ensure()
        return [subscription.stats for subscription in subscriptions]

    def is_wanted(self, topic: Topic) -> bool:
        """Whether anybody subscribed to the topic."""
        return topic in self._routes

    def is_strict(self, topic: Topic) -> bool:
        """Whether a subscriber to it insists on strict order."""
        return any(mailbox.is_strict for mailbox in self._mailboxes(topic))

    @property
    def topics(self) -> frozenset[Topic]:
        """Topics somebody subscribed to."""
        with self._lock:
            return frozenset(self._routes)

    @property
    def has_subscribers(self) -> bool:
        """Takes no lock, for those who must not wait: finalizers run wherever garbage is collected."""
        return bool(self._subscriptions)

    def finish(self) -> None:
        """The source is over: every subscription ends when it has been read to its end."""
        for subscription in self._all():
            subscription.mailbox.end()

    def close(self, deadline: Deadline) -> list[str]:
        """End all subscriptions within one deadline; names of callback threads that would not stop."""
        with self._lock:
            self._closed = True
        subscriptions = self._all()
        for subscription in subscriptions:
            # First all, then the waiting: otherwise the callbacks of the last go on while the first are waited for.
            subscription.begin_close()
        return [name for subscription in subscriptions for name in subscription.finish_close(deadline)]

    # Within

    def _consumer(
        self,
        name: str,
        mailbox: Mailbox,
        callback: Callable[[Any], object],
        on_error: OnError | None,
        at_end: Callable[[], object] | None,
    ) -> Consumer:
        def on_failure(error: BaseException, in_a_row: int) -> None:
            self._events.emit(
                events.CallbackErrorEvent(at=events.now(), subscription=name, error=error, in_a_row=in_a_row)
            )

        return Consumer(mailbox, callback, f"upbit-{name}", on_error=on_error, on_failure=on_failure, at_end=at_end)

    def _open(self, subscription: Subscription, consumer: Consumer | None, on_event: Listener | None) -> None:
        """All or nothing: in the routes first, so that no item is missed, then current values, requests and thread."""
        try:
            # This order: entered before the current value is read, an item between the two comes twice and is sorted
            # out by the mailbox; the other way round it would be missed.
            self._enter(subscription)
            self._seed(subscription)
            if on_event is not None:
                subscription.listening = self._events.listen(on_event, wants=_wants(subscription))
            self._want_for(subscription)
            if consumer is not None:
                # Last, so that no callback runs for a subscription that is about to fail.
                consumer.start()
        except BaseException:
            subscription.close()
            raise

    def _enter(self, subscription: Subscription) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError("the backbone is closed; make a new one")
            self._subscriptions[subscription.id] = (lambda: subscription) if subscription.is_fed else ref(subscription)
            self._route(subscription.topics, subscription.mailbox)

    def _route(self, topics: Iterable[Topic], mailbox: Mailbox) -> None:
        """With the lock held, as what undoes it."""
        weak = ref(mailbox)
        for topic in topics:
            self._routes[topic] = (*self._routes.get(topic, ()), weak)

    def _unroute(self, topics: Iterable[Topic], mailbox: Mailbox) -> None:
        gone = (None, mailbox)
        for topic in topics:
            left = tuple(each for each in self._routes.get(topic, ()) if each() not in gone)
            if left:
                self._routes[topic] = left
            else:
                self._routes.pop(topic, None)

    def _seed(self, subscription: Subscription) -> None:
        current = [self._current(request.topic) for request in subscription.requests]
        subscription.mailbox.seed([delivery for delivery in current if delivery is not None])

    def _want_for(self, subscription: Subscription) -> None:
        self._acquire_topics(subscription.id, subscription.requests)
        # Looked at after the request was made: whoever closed it before that had nothing to take back.
        if subscription.id not in self._subscriptions:  # it has overflowed or was closed meanwhile
            self._release_topics(subscription.id)

    def _release(self, subscription: Subscription) -> None:
        """Take the subscription out and its requests back. Whatever interrupts it, it is done; twice is as once."""
        try:
            self._forget(subscription)
        except BaseException:
            self._forget(subscription)
            self._release_topics(subscription.id)
            raise

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._unroute(subscription.topics, subscription.mailbox)
            # Who takes it out is the one to release: of two that close at once only one does.
            was_there = self._subscriptions.pop(subscription.id, None) is not None
        if was_there:
            self._release_topics(subscription.id)

    def _overflowed(self, name: str, policy: Overflow | None, reason: str, dropped: int) -> None:
        word = "default" if policy is None else policy.value
        self._events.emit(
            events.OverflowEvent(at=events.now(), subscription=name, policy=word, dropped=dropped, reason=reason)
        )
        subscription = self.get(name)
        if subscription is None or not subscription.mailbox.failed:
            return
        # This is the stream's thread: changing requests is not its business, unless no other thread can be had.
        try:
            if self._run_job is not None:
                self._run_job(lambda: self._release(subscription))
                return
        except (ClosedError, RuntimeError) as error:
            log.debug("%s is released by the stream itself: %s", name, error)
        self._release(subscription)

    def __repr__(self) -> str:
        with self._lock:
            return f"<Hub {len(self._subscriptions)} subscriptions to {len(self._routes)} topics>"


def _wants(subscription: Subscription) -> Callable[[events.Event], bool]:
    """What the `on_event` of this subscription hears; without a reference to it, since it ends with the last one."""
    name, topics, held = subscription.id, subscription.topics, ref(subscription)

    def wants(event: events.Event) -> bool:
        present = held()
        return concerns(event, name, topics if present is None else present.topics)

    return wants


def concerns(event: events.Event, name: str, topics: Collection[Topic]) -> bool:
    """Whether the `on_event` of the subscription called `name` is told: what is about others is left out."""
    if isinstance(event, events.OverflowEvent | events.CallbackErrorEvent):
        return event.subscription == name
    if isinstance(event, events.GapEvent) and event.subscription:
        return event.subscription == name
    if isinstance(event, events.GapEvent):
        return any(topic.data_type is event.type and topic.symbol == event.symbol for topic in topics)
    if isinstance(event, events.StaleEvent):
        return not event.symbols or not {topic.symbol for topic in topics}.isdisjoint(event.symbols)
    if isinstance(event, events.MarketEvent):
        return any(topic.symbol == event.symbol for topic in topics)
    if isinstance(event, events.SubscriptionEvent) and event.subscription:
        return event.subscription == name
    if isinstance(event, events.SubscriptionEvent):
        return not {str(topic) for topic in topics}.isdisjoint(event.topics)
    return True
