"""Everything that can go wrong in a simulated world, each with the time by which it must be over."""

from __future__ import annotations

from collections.abc import Callable

from upbit_backbone.errors import (
    AuthenticationError,
    BannedError,
    MaintenanceError,
    NetworkError,
    RateLimitError,
    RequestTimeoutError,
    TlsError,
    UpbitBackboneError,
)
from upbit_backbone.sessions import messages as on

from .server import OFFENSIVE, TOPICS, UNKNOWN, OpenConnection, frame, ping_frame
from .world import HUNT_SECONDS, USUAL_LATENCY, World

CLOSE_CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 4999]
# After a break among other breaks: the retry cap, a slow handshake, and what a slow network adds.
SOON = 6.0
VISIBLE_BOUND, FREEZE_BOUND, STALL_BOUND, OUTAGE_BOUND, LONG_OUTAGE_BOUND = 2.0, 11.0, 15.0, 2.5, 10.5
LONG = 11.0 + SOON  # after more than a minute of trouble an attempt is made every ten seconds
FREEZE = 10.5 + LONG
STALL = 2 * 10.0 + 4.0 + LONG
SETTLING = 45.0  # undisturbed for so long, the retry policy has started over


def _isolated(world: World) -> bool:
    return world.now - world.must_be_ok_at > SETTLING and world.is_ok() and world.line is not None


def _begin(world: World, bound: float, until: float | None = None) -> bool:
    """Register the fault; whether it stands alone, so that its recovery time can be taken."""
    isolated = _isolated(world)
    world.disturb(bound, until)
    return isolated and bool(world.requested - set(OFFENSIVE) - set(UNKNOWN))


def _visible(world: World, kind: str, act: Callable[[OpenConnection], None]) -> None:
    alone = _begin(world, LONG)
    if world.line is not None:
        act(world.line)
        if alone:
            world.measure(kind, VISIBLE_BOUND)


def close(world: World) -> None:
    code = world.random.choice(CLOSE_CODES)
    _visible(world, "close", lambda line: world.end_line(line, code))


def fin(world: World) -> None:
    _visible(world, "fin", lambda line: world.end_line(line, None))


def rst(world: World) -> None:
    _visible(world, "rst", lambda line: world.end_line(line, None, rst=True))


def violation(world: World) -> None:
    def act(line: OpenConnection) -> None:
        line.excuses.add("violation")
        world.send(line, world.random.choice((b"\xff\xff", b"\x83\x00", b"\x82\x80abcd", b"\x82\x7f" + b"\x7f" * 8)))

    _visible(world, "violation", act)


def flap(world: World) -> None:
    world.disturb(LONG, world.now + 10.0)
    for number in range(10):
        world.later(number, lambda: world.line and world.end_line(world.line, 1001))


def freeze(world: World) -> None:
    alone = _begin(world, FREEZE)
    if world.line is not None:
        world.line.is_frozen = True
        world.line.excuses.add("frozen")
        if alone:
            world.measure("freeze", FREEZE_BOUND)


def half_frame_then_freeze(world: World) -> None:
    if world.line is not None and not world.line.is_frozen:
        world.arrived(world.line, b"\x82\x7e\x13\x88abc")
    freeze(world)


def stall(world: World) -> None:
    """The line is mute; the deadline runs from the first trade that is kept from the client."""
    line = world.line
    if line is None or line.is_mute or line.is_frozen or not world.requested or world.trade_rate < 0.2:
        return
    isolated = _isolated(world)
    world.disturb(STALL + 120.0)
    line.is_mute = True
    line.unpictured |= line.missed.keys()
    line.missed.clear()
    world.later(0.5, _await_missed, world, line, world.stirred if isolated else None)


def _await_missed(world: World, line: OpenConnection, stirred: int | None) -> None:
    if line is not world.line:
        return
    if not line.missed:
        world.later(0.5, _await_missed, world, line, stirred)
        return
    stands_alone = stirred == world.stirred
    world.disturb(STALL)
    if stands_alone:
        world.measure("stall", STALL_BOUND, min(line.missed.values()))


def mute_server(world: World) -> None:
    seconds = world.random.uniform(5.0, 60.0)
    world.disturb(STALL + LONG, world.now + seconds)
    world.server_mute_until = world.now + seconds


def mute_topic(world: World) -> None:
    if world.line is not None and world.line.subscribed:
        world.measured = None
        world.line.topic_stalls.add(world.random.choice(sorted(world.line.subscribed)))


def refuse_for(world: World, seconds: float, error: Callable[[], UpbitBackboneError], kind: str) -> None:
    until = world.now + seconds
    slow = 5.0 if isinstance(error(), RequestTimeoutError) else 0.0
    alone = _begin(world, LONG + slow, until)
    world.answer = lambda: error() if world.now < until else None
    if world.line is not None:
        world.end_line(world.line, None, rst=True)
        if alone:
            bound = OUTAGE_BOUND if seconds <= 50.0 else LONG_OUTAGE_BOUND
            world.measure(kind if seconds <= 50.0 else f"long {kind}", bound + slow, until)


