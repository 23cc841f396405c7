"""Whenever something is to be said, Upbit's limits hold and nobody waits longer than a second."""

from __future__ import annotations

import itertools
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.sessions.subscription_sender import MessagePacer, PongPacer


@given(st.lists(st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(0.0, 0.05)), min_size=1, max_size=400))
def test_whatever_the_rhythm_of_requests_the_limits_hold_and_each_is_said_within_a_second(pauses: list[float]) -> None:
    pacer, sent, now = MessagePacer(), [], 0.0
    wanted_at: float | None = None
    for pause in pauses:
        now += pause
        while pacer.due <= now:
            sent.append(said_at := pacer.due)
            assert wanted_at is not None
            assert said_at - wanted_at <= 1.0
            pacer.sent(said_at)
            pacer.read(said_at, said_at)
            wanted_at = None
        pacer.want(now)
        wanted_at = now if wanted_at is None else wanted_at
    assert all(later - earlier > 1.0 for earlier, later in zip(sent, sent[5:], strict=False))
    assert all(later - earlier > 60.0 for earlier, later in zip(sent, sent[100:], strict=False))


@given(st.lists(st.floats(0.0, 8.0), min_size=20, max_size=60))
def test_however_late_messages_arrive_no_second_sees_more_than_upbit_allows(ways: list[float]) -> None:
    pacer, arrived, now = MessagePacer(), [], 0.0
    for way in ways:
        pacer.want(now)
        while True:  # each pong is on its way for no time, which is the hardest case
            pongs = [at for _, at in arrived if now < at <= pacer.due]
            if not pongs:
                break
            now = min(pongs)
            pacer.read(max(sent for sent, at in arrived if at == now), now)
        now = max(now, pacer.due)
        pacer.sent(now)
        last = arrived[-1][1] if arrived else 0.0
        arrived.append((now, max(last, now + way)))
    times = [at for _, at in arrived]
    assert all(later - earlier >= 1.0 for earlier, later in zip(times, times[5:], strict=False))


def test_nothing_to_say_is_never_due_and_what_is_taken_back_is_not_said() -> None:
    pacer = MessagePacer()
    assert pacer.due == inf
    pacer.want(1.0)
    pacer.forget()
    assert pacer.due == inf


def test_a_restored_set_does_not_wait_for_company() -> None:
    pacer = MessagePacer()
    pacer.want(5.0)
    pacer.hurry()
    assert pacer.due <= 5.0


def test_a_hold_outlasts_everything_else() -> None:
    pacer = MessagePacer()
    pacer.hold_until(60.0)
    pacer.hold_until(30.0)
    pacer.want(1.0)
    assert pacer.due == 60.0


@given(st.lists(st.floats(0.0, 0.3), max_size=200))
def test_pongs_answer_the_newest_ping_and_never_more_than_ten_times_a_second(pauses: list[float]) -> None:
    pacer, now, pongs = PongPacer(), 0.0, []
    for number, pause in enumerate(pauses):
        now += pause
        pacer.pinged(b"%d" % number)
        payload = pacer.take(now)
        if payload is not None:
            assert payload == b"%d" % number
            pongs.append(now)
    assert all(later - earlier >= 0.0999 for earlier, later in itertools.pairwise(pongs))
    if pauses and pacer.due < inf:
        assert pacer.take(pacer.due) == b"%d" % (len(pauses) - 1)
