"""The table of a session's life, input by input, with a clock that moves only when told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    MaintenanceError,
    NetworkError,
    RateLimitError,
    TlsError,
    UpbitBackboneError,
)
from upbit_backbone.models.enums import DataType
from upbit_backbone.models.events import (
    ConnectionEvent,
    ConnectionState,
    Event,
    RateLimitEvent,
    StaleEvent,
    SubscriptionEvent,
)
from upbit_backbone.models.request import SubscriptionRequest, Topic
from upbit_backbone.models.session import FirstFrame, Notice, SessionHealth, StreamError, SubscriptionList, UpStatus
from upbit_backbone.sessions import messages as do
from upbit_backbone.sessions import messages as on
from upbit_backbone.sessions.lifecycle import TABLE, Lifecycle

IDLE, CONNECTING, LIVE = ConnectionState.IDLE, ConnectionState.CONNECTING, ConnectionState.LIVE
WAITING, CLOSED = ConnectionState.WAITING, ConnectionState.CLOSED
BTC = Topic(DataType.TICKER, "KRW-BTC")
ETH = Topic(DataType.TICKER, "KRW-ETH")
XRP = Topic(DataType.TRADE, "KRW-XRP")

E = TypeVar("E")
V = TypeVar("V", bound=Event)


def binary(payload: bytes) -> bytes:
    return bytes((0x82, len(payload))) + payload


def closing(code: int) -> bytes:
    return b"\x88\x02" + code.to_bytes(2, "big")


class Stage:
    """A lifecycle, a clock, and everything it ever asked for."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.lifecycle = Lifecycle(
            "session-1",
            BackboneConfig(**settings),
            random=lambda: 0.5,
            wall=lambda: datetime(2026, 11, 22, tzinfo=UTC),
            next_epoch=itertools.count(1).__next__,
        )
        self.effects: list[do.Effect] = []
        self.quiet_since = self.now

    def give(self, *inputs: on.Input) -> list[do.Effect]:
        """What these inputs lead to, the frames among them taken for data."""
        result: list[do.Effect] = []
        for happened in inputs:
            result += self.lifecycle.handle(happened, self.now)
        for effect in list(result):
            if isinstance(effect, do.Deliver):
                self.lifecycle.health.news_at = self.now
                result += self.lifecycle.handle(on.Noticed(effect.epoch, len(effect.frames), []), self.now)
            elif isinstance(effect, do.HearPong):
                result += self.lifecycle.handle(on.Ponged(effect.epoch, effect.payload), self.now)
        self.effects += result
        return result

    def notice(self, *notices: Notice, frames: int = 1) -> list[do.Effect]:
        return self.give(on.Noticed(self.lifecycle.health.epoch, frames, list(notices)))

    def request(self, *topics: Topic) -> list[do.Effect]:
        return self.give(on.SubscriptionsChanged(frozenset(map(SubscriptionRequest, topics))))

    def live(self, *topics: Topic) -> Stage:
        self.request(*(topics or (BTC,)))
        self.give(on.Opened())
        return self

    def pass_time(self, seconds: float, *, answering_pings: bool = True) -> list[do.Effect]:
        """Ticks exactly when the lifecycle asks for them."""
        end, result = self.now + seconds, []
        while (wake := self.lifecycle.next_wake()) <= end:
            self.now = max(self.now, wake)
            effects = self.give(on.Tick())
            result += effects
            for effect in effects:
                if isinstance(effect, do.SendPing) and answering_pings:
                    self.give(on.Received(b"\x8a" + bytes((len(effect.payload),)) + effect.payload))
        self.now = end
        return result

    def data(self) -> list[do.Effect]:
        return self.give(on.Received(binary(b"{}")))

    @property
    def state(self) -> ConnectionState:
        return self.lifecycle.state