def refuse(world: World) -> None:
    refuse_for(world, world.random.uniform(1.0, 50.0), lambda: NetworkError("refused"), "refusal")


def long_outage(world: World) -> None:
    refuse_for(world, world.random.uniform(60.0, 600.0), lambda: NetworkError("unreachable"), "refusal")


def hang(world: World) -> None:
    refuse_for(world, world.random.uniform(1.0, 40.0), lambda: RequestTimeoutError("no answer"), "hanging handshake")


def maintenance(world: World) -> None:
    refuse_for(world, world.random.uniform(1.0, 50.0), lambda: MaintenanceError("503", status=503), "maintenance")


def permanent(world: World) -> None:
    error = world.random.choice((AuthenticationError("403"), TlsError("expired")))
    world.disturb(62.0 + SOON, world.now + 5.0)
    until = world.now + 5.0
    world.answer = lambda: error if world.now < until else None
    if world.line is not None:
        world.end_line(world.line, None)


def too_many(world: World) -> None:
    seconds = world.random.choice((None, 1.0, 5.0, 30.0))
    _once(world, RateLimitError("429", retry_after=seconds), seconds or 1.0, "429")


def ban(world: World) -> None:
    seconds = world.random.uniform(10.0, 120.0)
    world.hold_until = max(world.hold_until, world.now + seconds + SOON)
    _once(world, BannedError("418", retry_after=seconds), seconds, "418")


def _once(world: World, error: RateLimitError, seconds: float, why: str) -> None:
    world.disturb(LONG + 30.0, world.now + seconds)
    left = [error]

    def answer() -> UpbitBackboneError | None:
        if not left:
            return None
        world.judge.forbid(world.now + 0.1, world.now + seconds, why)
        world.disturb(LONG + SOON, world.now + seconds)
        return left.pop()

    world.answer = answer
    if world.line is not None:
        world.end_line(world.line, None)


def told_of_ban(world: World) -> None:
    """Another session met a 418 at its handshake; this one hears of it and neither connects nor speaks."""
    seconds = world.random.uniform(5.0, 60.0)
    world.disturb(LONG + SOON, world.now + seconds)
    world.gate_until = max(world.gate_until, world.now + seconds)
    world.hold_until = max(world.hold_until, world.now + seconds + SOON)
    world.judge.forbid(world.now, world.now + seconds, "banned elsewhere")
    world.feed(on.BanImposed(seconds, "418 at another handshake"))


def crash_loop(world: World) -> None:
    seconds = world.random.uniform(10.0, 60.0)
    world.crash_loop_until = world.now + seconds
    world.disturb(LONG + SOON, world.now + seconds)
    if world.line is not None:
        world.end_line(world.line, None)


def ping_flood(world: World) -> None:
    if world.line is not None and not world.bandwidth:  # or it is all that gets through for a minute
        for _ in range(20):
            world.send(world.line, ping_frame(b"x") * 50)


def slow_network(world: World) -> None:
    world.latency = (0.1, 0.9)
    world.hold_until = max(world.hold_until, world.now + 61.0)

    def over() -> None:
        world.latency = USUAL_LATENCY

    world.later(60.0, over)
    world.measured = None
    world.stirred += 1
    world.must_be_ok_at = max(world.must_be_ok_at, world.now + 62.0)


def _for_a_while(world: World, seconds: float, over: Callable[[], None]) -> None:
    """The line is worse than usual for so long, and the client may give it up for being late."""
    world.disturb(LONG + 30.0, world.now + seconds)
    world.hold_until = max(world.hold_until, world.now + seconds + 30.0)
    world.late_until = max(world.late_until, world.now + seconds + 60.0)
    world.later(seconds, over)


def narrow_line(world: World) -> None:
    """Less gets through than is sent: what comes is ever later."""

    def over() -> None:
        world.bandwidth = 0.0

    world.bandwidth = world.random.uniform(60.0, 150.0)
    _for_a_while(world, world.random.uniform(20.0, 120.0), over)


def long_line(world: World) -> None:
    """Everything is a second or two on its way, in one direction."""

    def over() -> None:
        world.latency = USUAL_LATENCY

    world.latency = (1.0, world.random.uniform(1.2, 1.8))
    _for_a_while(world, world.random.uniform(20.0, 120.0), over)


def doubling_line(world: World) -> None:
    """Frames come twice."""

    def over() -> None:
        world.duplicates = 0.0

    world.duplicates = 0.5
    _for_a_while(world, world.random.uniform(20.0, 120.0), over)


