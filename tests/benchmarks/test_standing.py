"""Where we stand: best peer, limit, how many rows are led, and whether the machine let anybody judge."""

from __future__ import annotations

from benchmarks import machine, standing
from benchmarks.passage import KINDS, by_hand, ours, plain, reads
from benchmarks.table import HANDED, LIMIT, Figure, absent


def figures(**values: float) -> list[Figure]:
    names = {"ours": "upbit_backbone", "callback": "upbit_backbone, callback", "limit": LIMIT, "handed": HANDED}
    return [Figure("trade", names.get(who, who), value, "µs") for who, value in values.items()]


def test_a_row_is_led_where_no_peer_is_better() -> None:
    (row,) = standing.rows(
        {"ingest": [*figures(ours=12.0, pyupbit=27.0, ccxt=24.0, limit=6.0), absent("trade", "sdk", "µs")]}
    )
    assert row.peers == (("ccxt", 24.0), ("pyupbit", 27.0))
    assert row.is_led
    assert row.limit == 6.0
    shown = standing.render([row])
    assert "0.5" in shown
    assert "yes" in shown
    assert standing.summary([row]) == "1 of 1 rows with a peer are led"


def test_of_our_own_ways_the_better_one_stands_for_us() -> None:
    (row,) = standing.rows({"latency": figures(ours=0.17, callback=0.15, cryptofeed=0.09)})
    assert row.ours == 0.15
    assert not row.is_led
    assert standing.summary([row]) == "0 of 1 rows with a peer are led"


def test_where_more_is_better_the_greatest_peer_is_the_best() -> None:
    some = [Figure("calls", who, value, "1/s", at_least=True) for who, value in (("upbit_backbone", 5.0), ("sdk", 9.0))]
    (row,) = standing.rows({"hot": some})
    assert not row.is_led


def test_a_row_with_nothing_beside_ours_is_left_out_and_a_limit_alone_is_no_peer() -> None:
    assert standing.rows({"ingest": figures(ours=1.0)}) == []
    (row,) = standing.rows({"ingest": figures(ours=2.0, limit=1.0)})
    assert row.is_led is None
    assert standing.summary([row]) == "0 of 0 rows with a peer are led"


def test_the_limit_with_a_hand_over_is_no_peer_either() -> None:
    (row,) = standing.rows({"ingest": figures(ours=30.0, handed=20.0, limit=10.0, pyupbit=60.0)})
    assert (row.limit, row.handed, row.peers) == (10.0, 20.0, (("pyupbit", 60.0),))
    assert standing.render([row]).splitlines()[-1].split()[-5:] == ["3", "1.5", "yes", "pyupbit", "60"]


def test_a_busy_machine_is_told_and_an_idle_one_is_no_news() -> None:
    assert machine.judgement(1.4).startswith("TOO BUSY TO JUDGE: others used up to 1.4 of ")
    assert "TOO BUSY" not in machine.judgement(0.1)
    assert machine.others_cores(0.01) >= 0.0


def test_all_three_ways_through_one_thread_see_every_message() -> None:
    for kind in KINDS:
        some = reads(kind, 5, 20)
        for way, close in (ours(kind), plain(), by_hand()):
            assert way(some) == 20
            close()
