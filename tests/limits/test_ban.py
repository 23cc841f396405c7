"""A 418: nothing is sent until its end, then exactly one request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.exchange.status import DEFAULT_BAN_SECONDS
from upbit_backbone.limits.ban import CAREFUL_SECONDS, LONGEST_BAN_SECONDS, PROBE_SECONDS, Ban


def test_a_good_standing_admits_everything() -> None:
    assert Ban().admits(0.0)
    assert Ban().remaining(0.0) == 0.0
    assert Ban().sending(0.0) == Ban()
    assert Ban().passed(0.0) == Ban()


def test_nothing_is_admitted_before_the_stated_end() -> None:
    ban = Ban().imposed(30.0, sent_at=9.9, now=10.0)
    assert ban.remaining(10.0) == 30.0
    assert not ban.admits(39.99)
    assert ban.admits(40.0)


def test_without_a_stated_time_each_repetition_doubles_the_wait() -> None:
    ban, now, waits = Ban(), 0.0, []
    for _ in range(3):
        ban = ban.imposed(None, sent_at=now, now=now)
        waits.append(ban.remaining(now))
        now = ban.until
        ban = ban.sending(now)
    assert waits == [DEFAULT_BAN_SECONDS, 2 * DEFAULT_BAN_SECONDS, 4 * DEFAULT_BAN_SECONDS]


def test_answers_to_what_was_under_way_are_the_same_ban() -> None:
    ban = Ban().imposed(None, sent_at=9.0, now=10.0)
    assert ban.imposed(None, sent_at=9.5, now=10.5) == ban
    assert ban.imposed(100.0, sent_at=9.5, now=10.5).until == 110.5


def test_after_the_end_one_probe_goes_and_its_success_opens_the_door() -> None:
    ban = Ban().imposed(5.0, sent_at=0.0, now=0.0)
    probing = ban.sending(5.0)
    assert not probing.admits(5.1)
    assert probing.passed(sent_at=-1.0) == probing  # an answer from before the ban proves nothing
    assert probing.passed(sent_at=5.0).admits(5.1)


def test_a_probe_that_was_not_sent_or_never_heard_of_makes_room_for_another() -> None:
    probing = Ban().imposed(5.0, sent_at=0.0, now=0.0).sending(5.0)
    assert probing.withdrawn(5.1).admits(5.1)
    assert probing.admits(5.0 + PROBE_SECONDS)


def test_a_refused_probe_is_a_new_ban() -> None:
    probing = Ban().imposed(5.0, sent_at=0.0, now=0.0).sending(5.0)
    again = probing.imposed(50.0, sent_at=5.0, now=5.2)
    assert again.offences == 2
    assert not again.admits(55.1)


def test_an_old_ban_is_forgiven() -> None:
    ban = Ban().imposed(5.0, sent_at=0.0, now=0.0).sending(5.0).passed(5.0)
    assert ban.imposed(None, sent_at=9000.0, now=9000.0).offences == 1


def test_a_line_that_breaks_in_a_ban_of_rest_may_try_once_a_second() -> None:
    ban = Ban().imposed(60.0, sent_at=0.0, now=0.0)
    assert ban.connect_wait(5.0) == 0.0
    tried = ban.connecting(5.0)
    assert tried.connect_wait(5.0) == CAREFUL_SECONDS
    assert tried.connect_wait(5.0 + CAREFUL_SECONDS) == 0.0
    assert not tried.admits(5.0)  # a request, however, may not


def test_a_refused_handshake_shows_that_the_ban_is_the_whole_ips_and_is_no_second_offence() -> None:
    ban = Ban().imposed(60.0, sent_at=0.0, now=0.0).connecting(5.0)
    refused = ban.imposed(None, sent_at=5.0, now=5.1, at_connect=True)
    assert refused.connect_wait(6.0) == refused.remaining(6.0) == 54.0
    assert (refused.offences, refused.until) == (1, 60.0)
    assert ban.imposed(100.0, sent_at=5.0, now=5.0, at_connect=True).until == 105.0


def test_in_a_later_ban_of_the_same_series_no_handshake_is_tried_to_find_out_again() -> None:
    first = Ban().imposed(60.0, sent_at=0.0, now=0.0).imposed(None, sent_at=5.0, now=5.0, at_connect=True)
    again = first.sending(60.0).imposed(None, sent_at=60.0, now=60.0)
    assert again.connect_wait(61.0) == again.remaining(61.0)
    much_later = first.passed(60.0).imposed(None, sent_at=9000.0, now=9000.0)
    assert much_later.connect_wait(9000.0) == 0.0


@given(stated=st.none() | st.floats(-1e9, 1e12), now=st.floats(0, 1e9))
def test_whatever_is_stated_the_ban_lasts_between_a_second_and_a_day(stated: float | None, now: float) -> None:
    ban = Ban().imposed(stated, sent_at=now, now=now)
    assert 0.99 <= ban.remaining(now) <= LONGEST_BAN_SECONDS + 1
