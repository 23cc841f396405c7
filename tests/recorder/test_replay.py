from __future__ import annotations

import queue
import threading
import time
import uuid
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.waiting import promised
from upbit_backbone._concurrency import Deadline
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import ChannelUnavailableError, InvalidRequestError, RequestTimeoutError
from upbit_backbone.exchange import endpoints
from upbit_backbone.limits.rate_limiter import RateLimiter
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import ConnectionEvent, GapEvent, SubscriptionEvent
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.recorder import Recorder, Recording, ReplayClock, ReplaySource, ReplayTransport
from upbit_backbone.recorder import recorder as recorder_module
from upbit_backbone.recorder.format import Record, RecordKind, encode_records
from upbit_backbone.rest.client import RestClient
from upbit_backbone.simulator import FakeUpbit

START = datetime(2026, 11, 20, 5, 0, tzinfo=UTC)
BITCOIN = Topic(DataType.TRADE, "KRW-BTC")
ANY = Deadline.after(None)


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
        recording, span = Recording(path), {name: options.get(name) for name in ("since", "until")}
        options = {"rest": ReplayTransport(recording, **span), **options}
        source = ReplaySource(recording, sink, clock=clock, **options)
        sources.append(source)
        return source, sink

    yield start
    for source in sources:
        assert source.close(Deadline.after(2.0)) == []


def test_the_sink_sees_what_it_saw_then_with_the_times_of_then(make_recording, play):
    source, sink = play(make_recording(20), speed=None)
    source.acquire("test", [SubscriptionRequest(BITCOIN)])
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
    for speed in (0.5, 10.0):
        source, _ = play(path, speed=speed)
        began = time.monotonic()
        source.start()
        assert source.wait(Deadline.after(10.0))
        took[speed] = time.monotonic() - began
    assert took[0.5] >= 1.8
    assert took[10.0] < took[0.5] / 2


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
    source.acquire("test", [SubscriptionRequest(BITCOIN)])
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


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_replay_that_breaks_off_is_told_and_over(make_recording, play, caplog, monkeypatch, error):
    def broken(self, record):
        raise error("no more")

    monkeypatch.setattr("upbit_backbone.recorder.replay.PlayedSessions.feed", broken)
    source, _ = play(make_recording(3))
    source.acquire("me", [SubscriptionRequest(BITCOIN)])
    assert source.wait(ANY)
    assert source.is_over
    assert "the replay broke off" in caplog.text


def test_the_end_is_told_and_so_is_what_the_recording_never_had(make_recording, play):
    events: list = []
    ended = threading.Event()
    source, _ = play(make_recording(), speed=None, emit=events.append, on_end=ended.set)
    source.acquire("test", [SubscriptionRequest(BITCOIN), SubscriptionRequest(Topic(DataType.TRADE, "KRW-XRP"))])
    assert ended.wait(5.0)
    assert [event.state.value for event in events if isinstance(event, ConnectionEvent)] == ["live", "waiting"]
    (missing,) = [event for event in events if isinstance(event, SubscriptionEvent)]
    assert missing.topics == ("trade:KRW-XRP",)


@pytest.fixture
def replayed():
    """replayed(path, **options) -> a ReplayTransport, closed at the end"""
    with ExitStack() as stack:
        yield lambda path, **options: stack.enter_context(closing(ReplayTransport(Recording(path), **options)))


def test_rest_answers_come_again_in_their_order_and_the_last_stays(make_recording, replayed):
    transport = replayed(make_recording())
    answers = [transport.get(endpoints.tickers(["KRW-BTC"]), ANY) for _ in range(3)]
    assert [(each.status, each.body) for each in answers] == [
        (200, b'[{"first":1}]'),
        (429, b"slow down"),
        (429, b"slow down"),
    ]


def test_a_question_nobody_asked_then_has_no_answer(make_recording, replayed):
    transport = replayed(make_recording())
    with pytest.raises(ChannelUnavailableError, match="no answer"):
        transport.get(endpoints.tickers(["KRW-XRP"]), ANY)


def test_a_missing_market_list_is_made_up_from_the_recorded_topics(make_recording, replayed):
    response = replayed(make_recording()).get(endpoints.markets(), ANY)
    assert b'"KRW-BTC"' in response.body
    assert b'"KRW-ETH"' in response.body


