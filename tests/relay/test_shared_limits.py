"""Limits, pauses and bans that machines behind one address keep together at a Redis server."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.support.asking import Asking, assert_limits_were_kept, many_markets, wait_for_more
from tests.support.clock import ManualClock
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import HealthStatus, MarketDataBackbone
from upbit_backbone.errors import BannedError, InvalidRequestError
from upbit_backbone.limits.shared_count import ARRIVED_SECONDS, LOOK_AGAIN_SECONDS, Claim, SharedCount
from upbit_backbone.models.enums import RateGroup
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.upstream import redis_count
from upbit_backbone.upstream.fleet_count import APART_SECONDS, BEAT_SECONDS, WHOLE, FleetCount
from upbit_backbone.upstream.redis_count import BEGIN_SECONDS, HELD_SECONDS

TICKER, CANDLE = RateGroup.TICKER, RateGroup.CANDLE
KEYS = "{upbit}:limits:default:upbit:"
Machine = Callable[..., FleetCount]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def machine(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The count of another machine with each call: it has a temporary folder of its own, if it is not told one."""
    # However slow this machine is, nothing ends, and nobody falls silent or is forgotten, by itself.
    monkeypatch.setattr(redis_count, "HELD_SECONDS", 20.0)
    monkeypatch.setattr(redis_count, "SILENT_SECONDS", 60.0)
    monkeypatch.setattr(redis_count, "MEMBER_SECONDS", 1_000.0)
    monkeypatch.setattr(redis_count, "BEGIN_SECONDS", 0.0)
    with ExitStack() as things:

        def one(
            clock: ManualClock, url: str = server.url, egress: str = "default", folder: Path | None = None
        ) -> FleetCount:
            folder = folder or tmp_path / uuid.uuid4().hex
            folder.mkdir(exist_ok=True)
            monkeypatch.setenv("TMPDIR", str(folder))
            count = FleetCount("upbit", clock, url=url, prefix="upbit", egress=egress)
            monkeypatch.setattr(count._file, "_directory", folder)
            things.callback(leave, count, clock)
            count.users.enter(clock)
            return count

        yield one


def leave(count: FleetCount, user: object) -> None:
    count.users.leave(user)
    count.close()


def taken(count: SharedCount, first: int, number: int, limit: int = 10) -> list[Claim]:
    """As many claims, all of which may leave."""
    claims = [count.take(TICKER, limit, owner) for owner in range(first, first + number)]
    assert [claim.wait for claim in claims] == [0.0] * number
    return claims


# --- requests ---


