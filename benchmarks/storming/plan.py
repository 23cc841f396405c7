"""What goes wrong, when, for how long: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from upbit_backbone.simulator import FakeUpbit

FIRST_FAULT_SECONDS = 5.0
SPACING_SECONDS = 20.0
JITTER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    `blocks` is for how many seconds the server can then serve nobody; `group` is the row of the recovery table.
    `lasts` is for how long it goes on doing harm although it could serve, `rest_away` for how long REST is out although
    streams are served. For `unmarked` seconds nobody can know that it blows, so that answers may be as old.
    """

    name: str
    group: str
    blocks: float
    inject: Callable[[FakeUpbit, float], object]
    lasts: float = 0.0
    rest_away: float = 0.0
    unmarked: float = 0.0

    def lasting(self, seconds: float) -> Kind:
        """The same with another time during which nobody is served."""
        return replace(self, blocks=seconds)

    def without_rest_for(self, seconds: float) -> Kind:
        """The same with another time during which REST is out."""
        return replace(self, rest_away=seconds)

    def strike(self, fake: FakeUpbit) -> None:
        self.inject(fake, self.blocks or self.rest_away)


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind at its time, in seconds from the start of the storm."""

    at: float
    kind: Kind

    @property
    def able_again(self) -> float:
        return self.at + self.kind.blocks

    @property
    def over(self) -> float:
        return self.able_again + self.kind.lasts


VISIBLE, POISON, FREEZE, STALL, OUTAGE, REST = "visible", "poison", "freeze", "silent stall", "outage end", "REST only"
BACK_ALONE, BURST, LINE = "line back, REST not", "burst", "slow line"
BURST_TRADES = 50_000
NARROW_BYTES, LONG_SECONDS, DISORDER_SECONDS, REPLICA_SECONDS = 3_000.0, 3.0, 10.0, 4.0
ODD_REST_SECONDS = 10.0


def _handshake_503(fake: FakeUpbit, seconds: float) -> None:
    fake.handshake_fault("status", status=503, seconds=seconds)
    fake.drop_sessions("fin")


def _crash_loop(fake: FakeUpbit, seconds: float) -> None:
    fake.handshake_fault("close_after_101", seconds=seconds)
    fake.drop_sessions("fin")


def _garbage(fake: FakeUpbit, _: float) -> None:
    fake.send_binary(b"\xff\xfe not json \x00")
    fake.send_binary(b'{"ty":"trade","cd":"KRW-BTC","tp":null}')


def _strange(fake: FakeUpbit, _: float) -> None:
    """Words that Upbit may invent tomorrow, and nulls where none were, in frames of every type and rows of REST."""
    stamp = fake.now_ms()
    told = f'"cd":"KRW-BTC","tms":{stamp},"st":"REALTIME"'
    fake.send_json(f'{{"ty":"ticker",{told},"tp":1.0,"c":"SIDEWAYS","ab":"BOTH","ms":null,"dd":"someday"}}')
    fake.send_json(f'{{"ty":"ticker",{told},"tp":null,"c":null}}')
    fake.send_json(f'{{"ty":"trade",{told},"ttms":{stamp},"tp":null,"tv":null,"sid":1}}')
    fake.send_json(f'{{"ty":"orderbook",{told},"tas":null,"tbs":1,"obu":[null,{{"ap":null,"bp":1,"as":1,"bs":1}}]}}')
    fake.send_json(f'{{"ty":"candle.1m",{told},"cdttmu":null,"op":null}}')
    fake.send_json(f'{{"ty":"rumour",{told},"w":[null]}}')
    # The line breaks over it, so that what REST fills the gap with is as odd as what streams.
    fake.rest_fault("*", "odd_rows", times=None, seconds=ODD_REST_SECONDS)
    fake.drop_sessions("fin")


def _banned(fake: FakeUpbit, seconds: float) -> None:
    """The IP is blocked for REST, and then the line breaks."""
    fake.rest_fault("*", status=418, times=None, seconds=seconds, headers={"Retry-After": f"{seconds:.0f}"})
    fake.drop_sessions("fin")


def _out(mode: str, **more: int) -> Callable[[FakeUpbit, float], None]:
    def inject(fake: FakeUpbit, seconds: float) -> None:
        fake.rest_fault("*", mode, times=None, seconds=seconds, **more)
        fake.drop_sessions("rst")

    return inject


def _narrow(fake: FakeUpbit, seconds: float) -> None:
    fake.line_fault(bandwidth=NARROW_BYTES, seconds=seconds)


def _long(fake: FakeUpbit, seconds: float) -> None:
    # What is under way at its end is what comes next, so that the line is in time again only when that has arrived.
    fake.line_fault(latency=LONG_SECONDS, jitter=1.0, seconds=seconds - LONG_SECONDS - 1.0)


def _doubling(fake: FakeUpbit, _: float) -> None:
    fake.line_fault(duplicates=0.5, jitter=0.05, seconds=DISORDER_SECONDS)


def _unordered(fake: FakeUpbit, _: float) -> None:
    # TCP keeps a line's order: it is messages that come after others, of their own market or of another.
    fake.line_fault(reorders=0.5, jitter=0.05, seconds=DISORDER_SECONDS)


def _lagging(fake: FakeUpbit, seconds: float) -> None:
    fake.lagging_replica(REPLICA_SECONDS, lasting=seconds)
    fake.drop_sessions("fin")


def burst_of(count: int) -> Kind:
    """So many trades of one market as fast as the simulator can."""
    return Kind(f"burst of {count:,}", BURST, 0, lambda fake, _: fake.burst("KRW-BTC", count))


KINDS: tuple[Kind, ...] = (
    Kind("close 1000", VISIBLE, 0, lambda fake, _: fake.close_sessions(1000)),
    Kind("close 1001", VISIBLE, 0, lambda fake, _: fake.close_sessions(1001)),
    Kind("close 1011", VISIBLE, 0, lambda fake, _: fake.close_sessions(1011)),
    Kind("FIN", VISIBLE, 0, lambda fake, _: fake.drop_sessions("fin")),
    Kind("RST", VISIBLE, 0, lambda fake, _: fake.drop_sessions("rst")),
    Kind("reserved opcode", VISIBLE, 0, lambda fake, _: fake.send_raw(b"\x83\x02xx")),
    Kind("flap, 5 closes in 5 s", VISIBLE, 0, lambda fake, _: fake.flap(5, 5.0), lasts=4.0),
    Kind("garbage messages", POISON, 0, _garbage),
    Kind("freeze", FREEZE, 12, lambda fake, seconds: fake.freeze(seconds), unmarked=11.0),
    Kind("silent stall", STALL, 16, lambda fake, seconds: fake.mute(seconds=seconds), unmarked=15.5),
    Kind("refused", OUTAGE, 8, lambda fake, seconds: fake.refuse(seconds)),
    Kind("503 at the handshake", OUTAGE, 5, _handshake_503),
    Kind("accepted, then closed", OUTAGE, 4, _crash_loop),
    Kind("unknown words and nulls, FIN", POISON, 0, _strange),
    Kind("REST bans, FIN", BACK_ALONE, 0, _banned, rest_away=60.0),
    Kind("REST hangs, RST", BACK_ALONE, 0, _out("hang"), rest_away=15.0),
    Kind("REST 503, RST", BACK_ALONE, 0, _out("status", status=503), rest_away=15.0),
    Kind("REST garbage, RST", BACK_ALONE, 0, _out("garbage"), rest_away=15.0),
    burst_of(BURST_TRADES),
    Kind("narrow line", LINE, 8, _narrow),
    Kind("long, uneven line", LINE, 10, _long),
    Kind("doubling line", LINE, 0, _doubling),
    Kind("unordered line", LINE, 0, _unordered),
    Kind("REST lags, FIN", BACK_ALONE, 0, _lagging, rest_away=15.0, unmarked=REPLICA_SECONDS),
    Kind("REST answers 503", REST, 0, lambda fake, _: fake.rest_fault("*", status=503, seconds=8.0)),
)
BY_NAME = {kind.name: kind for kind in KINDS}


def plan(seed: int, seconds: float, kinds: Sequence[Kind] = KINDS, spacing: float = SPACING_SECONDS) -> list[Fault]:
    """As many faults as fit: every kind once in random order, then all of them again, never two at a time."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    waiting: list[Kind] = []
    at = min(FIRST_FAULT_SECONDS, spacing)
    while True:
        waiting = waiting or chance.sample(list(kinds), len(kinds))
        kind = waiting.pop()
        start = at + chance.uniform(0, min(JITTER_SECONDS, spacing / 10))
        if start + kind.blocks > seconds:
            return faults
        faults.append(Fault(start, kind))
        at += max(spacing, kind.blocks + 2.0)