def test_what_rest_says_is_recorded_with_the_very_time_that_its_answer_carries(replayed, tmp_path):
    def asked(url="", **options):
        limiter = RateLimiter(f"replay of this test {uuid.uuid4()}")
        rest = RestClient(BackboneConfig(url=url), limiter=limiter, **options)
        answers = rest.tickers(["KRW-BTC"], deadline=ANY)
        rest.close(ANY)
        limiter.close()
        return answers["KRW-BTC"]

    path = tmp_path / "asked.rec"
    with FakeUpbit(trades_per_second=0, markets=3) as upbit, Recorder(path) as recorder:
        told = asked(
            upbit.rest_url,
            heard=lambda call, said, at: recorder.rest(call.target, said.status, said.body, at),
        )
    assert told.received_at is not None
    assert asked(transport=replayed(path)) == told


def test_a_question_ends_by_its_deadline_however_long_the_recording_is(make_recording, replayed, monkeypatch):
    path, reading, go_on = make_recording(), threading.Event(), threading.Event()
    located = Recording.located

    def slowly(self, *span):
        reading.set()
        go_on.wait(20.0)
        yield from located(self, *span)

    monkeypatch.setattr(Recording, "located", slowly)
    transport = replayed(path)
    for call in (endpoints.tickers(["KRW-BTC"]), endpoints.markets()):
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError, match="was not looked through by the deadline"):
            transport.get(call, Deadline.after(0.05))
        assert time.monotonic() - began < promised(5.0)
    assert reading.is_set()
    go_on.set()
    assert transport.get(endpoints.tickers(["KRW-BTC"]), ANY).body == b'[{"first":1}]', "nobody was given it before"


def test_an_answer_is_given_as_soon_as_it_is_found(make_recording, replayed, monkeypatch):
    go_on = threading.Event()
    located = Recording.located

    def stopping(self, *span):
        for place, record in located(self, *span):
            yield place, record
            if record.kind is RecordKind.REST:
                go_on.wait(20.0)

    monkeypatch.setattr(Recording, "located", stopping)
    transport = replayed(make_recording())
    assert transport.get(endpoints.tickers(["KRW-BTC"]), ANY).status == 200
    assert not go_on.is_set()
    go_on.set()


SECOND = timedelta(seconds=1)


@pytest.fixture
def three_hours(path):
    """Three files' worth: each hour a price by REST and a batch; in the second hour the line breaks and comes again."""

    def at(hour, minutes=0.0):
        return START + timedelta(hours=hour, minutes=minutes)

    def subscribed(session, epoch, wall):
        rows = [["trade", "KRW-BTC", "0"]]
        return Record(RecordKind.SUBSCRIBED, 0.0, wall, session, epoch, details={"topics": rows})

    members = [
        [Record(RecordKind.BEGIN, 0.0, at(0), details={"format": 2}), subscribed("a", 1, at(0)), frames(at(0, 1), 0)],
        [rest(at(0, 2), 0), rest(at(0, 3), 1)],
        [Record(RecordKind.INTERRUPTED, 0.0, at(1), "a", 1, details={"topics": [], "reason": "cut"})],
        [subscribed("a", 2, at(1, 1)), frames(at(1, 2), 1, epoch=2)],
        [rest(at(1, 3), 2)],
        [frames(at(2), 2, epoch=2), rest(at(2, 1), 3)],
    ]
    path.write_bytes(b"".join(map(encode_records, members)))
    return path, at


def frames(wall, number, epoch=1):
    return Record(RecordKind.FRAMES, 0.0, wall, "a", epoch, (b'{"number":%d}' % number,))


def rest(wall, number):
    details = {"path": "/v1/ticker?markets=KRW-BTC", "status": 200}
    return Record(RecordKind.REST, 0.0, wall, blobs=(b'[{"number":%d}]' % number,), details=details)


def fed(sink) -> list:
    return [entry[3] if entry[0] == "frames" else (entry[0], entry[2]) for entry in sink.seen]


def test_playing_from_a_time_on_begins_with_what_streamed_then(three_hours, play):
    path, at = three_hours
    source, sink = play(path, speed=None, since=at(1, 1.5), until=at(1, 30))
    source.start()
    assert source.wait(Deadline.after(10.0))
    assert fed(sink) == [("subscribed", 2), [b'{"number":1}'], ("interrupted", 2)]
    source, sink = play(path, speed=None, since=at(1, 0.5), until=at(1, 2))
    source.start()
    assert source.wait(Deadline.after(10.0))
    assert fed(sink) == [("subscribed", 2), ("interrupted", 2)], "at half past nothing streamed"
    source, sink = play(path, speed=None, until=at(0, 2))
    source.start()
    assert source.wait(Deadline.after(10.0))
    assert fed(sink) == [("subscribed", 1), [b'{"number":0}'], ("interrupted", 1)]