def test_a_request_counts_for_all_machines_behind_an_address_until_it_is_settled(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    mine, theirs, elsewhere = machine(clock), machine(clock), machine(clock, egress="elsewhere")
    acquainted(server, mine, theirs)
    claims = taken(mine, 1, 6) + taken(theirs, 1, 4)
    assert 0.0 < mine.take(TICKER, 10, 7).wait <= LOOK_AGAIN_SECONDS
    assert theirs.take(TICKER, 10, 7).wait > 0.0
    assert mine.counted(TICKER) == theirs.counted(TICKER) == 10
    assert theirs.take(CANDLE, 10, 8).wait == 0.0  # each group has a count of its own
    taken(elsewhere, 1, 10)  # and each address
    mine.settle(TICKER, 1, claims[0].at, None)  # never sent
    assert not mine.holds(TICKER, 1, claims[0].at)
    assert mine.holds(TICKER, 2, claims[1].at)
    taken(theirs, 9, 1)
    mine.settle(TICKER, 2, claims[1].at, clock.now)
    taken(theirs, 10, 1)
    assert mine.trouble is None


def test_a_redis_that_has_forgotten_what_was_sent_lets_nobody_through_until_that_has_ended(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BEGIN_SECONDS > ARRIVED_SECONDS
    monkeypatch.setattr(redis_count, "BEGIN_SECONDS", 60.0)
    mine, theirs = machine(clock), machine(clock, folder=tmp_path)
    beside = machine(clock, folder=tmp_path)
    acquainted(server, mine, theirs)
    taken(mine, 1, 5)
    taken(theirs, 10, 2)
    taken(beside, 20, 1)
    leave(beside, clock)  # its end is no loss of memory
    taken(theirs, 12, 1)
    seconds, micros = server.client.time()
    server.client.flushall()  # as one does that is started anew before anybody misses it
    newcomer = machine(clock)
    for count in (mine, newcomer, theirs):
        assert count.take(CANDLE, 10, 20).wait > 0.0
    opens = int(server.client.get(f"{KEYS}opening"))
    assert opens >= (seconds + micros / 1e6 + 60.0) * 1000 - 1
    # The minute has passed, or its clock was put back: either way there is nothing to wait for.
    for number, moved in enumerate((-60_000, 3_600_000)):
        server.client.set(f"{KEYS}opening", opens + moved, px=600_000)
        for count in (mine, newcomer, theirs):
            assert count.take(CANDLE, 10, 30 + number).wait == 0.0


@pytest.mark.parametrize("opening", ["soon", "12"])
def test_an_opening_that_is_not_ours_is_refused_by_name(
    machine: Machine, clock: ManualClock, server: RedisServer, opening: str
) -> None:
    server.client.set(f"{KEYS}opening", opening)  # ours ends by itself
    with pytest.raises(InvalidRequestError, match="opening"):
        machine(clock)._redis.take(TICKER, 10, 1)
    assert server.client.get(f"{KEYS}opening") == opening


def test_what_a_process_that_was_killed_had_under_way_ends_by_itself(
    machine: Machine, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_count, "HELD_SECONDS", 0.5)
    taken(machine(clock), 1, 10)  # and nobody settles them
    mine = machine(clock)
    wait_until(lambda: mine.take(TICKER, 10, 1).wait == 0.0, "a place")


def test_a_request_counts_for_as_long_as_its_process_says_that_it_is_under_way(
    machine: Machine, clock: ManualClock, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = machine(clock)
    monkeypatch.setattr(redis_count, "HELD_SECONDS", HELD_SECONDS)
    (claim,) = taken(mine, 1, 1)
    key = f"{KEYS}claims:ticker"
    ((name, first),) = server.client.zrange(key, 0, -1, withscores=True)
    seconds, micros = server.client.time()
    assert first <= seconds * 1000 + micros / 1000 + 4_000  # the most for which it counts should its process be killed
    clock.now += 5.0
    wait_until(lambda: (server.client.zscore(key, name) or 0.0) > first, "it is told of")
    mine.settle(TICKER, 1, claim.at, clock.now)
    monkeypatch.setattr(redis_count, "HELD_SECONDS", 0.5)
    taken(mine, 2, 1)
    clock.now += 60.0  # nobody will ever settle that one
    wait_until(lambda: server.client.zcount(key, f"({server.client.time()[0] * 1000}", "+inf") == 0, "it ends")


def test_nothing_that_is_written_stays_for_ever(machine: Machine, clock: ManualClock, server: RedisServer) -> None:
    mine = machine(clock)
    taken(mine, 1, 1)
    mine.pause(CANDLE, 30.0)
    mine.impose_ban(60.0, None, at_connect=False)
    keys = server.client.keys("*")
    assert sorted(key.removeprefix(KEYS) for key in keys) == [
        "ban",
        "claims:ticker",
        "members",
        "opening",
        "pause:candle",
    ]
    assert all(0 < server.client.pttl(key) < 5_000_000 for key in keys)


# --- bans and pauses, by clocks that say nothing of each other ---


def test_a_ban_that_one_machine_met_is_obeyed_by_all_and_ends_with_one_probe(machine: Machine) -> None:
    clock, other = ManualClock(), ManualClock()
    other.now, other.wall_ahead = 500_000.0, 3_600.0  # it runs for days, and is an hour fast
    mine, theirs = machine(clock), machine(other)
    mine.impose_ban(2.0, None, at_connect=False)
    refused = theirs.take(TICKER, 10, 1)
    assert refused.ban is not None
    assert other.now < refused.ban.until <= other.now + 2.0
    assert 0.0 < refused.wait <= 2.0
    wait_until(lambda: theirs.take(TICKER, 10, 2).wait == 0.0, "the end of the ban")
    clock.now += 2.0
    assert mine.take(TICKER, 10, 3).wait == LOOK_AGAIN_SECONDS  # the other one looks whether it is over
    theirs.settle(TICKER, 2, -1, None)
    assert mine.take(TICKER, 10, 3).wait == 0.0  # it did not send: now this one does
    assert theirs.take(TICKER, 10, 4).wait == LOOK_AGAIN_SECONDS
    mine.passed(clock.now)
    assert theirs.take(TICKER, 10, 4).wait == 0.0
    assert mine.impose_ban(None, None, at_connect=False).offences == 2


def test_lines_that_broke_in_a_ban_try_once_a_second_over_all_machines(machine: Machine, clock: ManualClock) -> None:
    mine, theirs = machine(clock), machine(clock)
    mine.impose_ban(30.0, None, at_connect=False)
    assert mine.connecting().connect_wait(clock.now) == 0.0
    assert 0.0 < theirs.connecting().connect_wait(clock.now) <= 1.0
    mine.impose_ban(30.0, None, at_connect=True)
    assert theirs.connecting().connect_wait(clock.now) > 20.0


def test_a_429_stops_the_group_everywhere_for_as_long_as_upbit_said(machine: Machine, clock: ManualClock) -> None:
    mine, theirs = machine(clock), machine(clock)
    named = mine.pause(TICKER, 300.0)
    assert mine.pause(TICKER, 1.0) >= named  # the longer of two holds
    refused = theirs.take(TICKER, 10, 1)
    assert 290 < refused.wait <= 300
    assert refused.penalised is not None
    assert refused.penalised >= named
    assert theirs.take(CANDLE, 10, 1).wait == 0.0


# --- without Redis ---


def acquainted(server: RedisServer, *counts: FleetCount) -> None:
    """All have asked something, and know the share that each has in such company."""
    for count in counts:
        (claim,) = taken(count, 1, 1)
        count.settle(TICKER, 1, claim.at, None)
    share = WHOLE // (len(counts) + 1)

    def are() -> bool:
        told = [score % WHOLE for _, score in server.client.zrange(f"{KEYS}members", 0, -1, withscores=True)]
        known = [machine.share for count in counts for machine in count._heard.company.others.values()]
        return {share} == {count._heard.company.share for count in counts}.union(told, known) and len(told) == len(
            counts
        )

    wait_until(are, "they are acquainted")
    server.client.delete(f"{KEYS}unaware")  # it ends by itself


def alone_for_long(count: FleetCount, clock: ManualClock) -> None:
    for _ in range(4):
        clock.now += APART_SECONDS / 3
        wait_until(lambda: count._heard.at == clock.now and not count._heard.company.others, "it hears of nobody")


def test_without_redis_each_machine_has_a_share_and_nothing_leaves_in_between(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    mine, theirs = machine(clock), machine(clock)
    acquainted(server, mine, theirs)
    server.kill()
    # The others notice, and what was counted there ends.
    assert mine.take(TICKER, 10, 3).wait == pytest.approx(APART_SECONDS)
    assert "1/3" in str(mine.trouble)  # one for who comes new
    assert "cannot be reached" in str(mine.trouble)
    stand_still(mine, clock)
    taken(mine, 4, 3)
    assert mine.take(TICKER, 10, 9).wait > 0.0
    wait_until(lambda: theirs.trouble is not None, "the other one notices")
    server.start()
    clock.now += ARRIVED_SECONDS
    wait_until(lambda: mine.trouble is theirs.trouble is None, "they return")
    # What mine sent apart counts there from now on, and to each its share is left: the others may not have returned.
    assert mine.counted(TICKER) == theirs.counted(TICKER) == 3
    taken(mine, 10, 1)
    assert mine.take(TICKER, 10, 15).wait > 0.0
    assert theirs.take(TICKER, 10, 15).wait > 0.0
    clock.now += APART_SECONDS
    wait_until(lambda: is_heard(server, mine) and is_heard(server, theirs), "both are heard")
    taken(theirs, 15, 6)
    assert theirs.take(TICKER, 10, 31).wait > 0.0


def test_who_comes_new_leaves_half_to_a_machine_that_believes_to_be_alone(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    """Which goes on with it at once, should it lose Redis before it hears of the other."""
    with ChaosProxy(str(server.socket)) as proxy:
        mine = machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}")
        taken(mine, 1, 1)
        alone_for_long(mine, clock)
        clock.now += BEAT_SECONDS
        proxy.go_away()
        theirs = machine(clock)
        taken(theirs, 10, 4)
        assert theirs.take(TICKER, 10, 14).wait > 0.0
        wait_until(lambda: mine.take(TICKER, 10, 2).wait == 0.0, "it goes on")
        taken(mine, 3, 3)
        assert mine.take(TICKER, 10, 6).wait > 0.0
    server.client.delete(f"{KEYS}unaware")  # it ends by itself, two seconds after
    seem_silent(server, mine)
    assert theirs.take(TICKER, 10, 14).wait > 0.0  # to who is silent the same is left


def test_who_may_have_missed_that_another_came_or_went_stands_still(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    with ChaosProxy(str(server.socket)) as proxy:
        mine, theirs = machine(clock), machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}")
        acquainted(server, mine, theirs)
        taken(theirs, 10, 9)
        leave(theirs, clock)
        wait_until(lambda: not mine._heard.company.others, "it hears that nobody else is there")
        server.kill()
        assert mine.take(TICKER, 10, 2).wait == pytest.approx(APART_SECONDS)
        stranger = machine(clock)
        assert stranger.take(TICKER, 10, 20).wait == pytest.approx(APART_SECONDS)  # never heard of anybody
        stand_still(mine, clock)
        taken(mine, 3, 5)
        assert mine.take(TICKER, 10, 8).wait > 0.0


def test_a_process_that_never_asked_goes_on_at_once_where_its_machine_was_alone(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path
) -> None:
    mine = machine(clock, folder=tmp_path / "one")
    taken(mine, 1, 1)
    alone_for_long(mine, clock)
    server.kill()
    wait_until(lambda: mine.trouble is not None, "the first one notices")
    newcomer = machine(clock, folder=tmp_path / "one")
    wait_until(lambda: newcomer.take(TICKER, 10, 1).wait == 0.0, "a turn")


def test_processes_of_a_machine_send_what_any_of_them_was_told(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path
) -> None:
    mine, theirs = machine(clock, folder=tmp_path / "one"), machine(clock)
    acquainted(server, mine, theirs)
    server.kill()
    newcomer = machine(clock, folder=tmp_path / "one")
    wait_until(lambda: mine.trouble is not None, "the first one notices")
    assert newcomer.take(TICKER, 10, 1).wait > 0.0
    stand_still(newcomer, clock)
    taken(newcomer, 2, 3)
    assert "1/3" in str(newcomer.trouble)
    assert mine.take(TICKER, 10, 3).wait > 0.0


def test_who_returns_brings_back_whom_another_process_of_its_machine_knew(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path
) -> None:
    mine, theirs = machine(clock, folder=tmp_path / "one"), machine(clock)
    acquainted(server, mine, theirs)
    server.kill()
    newcomer = machine(clock, folder=tmp_path / "one")
    assert newcomer.take(TICKER, 10, 1).wait > 0.0
    leave(theirs, clock)  # which Redis does not hear
    leave(mine, clock)
    server.start()
    clock.now += ARRIVED_SECONDS
    wait_until(lambda: newcomer.trouble is None, "it returns")
    assert theirs._redis._member.encode() in newcomer._heard.company.others
    assert newcomer._heard.company.share == WHOLE // 3


def test_who_returns_to_a_server_that_has_forgotten_all_brings_back_whom_he_knew(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    with ChaosProxy(str(server.socket)) as proxy:
        mine, theirs = machine(clock), machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}")
        acquainted(server, mine, theirs)
        proxy.go_away()
        wait_until(lambda: theirs.trouble is not None, "it loses Redis alone")
        server.kill()
        wait_until(lambda: mine.trouble is not None, "the other one loses it as well")
        server.start()
        clock.now += ARRIVED_SECONDS
        wait_until(lambda: mine.trouble is None, "it returns")
        seem_silent(server, theirs)
        stand_still(theirs, clock)
        taken(theirs, 1, 3)
        clock.now += APART_SECONDS
        wait_until(lambda: is_heard(server, mine), "it is heard")
        taken(mine, 10, 7)
        assert mine.take(TICKER, 10, 17).wait > 0.0


def test_what_was_answered_while_redis_was_away_counts_there_once_it_is_back(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    mine = machine(clock)
    claims = taken(mine, 1, 4)
    server.kill()
    wait_until(lambda: mine.trouble is not None, "it loses Redis")
    for owner, ends in ((1, 30.0), (2, 30.0), (3, 0.5)):  # the last has ended by the time that it returns
        mine.settle(TICKER, owner, claims[owner - 1].at, clock.now + ends)
    mine.settle(TICKER, 4, claims[3].at, None)  # never sent
    server.start()  # with nothing kept
    clock.now += ARRIVED_SECONDS
    wait_until(lambda: mine.trouble is None, "it returns")
    assert machine(clock).counted(TICKER) == 2


def test_a_server_that_only_hiccups_sends_nobody_his_own_way(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    with ChaosProxy(str(server.socket)) as proxy:
        theirs, mine = machine(clock), machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}")
        acquainted(server, theirs, mine)
        taken(theirs, 10, 2)
        taken(mine, 20, 2)
        proxy.go_away()
        assert mine.take(TICKER, 10, 22).wait == pytest.approx(APART_SECONDS)
        proxy.come_back()
        wait_until(lambda: not mine._redis._redis._presence.is_away, "it is back")
        assert mine.take(TICKER, 10, 22).wait > 0.0  # it might have forgotten what was sent a moment ago
        clock.now += ARRIVED_SECONDS
        wait_until(lambda: mine.trouble is None, "it returns")
        taken(mine, 22, 3)  # its share is left unused for a while
        assert mine.take(TICKER, 10, 25).wait > 0.0


def test_the_share_of_a_machine_that_alone_lost_redis_is_left_unused(
    machine: Machine, clock: ManualClock, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChaosProxy(str(server.socket)) as proxy:
        mine, theirs = machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}"), machine(clock)
        acquainted(server, mine, theirs)
        proxy.go_away()
        assert mine.take(TICKER, 10, 2).wait == pytest.approx(APART_SECONDS)
        seem_silent(server, mine)
        stand_still(mine, clock)
        taken(theirs, 10, 7)
        assert theirs.take(TICKER, 10, 17).wait > 0.0
        taken(mine, 20, 3)
        assert mine.take(TICKER, 10, 23).wait > 0.0
        wait_until(lambda: theirs._heard.company.share == 333, "what is left is divided anew")
        monkeypatch.setattr(redis_count, "MEMBER_SECONDS", 50.0)  # it has gone for good
        wait_until(lambda: theirs.take(TICKER, 10, 17).wait == 0.0, "its share")
        taken(theirs, 18, 2)
        assert theirs.take(TICKER, 10, 20).wait > 0.0


def test_machines_that_lose_redis_one_after_another_never_have_more_than_the_limit_between_them(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    shares = []
    for number in range(4):  # each comes after the one before has gone
        with ChaosProxy(str(server.socket)) as proxy:
            count = machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}")
            taken(count, number, 1, limit=60)
            shares.append(count._heard.company.share)
            wait_until(lambda count=count: told(server, count) == count._heard.company.share, "its share is known")
        wait_until(lambda count=count: count.trouble is not None, "it notices")
        seem_silent(server, count)
    assert shares == [500, 250, 125, 62]


def test_one_process_that_alone_loses_redis_is_known_of_by_those_of_its_machine(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path
) -> None:
    with ChaosProxy(str(server.socket)) as proxy:
        theirs, mine = machine(clock), machine(clock, folder=tmp_path / "one")
        beside = machine(clock, f"redis://{proxy.address[0]}:{proxy.address[1]}", folder=tmp_path / "one")
        (claim,) = taken(beside, 1, 1)
        beside.settle(TICKER, 1, claim.at, None)
        acquainted(server, theirs, mine)
        wait_until(lambda: beside._heard.company.share == mine._heard.company.share, "it knows as well")
        wait_until(lambda: told(server, mine) == mine._heard.company.share, "and says so")
        proxy.go_away()
        assert beside.take(TICKER, 10, 2).wait == pytest.approx(APART_SECONDS)
        wait_until(lambda: not is_heard(server, mine), "the other one does not say any more that this machine is there")
        stand_still(beside, clock)
        taken(beside, 10, 3)
        assert beside.take(TICKER, 10, 13).wait > 0.0
        taken(theirs, 20, 7)
        assert theirs.take(TICKER, 10, 27).wait > 0.0
        assert mine.take(TICKER, 10, 14).wait > 0.0
        assert mine.trouble is None
        mine.users.leave(clock)
        mine.close()  # and it does not say goodbye for both
        assert server.client.zcard(f"{KEYS}members") == 2


def told(server: RedisServer, count: FleetCount) -> int:
    """The share that others leave to it, should it fall silent."""
    return int((server.client.zscore(f"{KEYS}members", count._redis._member) or 0) % WHOLE)


def seem_silent(server: RedisServer, count: FleetCount) -> None:
    """Its machine was heard a while ago, which it does not say otherwise now."""
    name = count._redis._member
    server.client.zincrby(f"{KEYS}members", -100_000 * WHOLE, name)


def is_heard(server: RedisServer, count: FleetCount) -> bool:
    """Whether the others do not take its machine for silent."""
    heard_at = (server.client.zscore(f"{KEYS}members", count._redis._member) or 0) // WHOLE
    return bool(heard_at > (server.client.time()[0] - 30) * 1000)


def stand_still(count: FleetCount, clock: ManualClock) -> None:
    """As long as a machine does that has lost Redis."""
    stay_apart(count, clock, count._standstill())


def stay_apart(count: FleetCount, clock: ManualClock, seconds: float) -> None:
    """For so long, and say so all the time."""
    for _ in range(10):
        clock.now += seconds / 10
        count._stay_apart()


def test_processes_of_a_machine_know_what_was_asked_before_redis_was_lost(
    machine: Machine, clock: ManualClock, server: RedisServer, tmp_path: Path
) -> None:
    mine, beside = (machine(clock, folder=tmp_path / "one") for _ in range(2))
    taken(mine, 1, 2)
    taken(beside, 11, 2)
    alone_for_long(mine, clock)
    server.kill()
    # There is nobody else whom it would have to wait for.
    wait_until(lambda: mine.take(TICKER, 10, 3).wait == 0.0, "a turn")
    assert "1/2" in str(mine.trouble)
    assert mine.take(TICKER, 10, 4).wait > 0.0
    assert mine.counted(TICKER) == 5


def test_who_has_left_takes_no_share(machine: Machine, clock: ManualClock, server: RedisServer) -> None:
    mine, theirs = machine(clock), machine(clock)
    taken(mine, 1, 1)
    taken(theirs, 1, 1)
    leave(mine, clock)
    wait_until(lambda: server.client.zcard(f"{KEYS}members") == 1, "it is forgotten")
    mine.users.enter(clock)
    taken(mine, 2, 1)
    wait_until(lambda: server.client.zcard(f"{KEYS}members") == 2, "it is known again")


def test_a_machine_that_asks_nothing_is_heard_of(machine: Machine, clock: ManualClock, server: RedisServer) -> None:
    taken(machine(clock), 1, 1)
    (name, first) = server.client.zrange(f"{KEYS}members", 0, 0, withscores=True)[0]
    wait_until(lambda: server.client.zscore(f"{KEYS}members", name) > first, "it says that it is there")


def test_more_machines_than_places_send_less_than_one_a_second_each(
    machine: Machine, clock: ManualClock, server: RedisServer
) -> None:
    server.client.zadd(f"{KEYS}members", {f"{number:x}": 8e15 for number in range(28)})
    mine = machine(clock)
    taken(mine, 1, 1)
    server.kill()
    mine.take(TICKER, 10, 2)
    stay_apart(mine, clock, 10.0)  # and what nobody has settled ends
    (claim,) = taken(mine, 3, 1)
    mine.settle(TICKER, 3, claim.at, clock.now + 1.0)
    stay_apart(mine, clock, 2.9)
    assert mine.take(TICKER, 10, 4).wait > 0.0
    clock.now += 0.2
    assert mine._file.take(TICKER, 1, 5).wait == 0.0


FORKING = """
    import os, sys, threading
    from upbit_backbone._concurrency import SYSTEM_CLOCK, notice
    from upbit_backbone.limits.between_processes import inter_process_limiter
    from upbit_backbone.models.enums import RateGroup
    from upbit_backbone.upstream.fleet_count import FleetCount

    url = sys.argv[1]
    make = lambda: FleetCount("upbit", SYSTEM_CLOCK, url=url, prefix="upbit", egress="default")
    limiter = inter_process_limiter("upbit", SYSTEM_CLOCK, (url,), make)
    user = make
    limiter.enter(user)
    assert limiter.take(RateGroup.TICKER, 10, 1).wait == 0.0

    def hold():
        with limiter._count._redis._redis._presence._lock, limiter._count._lock:
            held.set()
            over.wait()

    held, over = threading.Event(), threading.Event()
    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    child = os.fork()
    if not child:
        notice()
        limiter.leave(user)
        own = inter_process_limiter("upbit", SYSTEM_CLOCK, (url,), make)
        own.enter(user)
        os._exit(0 if own.take(RateGroup.TICKER, 10, 2).wait == 0.0 and own.counted(RateGroup.TICKER) == 2 else 1)
    over.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0
    limiter.leave(user)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_counts_for_itself_whatever_its_parent_was_doing(server: RedisServer, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKING), server.url]
    done = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- what is not ours ---


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("schema", ("SET", "{upbit}:schema", "upbit-backbone relay 1")),
        ("claims:ticker", ("ZADD", f"{KEYS}claims:ticker", 1, "somebody else's")),
        ("claims:ticker", ("SET", f"{KEYS}claims:ticker", "text")),
        ("members", ("ZADD", f"{KEYS}members", 1, "not hexadecimal")),
        ("ban", ("SET", f"{KEYS}ban", "1 17959")),
        ("ban", ("LPUSH", f"{KEYS}ban", "a list")),
        ("pause:ticker", ("SET", f"{KEYS}pause:ticker", "5")),  # ours would end
        ("unaware", ("SET", f"{KEYS}unaware", "abc")),  # ours would end
    ],
)
def test_what_is_not_ours_is_refused_by_name_and_left_alone(
    machine: Machine, clock: ManualClock, server: RedisServer, key: str, command: tuple[object, ...]
) -> None:
    server.client.execute_command(*command)
    before = {name: server.client.dump(name) for name in server.client.keys("*")}
    mine = machine(clock)
    with pytest.raises(InvalidRequestError, match="did not write") as refused:
        mine._redis.take(TICKER, 10, 1)
    assert key.partition(":")[0] in str(refused.value) or "limits:default:upbit:*" in str(refused.value)
    assert len(str(refused.value)) < 400
    assert mine.take(TICKER, 10, 2).wait > 0.0
    stand_still(mine, clock)
    assert "did not write" in str(mine.trouble)
    taken(mine, 3, 1)  # on its own
    assert {name: server.client.dump(name) for name in before} == before


def test_a_user_with_few_rights_is_enough(machine: Machine, clock: ManualClock, server: RedisServer) -> None:
    """Those that the documentation names."""
    rights = "+client +ping +get +time +zadd +evalsha +script +set +pttl +pexpire"
    rights += " +zrange +zcard +zscore +zcount +zrem +zremrangebyscore +zrangebyscore"
    user = ("ACL", "SETUSER", "reader", "on", ">geheim", "%R~{upbit}:*", "%RW~{upbit}:limits:*", *rights.split())
    server.client.execute_command(*user)
    mine = machine(clock, f"unix://reader:geheim@{server.socket}")
    (claim,) = taken(mine, 1, 1)
    assert mine.holds(TICKER, 1, claim.at)
    mine.settle(TICKER, 1, claim.at, clock.now)
    mine.pause(TICKER, 1.0)
    mine.impose_ban(1.0, None, at_connect=False)
    mine.connecting()
    assert mine.trouble is None
    assert "geheim" not in repr(mine)


@pytest.mark.parametrize("egress", ["", "a b", "x" * 65, "{upbit}"])
def test_what_is_no_name_of_an_address_is_refused(machine: Machine, clock: ManualClock, egress: str) -> None:
    with pytest.raises(InvalidRequestError, match="egress"):
        machine(clock, egress=egress)


# --- real processes ---


@pytest.fixture
def upbit() -> Iterator[FakeUpbit]:
    with many_markets(240) as upbit:
        yield upbit


def test_processes_that_share_no_file_share_ten_a_second_at_redis(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as things:
        programs = [
            things.enter_context(Asking(upbit, server.url, tmp_path / str(number), 12, number * 12))
            for number in range(2)
        ]
        for program in programs:
            program.begin()
        assert [program.ends() for program in programs] == [0, 0]
    assert_limits_were_kept(upbit, 24)


CONNECTING = """
    import sys
    from contextlib import ExitStack
    from concurrent.futures import ThreadPoolExecutor
    from upbit_backbone import MarketDataBackbone
    with ExitStack() as things:
        pool = things.enter_context(ThreadPoolExecutor(8))
        markets = [things.enter_context(MarketDataBackbone(timeout_seconds=60)) for _ in range(int(sys.argv[1]))]
        print("ready", flush=True)
        sys.stdin.readline()
        symbol = markets[0].get_markets()[0].symbol
        list(pool.map(lambda market: market.get_ticker(symbol, realtime=True), markets))
"""


@pytest.mark.endurance
def test_handshakes_are_counted_together_as_well(upbit: FakeUpbit, server: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as things:
        programs = [
            things.enter_context(Asking(upbit, server.url, tmp_path / str(number), 4, program=CONNECTING))
            for number in range(2)
        ]
        for program in programs:
            program.begin()
        assert [program.ends() for program in programs] == [0, 0]
    assert len(upbit.wire_log("handshake")) >= 8
    assert upbit.busiest("handshake") <= 5


@pytest.mark.endurance
def test_ten_a_second_are_kept_while_a_process_and_redis_are_killed(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as things:
        programs = [
            things.enter_context(Asking(upbit, server.url, tmp_path / str(number % 2), 60, number * 60))
            for number in range(4)
        ]
        for program in programs:
            program.begin()
        wait_for_more(upbit, 20)
        programs.pop().kill()
        wait_for_more(upbit, 20)
        server.kill()
        wait_for_more(upbit, 20)
        server.start()
        assert [program.ends() for program in programs] == [0, 0, 0]
    assert_limits_were_kept(upbit)


@pytest.mark.endurance
def test_ten_a_second_are_kept_while_redis_is_started_anew_faster_than_anybody_notices(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as things:
        programs = [
            things.enter_context(Asking(upbit, server.url, tmp_path / str(number), 45, number * 45))
            for number in range(2)
        ]
        for program in programs:
            program.begin()
        for _ in range(4):
            wait_for_more(upbit, 12)
            server.kill()
            server.start()
        assert [program.ends() for program in programs] == [0, 0]
    assert_limits_were_kept(upbit, 90)


@pytest.mark.endurance
def test_ten_a_second_are_kept_while_one_machine_is_cut_off_redis(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as things:
        proxy = things.enter_context(ChaosProxy(str(server.socket)))
        gate = f"redis://{proxy.address[0]}:{proxy.address[1]}"
        programs = [
            things.enter_context(Asking(upbit, url, tmp_path / str(number), 70, number * 70))
            for number, url in enumerate((server.url, gate))
        ]
        for program in programs:
            program.begin()
        wait_for_more(upbit, 30)
        proxy.go_away()
        wait_for_more(upbit, 60)
        proxy.come_back()
        assert [program.ends() for program in programs] == [0, 0]
    assert_limits_were_kept(upbit, 140)


@pytest.mark.endurance
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_a_second_are_kept_whoever_is_away_in_whatever_order(
    seed: int, upbit: FakeUpbit, server: RedisServer, tmp_path: Path
) -> None:
    """Two machines with two programs each, and a way to Redis for each program."""
    chance, away = random.Random(seed), set()
    with ExitStack() as things:
        ways = [things.enter_context(ChaosProxy(str(server.socket))) for _ in range(4)]
        programs = [
            things.enter_context(
                Asking(upbit, f"redis://{way.address[0]}:{way.address[1]}", tmp_path / str(each // 2), 60, each * 60)
            )
            for each, way in enumerate(ways)
        ]
        for program in programs:
            program.begin()
        # Nobody can leave a share to a machine that never reached Redis.
        wait_until(
            lambda: [server.client.zcard(key) for key in server.client.keys("*:members")] == [2], "both are there"
        )
        is_dead = False
        for _ in range(24):
            wait_for_more(upbit, chance.randrange(1, 13))
            whom = chance.choice([["redis"], ways[:2], ways[2:], ways[:1], ways[1:2], ways[2:3], ways[3:]])
            if whom == ["redis"]:
                server.start() if is_dead else server.kill()
                is_dead = not is_dead
                continue
            for way in whom:
                way.come_back() if way in away else way.go_away()
            away.symmetric_difference_update(whom)
        if is_dead:
            server.start()
        for way in away:
            way.come_back()
        assert [program.ends(180.0) for program in programs] == [0, 0, 0, 0]
    assert_limits_were_kept(upbit, 240)


def test_a_ban_that_one_backbone_met_is_obeyed_by_one_elsewhere(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as things:
        other = things.enter_context(Asking(upbit, server.url, tmp_path / "other", 1, 0))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        addresses = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url}
        market = things.enter_context(
            MarketDataBackbone(share_limits_at=server.url, share_limits_between_processes=True, **addresses)
        )
        upbit.ban(300)
        with pytest.raises(BannedError):
            market.get_candles("KRW-AA", "1m", count=9)
        refused = len(upbit.requests())
        other.begin()
        assert other.ends() == 1  # BannedError, and nothing was asked
        assert len(upbit.requests()) == refused
        assert upbit.requests()[-1]["status"] == 418


@pytest.mark.endurance
@pytest.mark.parametrize("is_told", [False, True], ids=["at its own server", "where it is told"])
def test_the_relay_of_the_command_line_counts_with_those_it_feeds(
    upbit: FakeUpbit, server: RedisServer, tmp_path: Path, is_told: bool
) -> None:
    with ExitStack() as things:
        elsewhere = RedisServer(Path(things.enter_context(tempfile.TemporaryDirectory())))
        things.callback(elsewhere.close)
        settings = {"TMPDIR": str(tmp_path), "UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES": "1"}
        if is_told:
            settings["UPBIT_BACKBONE_SHARE_LIMITS_AT"] = elsewhere.url
        command = [sys.executable, "-m", "upbit_backbone.cli", "relay", "--redis", server.url, "--prefix", "mine"]
        process = subprocess.Popen(
            [*command, "--symbols", "KRW-AA"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | upbit.environment() | settings,
        )
        things.enter_context(process)
        things.callback(process.kill)
        assert process.stdout is not None
        assert "leads" in process.stdout.readline()
        there, prefix = (elsewhere, "upbit") if is_told else (server, "mine")
        claims = f"{{{prefix}}}:limits:default:*:claims:*"
        wait_until(lambda: there.client.keys(claims), "a request of the relay is counted")
        assert there.client.keys(f"{{{prefix}}}:limits:default:*:members")
        assert (server if is_told else elsewhere).client.keys("*:limits:*") == []


def test_health_says_that_limits_are_not_kept_together(
    upbit: FakeUpbit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    nowhere = f"unix://user:geheim@{tmp_path / 'nowhere'}"
    with MarketDataBackbone(
        share_limits_at=nowhere,
        share_limits_between_processes=True,
        rest_url=upbit.rest_url,
        websocket_url=upbit.websocket_url,
        timeout_seconds=30,
    ) as market:
        market.get_candles("KRW-AA", "1m", count=1)
        health = market.health()
        assert health.status is HealthStatus.DEGRADED
        assert any(reason.startswith("limits are kept on this machine alone") for reason in health.reasons)
        assert "geheim" not in str(health) + repr(market.config)
