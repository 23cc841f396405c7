from __future__ import annotations

import queue
import threading
import time

import pytest

from upbit_backbone._concurrency import Deadline
from upbit_backbone.errors import ChannelUnavailableError, InvalidRequestError
from upbit_backbone.exchange import endpoints
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import ConnectionEvent, SubscriptionEvent
from upbit_backbone.models.topic import SubscriptionRequest, Topic
from upbit_backbone.recorder import Recorder, Recording, ReplayClock, ReplaySource, ReplayTransport, TappedTransport

BITCOIN = Topic(DataType.TRADE, "KRW-BTC")
ANY = Deadline.after(5.0)


class Sink:
    """Writes down what it is given, with the clock's time."""

    def __init__(self, clock):
        self.clock = clock
        self.seen = []

    def frames(self, health, epoch, frames, monotonic):
        self.seen.append(("frames", health.session, epoch, frames, self.clock.wall()))
        return ()

    def subscribed(self, health, epoch, topics):
        self.seen.append(("subscribed", health.session, epoch, sorted(map(str, topics)), health.connected))

    def interrupted(self, health, epoch, topics, reason):
        self.seen.append(("interrupted", health.session, epoch, reason, health.connected))


@pytest.fixture
def play():
    """play(path, **options) -> (source, sink); sources are closed at the end"""
    sources = []

    def start(path, **options):
        clock = ReplayClock()
        sink = Sink(clock)
        source = ReplaySource(Recording(path), sink, clock=clock, **options)
        sources.append(source)
        return source, sink

    yield start
    for source in sources:
        assert source.close(Deadline.after(2.0)) == []


def test_the_sink_sees_what_it_saw_then_with_the_times_of_then(make_recording, play):
    from datetime import UTC, datetime

    source, sink = play(make_recording(20), speed=None)
    source.acquire([SubscriptionRequest(BITCOIN)])
    assert source.wait(Deadline.after(5.0))
    assert sink.seen[0] == ("subscribed", "upbit-session-1", 1, ["ticker:KRW-ETH", "trade:KRW-BTC"], True)
    assert sink.seen[5][3] == [b'{"number":4}', bytes([4, 0, 10, 255])]
    assert sink.seen[5][4] == datetime(2026, 11, 20, 5, 0, 0, 40_000, tzinfo=UTC)
    assert sink.seen[-1] == ("interrupted", "upbit-session-1", 1, "close 1001", False)
    assert len(sink.seen) == 22


def test_two_replays_are_equal(make_recording, play):
    path = make_recording(50)
    seen = []
    for speed in (None, 50.0):
        source, sink = play(path, speed=speed)
        source.start()
        assert source.wait(Deadline.after(10.0))
        seen.append(sink.seen)
    assert seen[0] == seen[1]


def test_nothing_is_played_before_somebody_wants_it(make_recording, play):
    source, sink = play(make_recording(), speed=None)
    assert (sink.seen, source.is_over) == ([], False)
    assert "waiting to be wanted" in repr(source)


def test_the_recorded_pace_is_kept_and_can_be_hastened(make_recording, play):
    path = make_recording(100)  # one second
    took = {}
    for speed in (1.0, 10.0):
        source, _ = play(path, speed=speed)
        began = time.monotonic()
        source.start()
        assert source.wait(Deadline.after(10.0))
        took[speed] = time.monotonic() - began
    assert took[1.0] >= 0.9
    assert took[10.0] < took[1.0] / 2


@pytest.mark.parametrize("speed", [0, -1.0, float("inf")])
def test_an_impossible_speed_is_refused(make_recording, play, speed):
    with pytest.raises(InvalidRequestError, match="speed"):
        play(make_recording(), speed=speed)


def test_as_fast_as_possible_waits_for_the_consumers(make_recording, play):
    waiting: queue.Queue = queue.Queue()
    source, sink = play(make_recording(3_000), speed=None, backlog=waiting.qsize)
    feed = sink.frames
    sink.frames = lambda *given: (waiting.put(given), feed(*given))[1]
    most = 0
    source.start()
    while not source.is_over or not waiting.empty():
        most = max(most, waiting.qsize())
        try:
            waiting.get(timeout=0.1)
        except queue.Empty:
            continue
    assert most <= 1_001
    assert sum(entry[0] == "frames" for entry in sink.seen) == 3_000