def only(kind: type[E], effects: Iterable[do.Effect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def events(kind: type[V], effects: Iterable[do.Effect]) -> list[V]:
    emitted = [effect.event for effect in effects if isinstance(effect, do.Emit)]
    return [event for event in emitted if isinstance(event, kind)]


def codes(effect: do.SendText) -> set[str]:
    return {code for part in json.loads(effect.text) for code in part.get("codes", ())}


# Connecting


def test_a_request_connects_and_the_handshake_is_followed_by_exactly_one_message_with_the_whole_set() -> None:
    stage = Stage()
    assert only(do.Dial, stage.request(BTC, ETH))
    assert stage.state is CONNECTING
    effects = stage.give(on.Opened())
    assert [codes(message) for message in only(do.SendText, effects)] == [{"KRW-BTC", "KRW-ETH"}]
    assert only(do.TellSubscribed, effects) == [do.TellSubscribed(1, frozenset({BTC, ETH}))]
    order = [type(effect) for effect in effects if isinstance(effect, do.TellSubscribed | do.SendText)]
    assert order == [do.TellSubscribed, do.SendText], "noted after it was sent, an answer's way would seem too short"
    assert stage.state is LIVE
    assert stage.lifecycle.health.connected
    assert stage.lifecycle.health.epoch == 1


def test_what_is_requested_while_connecting_is_in_the_first_message() -> None:
    stage = Stage()
    stage.request(BTC)
    stage.request(BTC, ETH)
    assert [codes(message) for message in only(do.SendText, stage.give(on.Opened()))] == [{"KRW-BTC", "KRW-ETH"}]
    assert not only(do.SendText, stage.pass_time(4.0))


def test_the_first_retry_is_immediate_the_next_ones_wait() -> None:
    stage = Stage()
    stage.request(BTC)
    assert only(do.Dial, stage.give(on.OpenFailed(NetworkError("refused"))))
    assert not only(do.Dial, stage.give(on.OpenFailed(NetworkError("refused"))))
    assert stage.state is WAITING
    assert only(do.Dial, stage.pass_time(0.8))


def test_an_outage_of_twenty_seconds_is_tried_less_than_once_a_second_and_never_later_than_the_cap() -> None:
    stage = Stage()
    stage.request(BTC)
    attempts = [stage.now]
    while stage.now < 120.0:
        stage.give(on.OpenFailed(NetworkError("refused")))
        if stage.state is WAITING:
            stage.now = stage.lifecycle.next_wake()
            stage.give(on.Tick())
        attempts.append(stage.now)
    assert len(attempts) <= 20
    assert max(later - earlier for earlier, later in itertools.pairwise(attempts)) <= 2.0


def test_an_outage_of_ten_minutes_is_tried_once_in_ten_seconds() -> None:
    stage = Stage()
    stage.request(BTC)
    attempts = []
    while stage.now < 700.0:
        stage.give(on.OpenFailed(NetworkError("no route")))
        stage.now = max(stage.now, stage.lifecycle.next_wake())
        stage.give(on.Tick())
        attempts.append(stage.now)
    late = [later - earlier for earlier, later in itertools.pairwise(attempts) if earlier > 170.0]
    assert all(10.0 <= pause <= 10.5 for pause in late)


@pytest.mark.parametrize("error", [AuthenticationError("403"), TlsError("certificate expired")])
def test_permanent_errors_are_retried_at_most_once_a_minute(error: UpbitBackboneError) -> None:
    stage = Stage()
    stage.request(BTC)
    stage.give(on.OpenFailed(error))
    assert not only(do.Dial, stage.pass_time(59.9))
    assert only(do.Dial, stage.pass_time(3.0))


def test_maintenance_is_waited_out_like_any_outage() -> None:
    stage = Stage()
    stage.request(BTC)
    stage.give(on.OpenFailed(MaintenanceError("503")), on.OpenFailed(MaintenanceError("503")))
    assert only(do.Dial, stage.pass_time(2.0))


def test_a_429_is_obeyed_to_the_second_and_reported_to_the_process() -> None:
    stage = Stage()
    stage.request(BTC)
    effects = stage.give(on.OpenFailed(RateLimitError("429", retry_after=5.0)))
    assert [refusal.error.retry_after for refusal in only(do.ReportRefusal, effects)] == [5.0]
    assert not events(RateLimitEvent, effects), "the limiter tells everybody"
    stage.give(on.ReconnectRequested("impatience"), on.ClockJumped(60.0))
    assert not only(do.Dial, stage.pass_time(4.9))
    assert only(do.Dial, stage.pass_time(0.2))


def test_a_418_bans_connecting_until_its_end_even_for_new_requests() -> None:
    stage = Stage()
    stage.request(BTC)
    effects = stage.give(on.OpenFailed(BannedError("418", retry_after=120.0)))
    assert isinstance(only(do.ReportRefusal, effects)[0].error, BannedError)
    stage.request()
    assert stage.state is IDLE
    stage.request(ETH)
    assert not only(do.Dial, stage.pass_time(119.0))
    assert only(do.Dial, stage.pass_time(2.0))


def test_a_ban_heard_of_elsewhere_stops_messages_too() -> None:
    stage = Stage().live(BTC)
    stage.data()
    stage.give(on.BanImposed(30.0, "418 at another handshake"))
    stage.request(BTC, ETH)
    assert not only(do.SendText, stage.pass_time(29.0))
    assert only(do.SendText, stage.pass_time(2.0))


def test_waiting_for_our_own_limiter_is_neither_a_failure_nor_a_downtime() -> None:
    stage = Stage()
    stage.request(BTC)
    stage.give(on.OpenDeferred(RateLimitError("5/s", retry_after=0.4)))
    assert not only(do.Dial, stage.pass_time(0.3))
    assert only(do.Dial, stage.pass_time(0.2))
    live = events(ConnectionEvent, stage.give(on.Opened()))[-1]
    assert (live.state, live.downtime) == (LIVE, None)


# Losing the line


@pytest.mark.parametrize("code", [1000, 1001, 1003, *range(1007, 1015), 3000, 4999])
def test_after_any_close_code_the_line_is_restored_at_once_with_the_same_set(code: int) -> None:
    stage = Stage().live(BTC, ETH)
    effects = stage.give(on.Received(closing(code)))
    assert only(do.Drop, effects) == [do.Drop(code)]
    assert [interrupted.topics for interrupted in only(do.TellInterrupted, effects)] == [{BTC, ETH}]
    assert events(ConnectionEvent, effects)[0].code == code
    assert only(do.Dial, effects)
    assert not stage.lifecycle.health.connected
    restored = stage.give(on.Opened())
    assert [codes(message) for message in only(do.SendText, restored)] == [{"KRW-BTC", "KRW-ETH"}]
    assert stage.lifecycle.health.epoch == 2
    assert events(ConnectionEvent, restored)[-1].is_recovery


def test_frames_before_a_close_in_the_same_read_are_delivered_first() -> None:
    stage = Stage().live()
    effects = stage.give(on.Received(binary(b"1") + binary(b"2") + closing(1000)))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(do.Deliver) < kinds.index(do.Drop)
    assert only(do.Deliver, effects)[0].frames == [b"1", b"2"]


@pytest.mark.parametrize(
    ("poison", "code"),
    [
        (b"\xc2\x00", 1002),
        (b"\x83\x00", 1002),
        (b"\x82\x80....", 1002),
        (b"\x81\x01\xff", 1007),
        (b"\x82\x7f" + b"\0\0\1\0" * 2, 1009),
    ],
)
def test_a_protocol_violation_says_its_code_and_reconnects(poison: bytes, code: int) -> None:
    stage = Stage().live()
    effects = stage.give(on.Received(poison))
    assert only(do.Drop, effects) == [do.Drop(code)]
    assert only(do.Dial, effects)


def test_only_proven_health_makes_the_next_break_a_first_one() -> None:
    stage = Stage().live()
    for _ in range(3):
        stage.give(on.ConnectionLost("reset"))
        stage.pass_time(2.0)
        stage.give(on.Opened())
    stage.give(on.ConnectionLost("reset"))
    assert stage.state is WAITING, "a crash loop is slowed down although every handshake succeeds"
    stage.pass_time(2.0)
    stage.give(on.Opened())
    stage.data()
    stage.pass_time(10.5)
    assert only(do.Dial, stage.give(on.ConnectionLost("reset"))), "first data and ten seconds prove health"


def test_a_line_that_brings_data_and_breaks_again_is_back_within_half_a_second_but_only_ten_times_in_a_row() -> None:
    stage = Stage().live()
    pauses = []
    for _ in range(20):
        stage.data()
        stage.pass_time(1.0)
        broken_at = stage.now
        stage.give(on.ConnectionLost("reset"))
        if stage.state is WAITING:
            stage.now = stage.lifecycle.next_wake()
            stage.give(on.Tick())
        pauses.append(stage.now - broken_at)
        stage.give(on.Opened())
    assert pauses[0] == 0
    assert max(pauses[:10]) < 0.5
    assert 0.5 < max(pauses[10:]) <= BackboneConfig().reconnect_cap_seconds


def test_thirty_seconds_without_data_prove_health_as_well() -> None:
    stage = Stage().live()
    stage.give(on.ConnectionLost("reset"), on.Opened())
    stage.pass_time(31.0)
    assert only(do.Dial, stage.give(on.ConnectionLost("reset")))


def test_a_machine_that_slept_reconnects_at_once() -> None:
    stage = Stage().live()
    assert only(do.Dial, stage.give(on.ClockJumped(3600.0)))


def test_a_crash_of_the_thread_costs_the_line_and_nothing_else() -> None:
    stage = Stage().live(BTC)
    effects = stage.give(on.Crashed(MemoryError()))
    assert "MemoryError" in events(ConnectionEvent, effects)[0].reason
    assert [codes(message) for message in only(do.SendText, stage.give(on.Opened()))] == [{"KRW-BTC"}]


# KeepAlive


def test_a_frozen_peer_is_given_up_within_ten_seconds() -> None:
    stage = Stage().live()
    stage.data()
    frozen_at = stage.now
    effects = stage.pass_time(10.0, answering_pings=False)
    assert only(do.Dial, effects)
    assert stage.now - frozen_at <= 10.0


def test_a_slow_line_is_not_frozen_while_bytes_flow() -> None:
    stage = Stage().live()
    for _ in range(30):
        assert not only(do.Drop, stage.pass_time(1.0, answering_pings=False))
        stage.give(on.Received(b"\x82\x7e\xff\xff" if stage.now < 102 else b"x"))


def test_a_starved_loop_does_not_blame_the_peer() -> None:
    stage = Stage().live()
    stage.pass_time(5.0, answering_pings=False)
    stage.lifecycle.next_wake()
    stage.now += 8.0  # our own thread did not get to run
    assert not only(do.Drop, stage.give(on.Tick()))
    assert stage.state is LIVE


def test_pings_go_out_every_five_seconds_and_pongs_are_timed() -> None:
    stage = Stage().live()
    pings = only(do.SendPing, stage.pass_time(60.0))
    assert len(pings) == 12 + 1, "and one that shows that the subscription was read without complaint"
    line = stage.lifecycle.line
    assert line is not None
    assert line.keep_alive.pong_seconds == 0.0


def test_a_line_that_brought_data_and_fell_silent_is_asked_once_whether_it_is_merely_quiet() -> None:
    stage = Stage().live()
    stage.pass_time(6.0)
    stage.data()
    assert len(only(do.SendPing, stage.pass_time(1.0))) == 1
    assert not only(do.SendPing, stage.pass_time(2.5))
    stage.data()
    assert only(do.SendPing, stage.pass_time(1.0, answering_pings=False))
    assert not stage.lifecycle.health.is_late
    stage.pass_time(2.0, answering_pings=False)
    assert stage.lifecycle.health.is_late, "no answer in time"


def test_a_line_that_brought_data_and_froze_owes_an_answer_within_a_second() -> None:
    stage = Stage(max_lag_seconds=60.0).live(BTC)
    for _ in range(60):
        stage.pass_time(0.1)
        stage.data()
        assert not stage.lifecycle.health.is_unanswered(stage.now)
    stage.pass_time(0.5, answering_pings=False)
    assert not stage.lifecycle.health.is_unanswered(stage.now)
    stage.pass_time(0.4, answering_pings=False)
    assert stage.lifecycle.health.is_unanswered(stage.now)
    stage.data()
    assert not stage.lifecycle.health.is_unanswered(stage.now)


def test_a_quiet_line_that_answers_owes_nothing_and_a_long_way_is_given_its_time() -> None:
    stage = Stage().live(BTC)
    stage.data()
    for _ in range(300):
        stage.pass_time(0.1)
        assert not stage.lifecycle.health.is_unanswered(stage.now)
    health = SessionHealth("session-1")
    health.heard_at, health.unanswered_since = 100.0, 101.0
    assert not health.is_unanswered(109.0), "nobody knows yet how long an answer takes"
    health.answered(0.6, 100.0)
    assert not health.is_unanswered(102.1)
    assert health.is_unanswered(102.3)


def test_a_line_that_answers_slowly_now_and_then_is_given_longer_for_a_while_and_a_freeze_is_no_measure() -> None:
    health = SessionHealth("session-1")
    health.heard_at, health.unanswered_since = 100.0, 101.0
    health.answered(0.01, 100.0)
    assert health.is_unanswered(101.3)
    health.answered(0.3, 100.0)
    assert not health.is_unanswered(101.4)
    assert health.is_unanswered(101.5)
    health.answered(0.9, 100.4)
    health.answered(0.39, 100.4)
    assert health.is_unanswered(101.5), "what stood in a freeze says nothing about the way"
    for _ in range(100):
        health.answered(0.01, 100.0)
    assert health.is_unanswered(101.3)


@pytest.mark.parametrize("rhythm", [0.3, 0.45, 0.5, 0.75, 1.0, 2.0])
def test_questions_about_a_silence_stay_below_a_hundred_a_minute_whatever_the_rhythm(rhythm: float) -> None:
    stage = Stage().live(BTC)
    pings = 0
    for _ in range(int(60 / rhythm)):
        pings += len(only(do.SendPing, stage.pass_time(rhythm)))
        stage.data()
    assert pings <= 100


@pytest.mark.parametrize("messages", [1, 20_000], ids=["a narrow line", "a backlog"])
def test_a_late_line_is_left_only_where_what_is_late_does_not_lie_here_already(messages: int) -> None:
    stage = Stage().live()
    for _ in range(20):
        stage.lifecycle.health.news_came(5.0, stage.now)
        stage.give(on.Received(binary(b'{"late":1}') * messages))
        stage.pass_time(1.0, answering_pings=False)  # the pongs come behind it
    assert bool(only(do.Drop, stage.effects)) is (messages == 1)
    assert events(StaleEvent, stage.effects)[0].stale, "told in any case"


def test_a_way_longer_than_the_interval_of_pings_is_timed_all_the_same() -> None:
    stage = Stage().live()
    under_way: list[tuple[float, bytes]] = []
    for _ in range(40):
        stage.data()  # on a slow line the pong comes behind it
        sent = only(do.SendPing, stage.pass_time(1.0, answering_pings=False))
        under_way += [(stage.now + 7.0, ping.payload) for ping in sent]
        while under_way and under_way[0][0] <= stage.now:
            _, payload = under_way.pop(0)
            stage.give(on.Received(b"\x8a" + bytes((len(payload),)) + payload))
    line = stage.lifecycle.line
    assert line is not None
    assert line.keep_alive.pong_seconds == pytest.approx(7.0, abs=1.0)


def test_first_frames_that_come_late_in_one_read_are_told_in_one_event() -> None:
    topics = [Topic(DataType.TICKER, f"KRW-A{number}") for number in range(100)]
    stage = Stage().live(*topics)
    stage.pass_time(6.0)
    effects = stage.notice(*map(FirstFrame, topics[:60]), frames=60)
    assert [len(event.topics) for event in events(SubscriptionEvent, effects)] == [60]
    assert not events(SubscriptionEvent, stage.notice(*map(FirstFrame, topics[:60]), frames=60))


def test_a_ping_flood_gets_the_newest_answer_ten_times_a_second() -> None:
    stage = Stage().live()
    pongs: list[do.SendPong] = []
    for number in range(1000):
        stage.now += 0.001
        pongs += only(do.SendPong, stage.give(on.Received(b"\x89\x04%04d" % number)))
    pongs += only(do.SendPong, stage.pass_time(0.2))
    assert 9 <= len(pongs) <= 12
    assert pongs[-1].payload == b"0999"


# Messages


def test_a_hundred_changes_in_a_second_cost_three_messages_and_end_in_the_last_one() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(5.0)
    sent: list[do.SendText] = []
    for number in range(100):
        stage.request(*(Topic(DataType.TRADE, f"KRW-C{each}") for each in range(number + 1)))
        sent += only(do.SendText, stage.pass_time(0.01))
    sent += only(do.SendText, stage.pass_time(1.1))
    assert len(sent) <= 3
    assert len(codes(sent[-1])) == 100


def test_messages_stay_within_five_a_second_and_a_hundred_a_minute() -> None:
    stage = Stage().live(BTC)
    times: list[float] = [stage.now]
    for number in range(2000):
        stage.request(BTC, Topic(DataType.TRADE, f"KRW-C{number}"))
        times += [stage.now for _ in only(do.SendText, stage.pass_time(0.1))]
    assert all(times[at + 5] - times[at] > 1.0 for at in range(len(times) - 5))
    assert all(times[at + 100] - times[at] > 60.0 for at in range(len(times) - 100))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) <= 1.0, "even under constant change the request is true within 1.1 s"


def test_a_request_taken_back_before_it_was_sent_costs_nothing() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(1.0)
    stage.request(BTC, ETH)
    stage.request(BTC)
    assert not only(do.SendText, stage.pass_time(2.0))


def test_an_empty_request_says_nothing_idles_and_closes() -> None:
    stage = Stage().live(BTC)
    stage.request()
    assert not only(do.Drop, stage.pass_time(29.0))
    effects = stage.pass_time(2.0)
    assert only(do.Drop, effects) == [do.Drop(1000)]
    assert only(do.BecameIdle, effects)
    assert only(do.TellSubscribed, effects) == [do.TellSubscribed(1, frozenset())]
    assert not only(do.SendText, stage.effects[2:])[1:], "never an empty subscription"
    assert stage.state is IDLE


def test_a_request_that_returns_in_time_keeps_the_line() -> None:
    stage = Stage().live(BTC)
    stage.request()
    stage.pass_time(29.0)
    stage.request(ETH)
    effects = stage.pass_time(60.0)
    assert not only(do.Drop, effects)
    assert [codes(message) for message in only(do.SendText, effects)] == [{"KRW-ETH"}]


# Topics


def test_a_topic_without_first_frame_is_reported_once_and_remembered() -> None:
    stage = Stage().live(BTC, ETH)
    stage.notice(FirstFrame(BTC))
    reports = events(SubscriptionEvent, stage.pass_time(20.0))
    assert [report.topics for report in reports] == [(str(ETH),)]
    assert reports[0].error is not None
    late = events(SubscriptionEvent, stage.notice(FirstFrame(ETH)))
    assert [(report.topics, report.error) for report in late] == [((str(ETH),), None)]


def test_a_single_refused_topic_is_left_out_and_the_others_stay() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(3.0)
    stage.data()
    stage.request(BTC, XRP)
    stage.pass_time(0.1)
    effects = stage.notice(StreamError("INVALID_PARAM", "no"))
    assert [event.topics for event in events(SubscriptionEvent, effects)] == [(str(XRP),)]
    stage.give(on.Received(closing(1000)))
    assert [codes(message) for message in only(do.SendText, stage.give(on.Opened()))] == [{"KRW-BTC"}]
    assert stage.lifecycle.held_back == {XRP}


def test_time_alone_earns_no_trust_because_a_frozen_peer_does_not_complain_either() -> None:
    stage = Stage().live(BTC, XRP)
    stage.pass_time(4.0, answering_pings=False)
    stage.give(on.ConnectionLost("reset"), on.Opened())
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert len(stage.lifecycle.held_back) == 1, "both are suspects: one waits while the other stands trial"
    assert not events(SubscriptionEvent, stage.effects)


def test_a_complaint_about_trusted_topics_gives_everybody_a_new_trial() -> None:
    stage = Stage().live(BTC, ETH)
    stage.pass_time(3.0)
    stage.data()
    stage.request(BTC, ETH, XRP)
    stage.pass_time(0.6)
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert stage.lifecycle.held_back == {XRP}
    stage.give(on.Received(closing(1000)), on.Opened())
    stage.pass_time(2.1)
    stage.data()
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert not stage.lifecycle.held_back


def test_an_error_that_is_not_about_topics_takes_no_trust_away() -> None:
    stage = Stage().live(BTC, ETH)
    stage.pass_time(3.0)
    stage.data()
    stage.notice(StreamError("SERVER_BUSY", "later"))
    stage.notice(StreamError("SERVER_BUSY", "later"))
    assert not stage.lifecycle.held_back
    assert not events(SubscriptionEvent, stage.effects)


def test_the_complaint_counts_also_when_it_comes_in_one_read_with_the_close() -> None:
    stage = Stage().live(XRP)
    result = stage.lifecycle.handle(on.Received(binary(b"error") + closing(1000)), stage.now)
    assert only(do.Dial, result)
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert stage.lifecycle.held_back == {XRP}


def test_a_bad_topic_among_many_is_found_by_halving_and_all_others_flow() -> None:
    good = [Topic(DataType.TRADE, f"KRW-C{number}") for number in range(40)]
    bad = Topic(DataType.TRADE, "KRW-BAD")
    stage = Stage().live(*good, bad)
    messages = only(do.SendText, stage.effects)
    for _ in range(40):
        if "KRW-BAD" in codes(messages[-1]):
            stage.notice(StreamError("INVALID_PARAM", "no"))
            effects = stage.give(on.Received(closing(1000)))
            if stage.state is not CONNECTING:
                effects += stage.pass_time(2.0)
            messages += only(do.SendText, stage.give(on.Opened()))
        else:
            stage.data()
            messages += only(do.SendText, stage.pass_time(2.5))
    assert stage.lifecycle.held_back == {bad}
    assert codes(messages[-1]) == {topic.symbol for topic in good}
    assert [event.topics for event in events(SubscriptionEvent, stage.effects) if "refused" in event.reason] == [
        (str(bad),)
    ]


def pong(stage: Stage, ping: do.SendPing) -> bytes:
    return b"\x8a" + bytes((len(ping.payload),)) + ping.payload


def test_a_complaint_that_comes_late_is_about_what_had_been_sent_and_read_by_then() -> None:
    """On a line of three seconds; meanwhile the guilty topic was let go, and another one asked for."""
    stage = Stage().live(XRP)
    stage.pass_time(2.5, answering_pings=False)
    stage.request(ETH)
    (ping,) = only(do.SendPing, stage.pass_time(0.5, answering_pings=False))
    for _ in range(3):
        stage.data()  # sent before Upbit had read anything
    assert not events(SubscriptionEvent, stage.notice(StreamError("INVALID_PARAM", "no")))
    assert not stage.lifecycle.held_back, "it cannot be about what Upbit had not read"
    stage.give(on.Received(pong(stage, ping)))
    stage.give(on.Received(closing(1000)), on.Opened())
    assert not stage.lifecycle.held_back


def test_a_second_complaint_about_what_was_sent_before_the_first_one_came_blames_nobody_else() -> None:
    stage = Stage().live(XRP)
    stage.pass_time(0.6, answering_pings=False)
    stage.request(XRP, ETH)
    (ping,) = only(do.SendPing, stage.pass_time(0.5, answering_pings=False))
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert stage.lifecycle.held_back == {XRP}
    stage.give(on.Received(pong(stage, ping)))
    stage.notice(StreamError("INVALID_PARAM", "no"))
    assert stage.lifecycle.held_back == {XRP}


def test_a_peer_that_answers_no_pings_is_believed_by_what_it_brings() -> None:
    stage = Stage().live(XRP, ETH)
    stage.notice(StreamError("INVALID_PARAM", "no"))
    stage.give(on.Received(closing(1000)), on.Opened())
    assert stage.lifecycle.held_back
    for _ in range(40):
        stage.pass_time(0.5, answering_pings=False)
        stage.lifecycle.health.news_came(0.05, stage.now)
        stage.data()
    assert not stage.lifecycle.held_back


def test_a_refused_topic_gets_a_new_chance_after_it_was_let_go() -> None:
    stage = Stage().live(XRP)
    stage.notice(StreamError("INVALID_PARAM", "no"))
    stage.request()
    stage.request(XRP)
    assert not stage.lifecycle.held_back


def test_too_many_messages_slow_us_down_and_blame_no_topic() -> None:
    stage = Stage().live(BTC)
    effects = stage.notice(StreamError("Too Many Requests", "slow down"))
    assert [event.group for event in events(RateLimitEvent, effects)] == ["websocket-message"]
    assert not stage.lifecycle.held_back
    assert not only(do.SendText, stage.pass_time(0.9))
    assert only(do.SendText, stage.pass_time(0.3))


def test_a_teapot_on_the_stream_is_a_ban() -> None:
    stage = Stage().live(BTC)
    assert events(RateLimitEvent, stage.notice(StreamError("I'm a teapot", "blocked")))[0].banned
    stage.give(on.Received(closing(1000)))
    assert not only(do.Dial, stage.pass_time(59.0))


def test_an_audit_finds_what_upbit_forgot_and_subscribes_again() -> None:
    stage = Stage(audit_subscriptions=True).live(BTC, ETH)
    asked = only(do.SendText, stage.pass_time(2.0))
    assert "LIST_SUBSCRIPTIONS" in asked[0].text
    effects = stage.notice(SubscriptionList((("ticker", ("KRW-BTC",), None),), "t"))
    assert [event.topics for event in events(SubscriptionEvent, effects)] == [(str(ETH),)]
    assert [codes(message) for message in only(do.SendText, stage.pass_time(0.6))] == [{"KRW-BTC", "KRW-ETH"}]


def test_an_audit_that_agrees_changes_nothing() -> None:
    stage = Stage(audit_subscriptions=True).live(BTC)
    stage.pass_time(2.0)
    assert not stage.notice(SubscriptionList((("ticker", ("KRW-BTC",), None),), "t"))
    assert not only(do.SendText, stage.pass_time(3.0))


# Lateness


def late(stage: Stage, seconds: float) -> list[do.Effect]:
    """Data comes for so long, five seconds late by Upbit's clock."""
    result, end = [], stage.now + seconds
    while stage.now < end and stage.state is LIVE:
        stage.lifecycle.health.news_came(5.0, stage.now)
        result += stage.data()
        result += stage.pass_time(0.5)
    return result


def test_a_session_that_stays_late_says_so_sheds_load_and_then_connects_anew() -> None:
    stage = Stage().live(BTC)
    effects = late(stage, 4.0)
    (event,) = events(StaleEvent, effects)
    assert (event.stale, event.reason) == (True, "5.0 s behind Upbit")
    assert only(do.ShedLoad, effects)
    assert not only(do.Drop, effects)
    assert only(do.Drop, late(stage, 30.0))
    assert stage.lifecycle.status.last_error == "5.0 s behind Upbit"


def test_a_session_that_catches_up_says_so_and_keeps_its_line() -> None:
    stage = Stage().live(BTC)
    late(stage, 5.0)
    stage.lifecycle.health.news_came(0.1, stage.now)
    effects = stage.data() + stage.pass_time(3.0)
    assert [(event.stale, event.reason) for event in events(StaleEvent, effects)] == [(False, "in time again")]
    assert stage.lifecycle.health.epoch == 1


def test_a_hiccup_of_two_seconds_is_not_told() -> None:
    stage = Stage().live(BTC)
    late(stage, 2.0)
    stage.lifecycle.health.news_came(0.1, stage.now)
    assert not events(StaleEvent, stage.data() + stage.pass_time(10.0))


# Silence


def test_silence_while_rest_shows_trades_ends_in_reconnection_within_fifteen_seconds() -> None:
    stage = Stage().live(BTC)
    stage.data()
    probes = only(do.StartProbe, stage.pass_time(10.1))
    assert [(probe.topics, probe.whole_line) for probe in probes] == [({BTC}, True)]
    stage.now += 1.0
    stage.give(on.ProbeAnswered(1, frozenset({BTC}), True, frozenset({BTC})))
    assert stage.state is LIVE, "the trades may just be on their way"
    effects = stage.pass_time(2.1)
    assert events(StaleEvent, effects)[0].stale
    assert only(do.Dial, effects)
    stage.give(on.Opened())
    assert [event.stale for event in events(StaleEvent, stage.data())] == [False]


def test_data_during_the_grace_ends_the_suspicion() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(10.1)
    stage.give(on.ProbeAnswered(1, frozenset({BTC}), True, frozenset({BTC})))
    stage.pass_time(1.0)
    stage.data()
    assert not events(StaleEvent, stage.pass_time(5.0))
    assert stage.state is LIVE


def quiet_while_rest_says(
    behind: frozenset[Topic] | None, seconds: int, stage: Stage, snapshot: Callable[[], object]
) -> list[do.Effect]:
    """Nothing is traded; REST answers each question with `behind`, Upbit each subscription with `snapshot`."""
    log: list[do.Effect] = []
    for _ in range(seconds):
        effects = stage.pass_time(1.0)
        for probe in only(do.StartProbe, effects):
            effects += stage.give(on.ProbeAnswered(probe.epoch, probe.topics, probe.whole_line, behind))
        if only(do.Dial, effects):
            effects += stage.give(on.Opened())
        if only(do.SendText, effects):
            snapshot()
        log += effects
    return log


@pytest.mark.parametrize("behind", [frozenset(), None])
def test_a_quiet_market_stays_as_it_is(behind: frozenset[Topic] | None) -> None:
    stage = Stage().live(BTC)
    log = quiet_while_rest_says(behind, 500, stage, stage.notice)  # frames, and nothing new in them
    assert (stage.state, stage.lifecycle.health.epoch) == (LIVE, 1)
    assert not events(StaleEvent, log)
    assert bool(only(do.SendText, log)) == (behind is None), "the stream is asked only while REST does not say"
    assert len(only(do.SendText, log)) <= 100


def test_silence_that_rest_cannot_judge_ends_in_reconnection_within_fifteen_seconds_if_no_snapshot_comes() -> None:
    stage = Stage().live(BTC)
    stage.data()
    log = quiet_while_rest_says(None, 15, stage, lambda: None)
    assert [event.stale for event in events(StaleEvent, log)] == [True]
    assert "no snapshot" in events(StaleEvent, log)[0].reason
    assert (stage.state, stage.lifecycle.health.epoch) == (LIVE, 2)
    assert [event.stale for event in events(StaleEvent, stage.data())] == [False]


def test_a_snapshot_that_comes_in_time_acquits_the_line_though_nothing_in_it_is_new() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(10.1)
    stage.give(on.ProbeAnswered(1, frozenset({BTC}), True, None))
    assert only(do.SendText, stage.pass_time(1.0))
    stage.notice()
    assert not events(StaleEvent, stage.pass_time(3.0))
    assert stage.state is LIVE


def test_lines_that_never_answer_are_left_once_a_minute_at_most() -> None:
    stage = Stage().live(BTC)
    quiet_while_rest_says(None, 600, stage, lambda: None)
    assert 5 <= stage.lifecycle.health.epoch <= 11


def test_while_upbit_blocks_all_a_line_that_falls_silent_unlike_before_is_kept_and_not_believed() -> None:
    stage = Stage().live(BTC)
    silent: set[Topic] = set()
    for _ in range(120):
        stage.data()
        answer_questions(stage, stage.pass_time(1.0), silent)
    stage.give(on.BanImposed(60.0, "418"))
    silent, log = {BTC}, []
    for _ in range(50):
        effects = stage.pass_time(1.0)
        effects += answer_questions(stage, effects, silent)
        for probe in only(do.StartProbe, effects):
            effects += stage.give(on.ProbeAnswered(probe.epoch, probe.topics, probe.whole_line, None))
        log += effects
    assert [event.stale for event in events(StaleEvent, log)] == [True]
    assert "blocks this IP" in events(StaleEvent, log)[0].reason
    assert (stage.state, stage.lifecycle.health.epoch, stage.lifecycle.health.suspect) == (LIVE, 1, True)
    assert not only(do.SendText, log), "nothing is sent during a ban of the whole IP"
    assert [event.stale for event in events(StaleEvent, stage.data())] == [False]
    assert not stage.lifecycle.health.suspect


def test_a_market_that_was_always_quiet_is_not_suspected_in_a_ban() -> None:
    stage = Stage().live(BTC)
    stage.give(on.BanImposed(60.0, "418"))
    log = quiet_while_rest_says(None, 50, stage, stage.notice)
    assert not events(StaleEvent, log)


def test_signs_of_life_that_are_no_data_do_not_hide_a_stall() -> None:
    stage = Stage().live(BTC)
    probes: list[do.StartProbe] = []
    for _ in range(12):
        stage.notice(UpStatus())
        probes += only(do.StartProbe, stage.pass_time(1.0))
    assert probes


def test_an_answer_of_an_earlier_epoch_changes_nothing() -> None:
    stage = Stage().live(BTC)
    stage.pass_time(10.1)
    stage.give(on.ConnectionLost("reset"), on.Opened())
    stage.give(on.ProbeAnswered(1, frozenset({BTC}), True, frozenset({BTC})))
    assert not events(StaleEvent, stage.pass_time(4.0))


def answer_questions(stage: Stage, effects: list[do.Effect], silent: set[Topic]) -> list[do.Effect]:
    result: list[do.Effect] = []
    for ask in only(do.AskSilent, effects):
        result += stage.give(on.SilentFound(ask.epoch, ask.question, ask.question.topics & silent))
    return result


def test_one_mute_market_among_others_is_reported_and_subscribed_anew_without_reconnecting() -> None:
    stage = Stage().live(BTC, ETH)
    silent: set[Topic] = set()
    log: list[do.Effect] = []
    for second in range(90):
        if second == 40:
            silent = {ETH}
        stage.data()
        effects = stage.pass_time(1.0)
        effects += answer_questions(stage, effects, silent)
        for probe in only(do.StartProbe, effects):
            assert probe.topics == {ETH}
            stage.give(on.ProbeAnswered(probe.epoch, probe.topics, probe.whole_line, probe.topics))
        log += effects
    assert [(event.symbols, event.stale) for event in events(StaleEvent, log)] == [(("KRW-ETH",), True)]
    assert stage.lifecycle.health.mute == {ETH}
    assert not stage.lifecycle.health.suspect
    assert len(only(do.SendText, log)) == 1
    assert not only(do.Drop, log)
    for _ in range(12):
        stage.data()
        effects = stage.pass_time(1.0)
        log += answer_questions(stage, effects, set())
    assert [event.stale for event in events(StaleEvent, log)] == [True, False]
    assert not stage.lifecycle.health.mute


def quiet_seconds(
    stage: Stage, seconds: int, silent: set[Topic], behind: Callable[[frozenset[Topic]], frozenset[Topic] | None]
) -> list[do.Effect]:
    """BTC flows, the silent ones say nothing, and REST answers each question."""
    log: list[do.Effect] = []
    for _ in range(seconds):
        stage.data()
        effects = stage.pass_time(1.0)
        effects += answer_questions(stage, effects, silent)
        for probe in only(do.StartProbe, effects):
            answer = on.ProbeAnswered(probe.epoch, probe.topics, probe.whole_line, behind(probe.topics))
            effects += stage.give(answer)
        log += effects
    return log


def test_a_silent_market_is_subscribed_again_once_a_minute_at_most_while_rest_does_not_say() -> None:
    stage = Stage().live(BTC, ETH)
    log = quiet_seconds(stage, 300, {ETH}, lambda topics: None)
    assert 2 <= len(only(do.SendText, log)) <= 5
    assert not events(StaleEvent, log)


def lively_then_silent_while_rest_is_away() -> Stage:
    """ETH flowed for two minutes; then it goes mute alone, and even a new subscription brings nothing of it."""
    stage = Stage().live(BTC, ETH)
    assert not events(StaleEvent, quiet_seconds(stage, 120, set(), lambda topics: None))
    log = quiet_seconds(stage, 25, {ETH}, lambda topics: None)
    told = events(StaleEvent, log)
    assert [(event.symbols, event.stale) for event in told] == [(("KRW-ETH",), True)]
    assert "REST cannot say" in told[0].reason
    assert stage.lifecycle.health.mute == {ETH}
    assert len(only(do.SendText, log)) == 1, "the stream is asked"
    return stage


def test_a_lively_market_that_falls_silent_alone_is_not_believed_while_rest_does_not_say() -> None:
    stage = lively_then_silent_while_rest_is_away()
    log = quiet_seconds(stage, 600, {ETH}, lambda topics: None)
    assert not events(StaleEvent, log)
    assert stage.lifecycle.health.mute == {ETH}
    assert 9 <= len(only(do.SendText, log)) <= 11, "the stream is asked once a minute"
    log = quiet_seconds(stage, 15, set(), lambda topics: None)
    assert [event.stale for event in events(StaleEvent, log)] == [False]
    assert not stage.lifecycle.health.mute


def test_a_market_in_doubt_is_put_to_rest_as_soon_as_rest_is_back() -> None:
    stage = lively_then_silent_while_rest_is_away()
    log = quiet_seconds(stage, 25, {ETH}, lambda topics: topics & {ETH})
    assert ["there were trades;" in event.reason for event in events(StaleEvent, log)] == [True]
    assert stage.lifecycle.health.mute == {ETH}
    assert len(only(do.SendText, log)) == 1, "subscribed anew"


def test_a_market_in_doubt_that_was_merely_quiet_is_believed_again_once_rest_says_so() -> None:
    stage = lively_then_silent_while_rest_is_away()
    log = quiet_seconds(stage, 25, {ETH}, lambda topics: frozenset())
    assert [event.stale for event in events(StaleEvent, log)] == [False]
    assert not stage.lifecycle.health.mute


def test_of_a_mute_market_that_shows_snapshots_alone_most_of_each_minute_is_not_believed() -> None:
    stage = Stage().live(BTC, ETH)
    quiet_seconds(stage, 120, set(), lambda topics: None)
    doubted, silent, shown_at = 0, {ETH}, 0
    for second in range(1_200):
        asked = only(do.SendText, quiet_seconds(stage, 1, silent, lambda topics: None))
        shown_at = second if asked else shown_at
        silent = set() if second - shown_at < 10 else {ETH}  # who asks looks ten seconds back
        doubted += stage.lifecycle.health.mute == {ETH}
        assert stage.lifecycle.health.mute or second - shown_at <= 35
    assert doubted > 400


def test_a_market_that_was_always_quiet_and_goes_mute_alone_is_found_out_within_45_seconds() -> None:
    stage = Stage().live(BTC, ETH)
    log = quiet_seconds(stage, 600, {ETH}, lambda topics: frozenset())
    assert not events(StaleEvent, log)
    log = quiet_seconds(stage, 45, {ETH}, lambda topics: topics & {ETH})
    assert [(event.symbols, event.stale) for event in events(StaleEvent, log)] == [(("KRW-ETH",), True)]
    assert stage.lifecycle.health.mute == {ETH}
    assert len(only(do.SendText, log)) == 1, "subscribed anew"
    assert not only(do.Drop, log)


def test_quiet_markets_cost_two_questions_to_rest_a_minute_however_many_they_are() -> None:
    quiet = {Topic(DataType.TICKER, f"KRW-Q{number}") for number in range(250)}
    stage = Stage().live(BTC, *quiet)
    log = quiet_seconds(stage, 600, quiet, lambda topics: frozenset())
    asked = [probe.topics for probe in only(do.StartProbe, log)]
    assert 15 <= len(asked) <= 20
    assert max(map(len, asked)) <= 100
    assert frozenset().union(*asked[:3]) == quiet, "each has its turn"


def test_a_quiet_market_that_rest_says_nothing_about_is_asked_about_again() -> None:
    stage = Stage().live(BTC, ETH)
    assert len(only(do.StartProbe, quiet_seconds(stage, 120, {ETH}, lambda topics: None))) >= 3
    assert not stage.lifecycle.health.mute


def test_a_rest_period_without_requests_does_not_delay_the_next_probe() -> None:
    stage = Stage().live(BTC)
    stage.request()
    stage.pass_time(25.0)
    stage.request(BTC)
    assert only(do.StartProbe, stage.pass_time(10.5))


# The end


def test_closed_is_terminal_and_whatever_comes_late_changes_nothing() -> None:
    stage = Stage().live(BTC)
    effects = stage.give(on.CloseRequested())
    assert only(do.Drop, effects) == [do.Drop(1000)]
    late: list[on.Input] = [
        on.Opened(), on.OpenFailed(NetworkError("x")), on.Received(b"\x82\x01x"), on.Tick(), on.ConnectionLost("x"),
        on.SubscriptionsChanged(frozenset({SubscriptionRequest(ETH)})), on.CloseRequested(), on.ReconnectRequested("x"),
        on.ClockJumped(9.0), on.Crashed(MemoryError()), on.BanImposed(9.0, "x"),
        on.Noticed(1, 1, [StreamError("x", "x")]), on.ProbeAnswered(1, frozenset(), True, True),
        on.OpenDeferred(RateLimitError("x")),
    ]  # fmt: skip
    assert stage.give(*late) == []
    assert stage.state is CLOSED
    assert stage.lifecycle.next_wake() == float("inf")


@pytest.mark.parametrize("state", [IDLE, CONNECTING, LIVE, WAITING])
def test_every_living_state_can_be_closed(state: ConnectionState) -> None:
    stage = Stage()
    if state is not IDLE:
        stage.request(BTC)
    if state is LIVE:
        stage.give(on.Opened())
    if state is WAITING:
        stage.give(on.OpenFailed(NetworkError("x")), on.OpenFailed(NetworkError("x")))
    assert stage.state is state
    stage.give(on.CloseRequested())
    assert stage.state is CLOSED


def test_the_table_has_no_row_for_closed_and_a_close_for_every_other_state() -> None:
    assert not [row for row in TABLE if row[0] is CLOSED]
    assert {state for state, happened in TABLE if happened is on.CloseRequested} == set(ConnectionState) - {CLOSED}


def test_the_repr_tells_the_state_in_one_line() -> None:
    assert repr(Stage().live(BTC, ETH).lifecycle) == "<Lifecycle session-1 live 2 topics>"
