"""The scripts by themselves: who leads by Redis's clock, and that nobody else writes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.sinks.conftest import trade
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from upbit_backbone import DataType
from upbit_backbone.errors import NetworkError
from upbit_backbone.exchange.fields import Spelling
from upbit_backbone.models.half_made import Habit, rest_of
from upbit_backbone.models.market import TradeData, frame_of, keep_frame
from upbit_backbone.models.number import plain
from upbit_backbone.models.request import Topic
from upbit_backbone.relay import redis_store
from upbit_backbone.relay.entries import Entry, Latest, entry_of
from upbit_backbone.relay.redis_store import LEASE_SECONDS, NotLeadingError, RedisStore
from upbit_backbone.unify.stream import HEAD_BYTES, StreamDecoder
from upbit_backbone.unify.writer import encode_frame
from upbit_backbone.upstream.stream_history import trade_of
from upbit_backbone.wire.relay_keys import Keys

TICKER, TRADE = Topic(DataType.TICKER, "KRW-BTC"), Topic(DataType.TRADE, "KRW-BTC")
KEYS = Keys("upbit")


@pytest.fixture
def store(server: RedisServer) -> Iterator[Callable[[], RedisStore]]:
    made: list[RedisStore] = []

    def make() -> RedisStore:
        made.append(RedisStore(server.url, KEYS, 10))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_one_leads_until_it_leaves_or_its_lease_ends(store, server: RedisServer) -> None:
    mine, theirs = store(), store()
    lease = mine.lead("mine", None, "", [])
    assert lease is not None
    assert 0 < server.client.pttl(KEYS.leader) <= LEASE_SECONDS * 1000
    assert theirs.lead("theirs", None, "", []) is None
    assert mine.lead("mine", lease, "", ["topics", 3]) == lease
    assert server.client.hget(KEYS.status, "topics") == "3"
    mine.leave(lease)
    second = theirs.lead("theirs", None, "", [])
    assert second is not None
    assert second.token > lease.token
    server.client.delete(KEYS.leader)  # as if its time were over
    third = mine.lead("mine", lease, "", [])
    assert third is not None
    assert third.token > second.token


def test_who_comes_back_under_its_name_does_not_lead_by_what_it_once_was(store) -> None:
    first, again = store(), store()
    assert first.lead("same", None, "", []) is not None
    assert again.lead("same", None, "", []) is None


def test_who_leads_no_more_writes_nothing(store, server: RedisServer) -> None:
    stopped, theirs = store(), store()
    lease = stopped.lead("stopped", None, "", [])
    assert lease is not None
    server.client.delete(KEYS.leader)
    assert theirs.lead("theirs", None, "", []) is not None
    before = set(server.client.keys("*"))
    with pytest.raises(NotLeadingError):
        stopped.publish_latest(lease, [Latest(TICKER, b"{}", "websocket", 1, 1, 1, b"")])
    with pytest.raises(NotLeadingError):
        stopped.publish_entries(lease, [Entry(TRADE, "1", 1, b"{}")])
    with pytest.raises(NotLeadingError):
        stopped.publish_events(lease, [("GapEvent", "{}")])
    stopped.leave(lease)
    assert set(server.client.keys("*")) == before
    assert str(server.client.get(KEYS.leader)).endswith(" theirs")


def test_an_identity_is_published_once_whoever_does_it(store, server: RedisServer) -> None:
    mine, theirs = store(), store()
    entries = [Entry(TRADE, str(number), number, b"%d" % number) for number in range(5)]
    lease = mine.lead("mine", None, "", [])
    assert lease is not None
    assert mine.publish_entries(lease, entries) == 5
    mine.leave(lease)
    second = theirs.lead("theirs", None, "", [])
    assert second is not None
    assert theirs.publish_entries(second, [*entries, Entry(TRADE, "5", 5, b"5"), Entry(TRADE, "5", 5, b"5")]) == 1
    found = [fields["data"] for _, fields in server.client.xrange(KEYS.stream(TRADE))]
    assert found == ["0", "1", "2", "3", "4", "5"]


def test_the_ids_remembered_outlast_the_entries_and_are_bounded(store, server: RedisServer) -> None:
    mine = store()
    lease = mine.lead("mine", None, "", [])
    mine.publish_entries(lease, [Entry(TRADE, str(number), number, b"{}") for number in range(200)])
    assert server.client.zrange(KEYS.published(TRADE), 0, -1) == [str(number) for number in range(180, 200)]


def test_an_older_value_does_not_take_the_place_of_a_newer_one(store, server: RedisServer) -> None:
    mine = store()
    lease = mine.lead("mine", None, "", [])
    for time in (5, 4):
        mine.publish_latest(lease, [Latest(TICKER, b"%d" % time, "websocket", time, 1, 1, b"")])
    assert server.client.hget(KEYS.latest(TICKER), "data") == "5"
    mine.publish_latest(lease, [Latest(TICKER, b"again", "websocket", 5, 2, 1, b"")])
    assert server.client.hget(KEYS.latest(TICKER), "data") == "again"


def test_a_number_below_a_millionth_is_published_as_it_prints() -> None:
    price = plain(Decimal("1.2E-7"))
    entry = entry_of(trade(1, price=price, volume=plain(Decimal("0.00000001"))))
    read = trade_of(entry.frame, datetime.now(UTC))
    assert read is not None
    assert read.price == price


def test_a_trade_is_handed_on_in_the_very_bytes_it_came_in_and_written_anew_once_it_is_another() -> None:
    read = trade(1)
    assert frame_of(read) is None
    written = entry_of(read).frame
    keep_frame(read, b'{"ty":"trade","as":"it came"}')
    assert entry_of(read).frame == frame_of(read) == b'{"ty":"trade","as":"it came"}'
    assert entry_of(replace(read, is_backfilled=True)).frame == written
    assert copy.copy(read) == pickle.loads(pickle.dumps(read)) == read  # noqa: S301 - of our own making
    assert frame_of(copy.copy(read)) is None


def test_of_a_trade_made_by_half_nothing_else_is_made_to_hand_it_on() -> None:
    raw = encode_frame(trade(1), Spelling.SIMPLE)
    half = StreamDecoder().halves(raw[:HEAD_BYTES]).read(raw, datetime.now(UTC), Habit())
    assert isinstance(half, TradeData)
    keep_frame(half, raw)
    assert entry_of(half) == Entry(TRADE, str(half.sequential_id), round(half.timestamp.timestamp() * 1000), raw)
    assert rest_of(half) is not None


def test_who_listens_is_told_an_entry_unless_he_has_had_it(store, server: RedisServer) -> None:
    mine = store()
    lease = mine.lead("mine", None, "", [])
    with server.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(KEYS.live(TRADE))
        wait_until(lambda: server.client.pubsub_numsub(KEYS.live(TRADE))[0][1], "the listener")
        mine.publish_entries(lease, [Entry(TRADE, "1", 1, b"had", is_told=False), Entry(TRADE, "2", 2, b"news")])
        told = wait_until(lambda: listener.get_message(timeout=1), "what is told")
    assert told["data"] == "news"
    assert [fields["data"] for _, fields in server.client.xrange(KEYS.stream(TRADE))] == ["had", "news"]


def test_the_answer_to_entries_may_be_heard_later(store, server: RedisServer) -> None:
    mine, other = store(), store()
    lease = mine.lead("mine", None, "", [])
    mine.send_entries(lease, [Entry(TRADE, str(number), number, b"{}") for number in range(3)])
    assert mine.added() == 3
    server.client.script_flush()
    mine.send_entries(lease, [Entry(TRADE, "3", 3, b"{}")])
    assert mine.added() == 1  # the script was sent again
    mine.leave(lease)
    assert other.lead("other", None, "", [])
    mine.send_entries(lease, [Entry(TRADE, "4", 4, b"{}")])
    with pytest.raises(NotLeadingError):
        mine.added()
    assert server.client.xlen(KEYS.stream(TRADE)) == 4


def test_an_answer_that_nobody_heard_is_not_taken_for_one_to_the_next_question(store, server: RedisServer) -> None:
    mine = store()
    lease = mine.lead("mine", None, "", [])
    mine.send_entries(lease, [Entry(TRADE, "1", 1, b"{}")])
    assert mine.lead("mine", lease, "", []) == lease
    with pytest.raises(NetworkError):
        mine.added()
    mine.send_entries(lease, [Entry(TRADE, "1", 1, b"{}"), Entry(TRADE, "2", 2, b"{}")])
    assert mine.added() in (1, 2)
    assert server.client.xlen(KEYS.stream(TRADE)) == 2


def test_scripts_that_the_server_has_forgotten_are_sent_again(store, server: RedisServer) -> None:
    mine = store()
    lease = mine.lead("mine", None, "", [])
    server.client.script_flush()
    assert mine.publish_entries(lease, [Entry(TRADE, "1", 1, b"{}")]) == 1
    server.kill()
    with pytest.raises(NetworkError):
        mine.publish_entries(lease, [Entry(TRADE, "2", 2, b"{}")])
    server.start()
    lease = mine.lead("mine", lease, "", [])
    assert mine.publish_entries(lease, [Entry(TRADE, "2", 2, b"{}")]) == 1


def test_an_answer_that_came_too_late_is_not_taken_for_one_to_the_next_question(
    store, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "TIMEOUT_SECONDS", 0.2)
    mine = store()
    lease = mine.lead("mine", None, "", [])
    entries = [Entry(TRADE, str(number), number, b"{}") for number in range(5)]
    mine.publish_entries(lease, entries[:2])
    server.client.execute_command("CLIENT", "PAUSE", 400, "ALL")
    with pytest.raises(NetworkError):
        mine.publish_entries(lease, entries[2:3])
    server.client.ping()  # the pause is over
    lease = mine.lead("mine", lease, "", [])
    assert mine.publish_entries(lease, entries) in (2, 3)  # with or without what came too late
    assert server.client.xlen(KEYS.stream(TRADE)) == 5