def unordered_line(world: World) -> None:
    """Some messages come after those that were made later, of the same topic and of others."""

    def over() -> None:
        world.reorders = 0.0

    seconds = world.random.uniform(20.0, 120.0)
    world.reorders = world.random.choice((0.1, 0.5))
    _for_a_while(world, seconds, over)
    world.unordered_until = max(world.unordered_until, world.late_until)


def lagging_replica(world: World) -> None:
    """REST shows what was; whether a stream is stalled can be told only later."""

    def over() -> None:
        world.replica_lag = 0.0

    world.replica_lag = world.random.uniform(1.0, 5.0)
    _for_a_while(world, world.random.uniform(20.0, 120.0), over)


def starve(world: World) -> None:
    """The client's thread does not get to run; nothing is wrong with the line."""
    seconds = world.random.uniform(0.5, 12.0)
    world.must_be_ok_at = max(world.must_be_ok_at, world.now) + seconds + 1.0
    world.measured = None
    world.stirred += 1
    world.starve(seconds)


def sleep(world: World) -> None:
    alone = _begin(world, LONG)
    world.wall_ahead += world.random.uniform(3.0, 3600.0)
    if world.line is not None:
        world.line.is_frozen = True
    world.feed(on.ClockJumped(60.0), "slept")
    if alone:
        world.measure("sleep", VISIBLE_BOUND)


def crash(world: World) -> None:
    """The session's thread fails; its driver closes the connection and reports."""
    alone = _begin(world, LONG)
    if world.line is not None:
        world.feed(on.Crashed(MemoryError()), "crash")
        if alone:
            world.measure("crash", VISIBLE_BOUND)


def asked_to_reconnect(world: World) -> None:
    alone = _begin(world, LONG)
    if world.line is not None:
        world.feed(on.ReconnectRequested("asked"), "asked")
        if alone:
            world.measure("asked", VISIBLE_BOUND)


def unprovoked_error(world: World) -> None:
    if world.line is not None and world.line.subscribed:
        world.disturb(LONG + 2 * SOON)
        line = world.line
        world.hold_until = max(world.hold_until, world.now + 5.0)
        line.excuses.add("error")
        world.send(line, frame(b"E|" + world.random.choice((b"Too Many Requests", b"TOO_MANY_REQUESTS"))))
        world.later(0.15, world.end_line, line, 1000)


def change_requests(world: World) -> None:
    some = world.random.sample(TOPICS, world.random.randint(1, len(TOPICS)))
    world.request(set(some))


def churn(world: World) -> None:
    """A hundred changes within a second."""
    for _ in range(100):
        world.later(world.random.random(), _toggle, world)


def _toggle(world: World) -> None:
    world.request(world.requested ^ {world.random.choice(TOPICS)})


def long_churn(world: World) -> None:
    """Five changes a second for more than a minute: the limit per minute."""
    for _ in range(350):
        world.later(world.random.uniform(0.0, 70.0), _toggle, world)


def want_nothing(world: World) -> None:
    world.request(set())
    world.later(world.random.uniform(0.1, 60.0), change_requests, world)


def want_unknown(world: World) -> None:
    world.request(world.requested | set(UNKNOWN))
    world.later(30.0, lambda: world.request(world.requested - set(UNKNOWN)))


def want_offensive(world: World) -> None:
    """Upbit answers with an error and closes, until the offenders are found and left out."""
    world.disturb(LONG + HUNT_SECONDS)
    world.hunting_until = world.now + HUNT_SECONDS + 60.0
    world.hold_until = max(world.hold_until, world.now + HUNT_SECONDS)
    world.request(world.requested | set(world.random.sample(OFFENSIVE, world.random.randint(1, 2))))
    world.later(HUNT_SECONDS + 60.0, lambda: world.request(world.requested - set(OFFENSIVE)))


def quiet_hour(world: World) -> None:
    usual, world.trade_rate = world.trade_rate, 0.0

    def over() -> None:
        world.trade_rate = max(usual, world.trade_rate)

    world.later(world.random.uniform(60.0, 600.0), over)


FAULTS: dict[Callable[[World], None], float] = {
    close: 3, fin: 2, rst: 2, violation: 1, flap: 0.5, freeze: 2, half_frame_then_freeze: 0.5, stall: 2,
    mute_server: 0.5, mute_topic: 1, refuse: 2, long_outage: 0.2, hang: 1, maintenance: 1, permanent: 0.2,
    too_many: 1, ban: 0.3, told_of_ban: 0.3, crash_loop: 0.5, ping_flood: 0.3, slow_network: 0.3, starve: 1.5,
    sleep: 0.5, crash: 0.5, asked_to_reconnect: 0.5, unprovoked_error: 0.5, change_requests: 3, churn: 1,
    narrow_line: 0.5, long_line: 0.5, doubling_line: 0.5, unordered_line: 0.5, lagging_replica: 0.5,
    long_churn: 0.1, want_nothing: 0.7, want_unknown: 0.4, want_offensive: 0.4, quiet_hour: 0.3,
}  # fmt: skip