def test_a_consumer_that_sleeps_does_not_stop_the_replay(make_recording, play):
    source, sink = play(make_recording(20), speed=None, backlog=lambda: 5_000)
    source.start()
    assert source.close(Deadline.after(2.0)) == []
    assert len(sink.seen) < 22


def test_pulses_are_connected_while_the_line_was(make_recording, play):
    reached, go_on = threading.Event(), threading.Event()
    source, sink = play(make_recording(5), speed=None)

    def frames(health, epoch, frames, monotonic):
        reached.set()
        go_on.wait(5.0)

    sink.frames = frames
    source.acquire([SubscriptionRequest(BITCOIN)])
    assert reached.wait(5.0)
    health = source.health(BITCOIN)
    assert (health.connected, health.epoch) == (True, 1)
    assert time.monotonic() - health.heard_at < 5.0
    assert [session.state.value for session in source.stats()] == ["live"]
    go_on.set()
    assert source.wait(Deadline.after(5.0))
    assert not health.connected
    assert source.stats()[0].messages == 10


def test_a_recorder_attached_anew_ends_what_was_open(path, fill_recorder, play):
    for _ in range(2):
        with Recorder(path) as recorder:
            fill_recorder(recorder, 1)
    source, sink = play(path, speed=1.0)
    source.start()
    assert source.wait(Deadline.after(5.0))
    assert [entry[0] for entry in sink.seen] == ["subscribed", "frames", "interrupted"] * 2
    assert sink.seen[2][3] == "the recorder was attached anew"


def test_the_end_is_told_and_so_is_what_the_recording_never_had(make_recording, play):
    events: list = []
    ended = threading.Event()
    source, _ = play(make_recording(), speed=None, emit=events.append, on_end=ended.set)
    source.acquire([SubscriptionRequest(BITCOIN), SubscriptionRequest(Topic(DataType.TRADE, "KRW-XRP"))])
    assert ended.wait(5.0)
    assert [event.state.value for event in events if isinstance(event, ConnectionEvent)] == ["live", "waiting"]
    (missing,) = [event for event in events if isinstance(event, SubscriptionEvent)]
    assert missing.topics == ("trade:KRW-XRP",)


def test_rest_answers_come_again_in_their_order_and_the_last_stays(make_recording):
    transport = ReplayTransport(Recording(make_recording()))
    answers = [transport.get(endpoints.tickers(["KRW-BTC"]), ANY) for _ in range(3)]
    assert [(each.status, each.body) for each in answers] == [
        (200, b'[{"first":1}]'),
        (429, b"slow down"),
        (429, b"slow down"),
    ]


def test_a_question_nobody_asked_then_has_no_answer(make_recording):
    transport = ReplayTransport(Recording(make_recording()))
    with pytest.raises(ChannelUnavailableError, match="no answer"):
        transport.get(endpoints.tickers(["KRW-XRP"]), ANY)


def test_a_missing_market_list_is_made_up_from_the_recorded_topics(make_recording):
    response = ReplayTransport(Recording(make_recording())).get(endpoints.markets(), ANY)
    assert b'"KRW-BTC"' in response.body
    assert b'"KRW-ETH"' in response.body


def test_a_tapped_transport_shows_its_answers_and_changes_nothing(make_recording, tmp_path):
    inner = ReplayTransport(Recording(make_recording()))
    clock = ReplayClock()
    tapped = TappedTransport(inner, clock)
    with Recorder(tmp_path / "second.rec") as recorder:
        tapped.tap = recorder
        response = tapped.get(endpoints.tickers(["KRW-BTC"]), ANY)
        tapped.tap = None
        tapped.get(endpoints.tickers(["KRW-BTC"]), ANY)
    tapped.close()
    again = ReplayTransport(Recording(tmp_path / "second.rec"))
    assert again.get(endpoints.tickers(["KRW-BTC"]), ANY) == response
    assert response.received_at is not None