def test_of_the_answers_before_the_start_the_last_one_counts(three_hours, replayed):
    path, at = three_hours
    transport = replayed(path, since=at(1), until=at(2, 1))
    answers = [transport.get(endpoints.tickers(["KRW-BTC"]), ANY).body for _ in range(3)]
    assert answers == [b'[{"number":1}]', b'[{"number":2}]', b'[{"number":2}]']


def test_the_parts_of_a_rotated_recording_play_as_one_and_each_alone(path, play, monkeypatch, until_written):
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.005)
    with Recorder(path, rotate_bytes=600) as recorder:
        recorder.subscribed("a", 1, frozenset({BITCOIN}))
        for number in range(6):
            recorder.frames("a", 1, [b'{"number":%d}' % number], 50.0, START)
            until_written(recorder)
    files = sorted(path.parent.iterdir())
    assert len(files) > 2
    source, sink = play(path, speed=None)
    source.start()
    assert source.wait(Deadline.after(10.0))
    numbered = [[b'{"number":%d}' % number] for number in range(6)]
    assert fed(sink) == [("subscribed", 1), *numbered, ("interrupted", 1)], "nothing is told of the files' ends"
    source, sink = play(files[-1], speed=None)
    source.start()
    assert source.wait(Deadline.after(10.0))
    assert fed(sink)[:2] == [("subscribed", 1), sink.seen[1][3]]
    assert sink.seen[1][3] in numbered


def test_what_is_missing_in_a_recording_comes_as_a_gap_to_those_who_want_it(path, play):
    lost = Record(RecordKind.LOST, 0.0, START + 2 * SECOND, details={"records": 17})
    topics = {"topics": [["trade", "KRW-BTC", "0"], ["trade", "KRW-ETH", "0"]]}
    subscribed = Record(RecordKind.SUBSCRIBED, 0.0, START, "a", 1, details=topics)
    members = [[subscribed, frames(START + SECOND, 0), lost], [frames(START + 3 * SECOND, 1)],
               [frames(START + 4 * SECOND, 2)], [frames(START + 5 * SECOND, 3)]]  # fmt: skip
    encoded = [bytearray(encode_records(member)) for member in members]
    encoded[2][-6] ^= 0xFF
    path.write_bytes(b"".join(encoded))
    events: queue.Queue = queue.Queue()
    source, sink = play(path, speed=None, emit=events.put)
    source.acquire("test", [SubscriptionRequest(BITCOIN)])
    assert source.wait(Deadline.after(10.0))
    assert fed(sink)[1:-1] == [[b'{"number":0}'], [b'{"number":1}'], [b'{"number":3}']]
    gaps = [event for event in list(events.queue) if isinstance(event, GapEvent)]
    assert [(gap.symbol, gap.type, gap.complete, gap.recovered) for gap in gaps] == [
        ("KRW-BTC", DataType.TRADE, False, 0)
    ] * 2
    first, second = gaps
    assert (first.start, first.end) == (START + SECOND, START + 2 * SECOND)
    assert "17 records were lost" in first.reason
    assert (second.start, second.end) == (START + 3 * SECOND, START + 5 * SECOND)
    assert "the recording is damaged at byte" in second.reason


def test_a_lost_subscription_does_not_cost_what_streamed_afterwards(path, play):
    topics = {"topics": [["trade", "KRW-BTC", "0"]]}
    members = [
        [Record(RecordKind.SUBSCRIBED, 0.0, START, "a", 1, details=topics), frames(START, 0)],
        [Record(RecordKind.SUBSCRIBED, 0.0, START, "a", 2, details=topics)],
        [frames(START + SECOND, 1, epoch=2)],
    ]
    encoded = [bytearray(encode_records(member)) for member in members]
    encoded[1][-6] ^= 0xFF
    path.write_bytes(b"".join(encoded))
    source, sink = play(path, speed=None)
    source.acquire("test", [SubscriptionRequest(BITCOIN)])
    assert source.wait(Deadline.after(10.0))
    assert fed(sink)[2:4] == [("subscribed", 2), [b'{"number":1}']]
