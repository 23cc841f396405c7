"""The frame reader against RFC 6455: a table of cases, every cut, random bytes, and what it costs."""

from __future__ import annotations

import itertools
import random
import struct
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from upbit_backbone.errors import MessageTooBigError, ProtocolError
from upbit_backbone.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_FRAGMENTS,
    PING,
    PONG,
    TEXT,
    Close,
    FrameReader,
    OversizeViolation,
    Ping,
    Pong,
    ProtocolViolation,
)

DATA, CONTROL = (TEXT, BINARY), (CLOSE, PING, PONG)
RESERVED = (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
OPEN_MESSAGE = "inside a fragmented message"
IDLE = "between messages"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = False,
    width: int | None = None,
    announced: int | None = None,
) -> bytes:
    """A frame as a server might send it; `width` (7, 16, 64) and `announced` bend its length field."""
    length = len(payload) if announced is None else announced
    if width is None:
        width = 7 if length < 126 else 16 if length < 65_536 else 64
    code, tail = {
        7: (length, b""),
        16: (126, struct.pack("!H", length & 0xFFFF)),
        64: (127, struct.pack("!Q", length)),
    }[width]
    key = b"\0\0\0\0" if masked else b""
    return bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | code]) + tail + key + payload


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def outcome(*chunks: bytes, **caps: int) -> list[object]:
    """What a fresh reader makes of these chunks; a violation is told by its close code."""
    reader = FrameReader(**caps)
    events = list(itertools.chain.from_iterable(map(reader.feed, chunks)))
    return [event.close_code if isinstance(event, ProtocolViolation) else event for event in events]


# --- the table ---


def opcode_cases() -> Iterable[tuple[str, bytes, list[object]]]:
    """Opcode x FIN x RSV x mask x state of the message, each with what RFC 6455 demands."""
    for opcode, fin, state in itertools.product(range(16), (True, False), (IDLE, OPEN_MESSAGE)):
        before = b"" if state is IDLE else frame(BINARY, b"a", fin=False)
        whole: list[object]
        if opcode in RESERVED:
            whole = [1002]
        elif opcode in CONTROL:
            whole = [1002] if not fin else [{CLOSE: Close(1005, ""), PING: Ping(b""), PONG: Pong(b"")}[opcode]]
        elif (opcode == CONTINUATION) is (state is IDLE):
            whole = [1002]
        elif not fin:
            whole = []
        else:
            whole = [b""] if state is IDLE else [b"a"]
        yield f"opcode {opcode:#x}, fin={fin}, {state}", before + frame(opcode, fin=fin), whole


def bent_bit_cases() -> Iterable[tuple[str, bytes, list[object]]]:
    for opcode, rsv in itertools.product((*DATA, *CONTROL), range(1, 8)):
        yield f"opcode {opcode:#x} with reserved bits {rsv:03b}", frame(opcode, rsv=rsv), [1002]
    for opcode in (*DATA, *CONTROL):
        yield (
            f"masked opcode {opcode:#x}",
            frame(opcode, b"xx" if opcode != CLOSE else b"", masked=True),
            [1002],
        )
    opened = frame(TEXT, b"a", fin=False)
    yield "masked continuation", opened + frame(CONTINUATION, b"b", masked=True), [1002]
    yield "continuation with a reserved bit", opened + frame(CONTINUATION, b"b", rsv=4), [1002]


def length_cases() -> Iterable[tuple[str, bytes, list[object]]]:
    for length in (0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576):
        payload = b"x" * length
        yield f"binary of {length} bytes", frame(BINARY, payload), [payload]
        yield f"text of {length} bytes", frame(TEXT, payload), [payload]
    for length in (0, 1, 125):
        yield f"length {length} in 16 bits", frame(BINARY, b"x" * length, width=16), [1002]
    for length in (0, 125, 126, 65_535):
        yield f"length {length} in 64 bits", frame(BINARY, b"x" * length, width=64), [1002]
    yield "64-bit length with its top bit", frame(BINARY, width=64, announced=1 << 63), [1002]
    yield "64-bit length of all ones", frame(BINARY, width=64, announced=(1 << 64) - 1), [1002]
    yield "2^40 bytes announced", frame(BINARY, width=64, announced=1 << 40), [1009]
    yield "one byte over a MiB announced", frame(BINARY, announced=1_048_577), [1009]
    for opcode, answer in ((PING, Ping), (PONG, Pong)):
        for length in (1, 125):
            yield (
                f"{answer.__name__} of {length} bytes",
                frame(opcode, b"p" * length),
                [answer(b"p" * length)],
            )
    for opcode, length in itertools.product(CONTROL, (126, 65_536)):
        yield f"control {opcode:#x} of {length} bytes", frame(opcode, b"p" * length), [1002]


def close_cases() -> Iterable[tuple[str, bytes, list[object]]]:
    for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield f"close {code}", frame(CLOSE, close_payload(code, b"bye")), [Close(code, "bye")]
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield f"close with invalid code {code}", frame(CLOSE, close_payload(code)), [1002]
    yield "close with one byte", frame(CLOSE, b"\x03"), [1002]
    yield "close with a reason that is not UTF-8", frame(CLOSE, close_payload(1000, b"\xff")), [1007]
    yield (
        "close with 123 bytes of reason",
        frame(CLOSE, close_payload(1000, b"r" * 123)),
        [Close(1000, "r" * 123)],
    )
    yield "close with 124 bytes of reason", frame(CLOSE, close_payload(1000, b"r" * 124)), [1002]
    yield "data after close", frame(CLOSE) + frame(BINARY, b"late"), [Close(1005, "")]


def message_cases() -> Iterable[tuple[str, bytes, list[object]]]:
    korean = "비트코인".encode()
    first, second = frame(TEXT, korean[:4], fin=False), frame(CONTINUATION, korean[4:])
    yield "a character over two fragments", first + second, [korean]
    yield "ping between fragments", first + frame(PING, b"?") + second, [Ping(b"?"), korean]
    yield "pong between fragments", first + frame(PONG) + second, [Pong(b""), korean]
    yield "close between fragments", first + frame(CLOSE), [Close(1005, "")]
    yield "three fragments", first + frame(CONTINUATION, fin=False) + second, [korean]
    yield "two fragmented messages", (first + second) * 2, [korean, korean]
    yield "empty fragments", frame(BINARY, fin=False) + frame(CONTINUATION), [b""]
    yield "text cut inside a character", frame(TEXT, korean[:4]), [1007]
    yield "fragmented text ending inside a character", first + frame(CONTINUATION), [1007]
    yield "second fragment that is not UTF-8", first + frame(CONTINUATION, b"\xff", fin=False), [1007]
    yield "binary needs no UTF-8", frame(BINARY, b"\xff"), [b"\xff"]
    yield (
        "fragmented binary needs no UTF-8",
        frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION),
        [b"\xff"],
    )
    yield (
        "binary after an invalid looking fragment",
        frame(BINARY, b"\xc3") + frame(TEXT, b"ok"),
        [b"\xc3", b"ok"],
    )
    for name, bad in (
        ("surrogate", b"\xed\xa0\x80"),
        ("overlong slash", b"\xc0\xaf"),
        ("beyond U+10FFFF", b"\xf4\x90\x80\x80"),
        ("lone continuation byte", b"\x80"),
    ):
        yield f"text with a {name}", frame(TEXT, bad), [1007]
    yield (
        "messages before a violation",
        frame(BINARY, b"1") + frame(TEXT, b"2") + frame(3),
        [b"1", b"2", 1002],
    )
    yield "messages after a violation", frame(3) + frame(BINARY, b"lost"), [1002]


TABLE = [*opcode_cases(), *bent_bit_cases(), *length_cases(), *close_cases(), *message_cases()]


def test_the_table_is_no_smaller_than_the_one_other_clients_are_measured_by() -> None:
    assert len(TABLE) >= 86
    assert len({name for name, _, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("wire", "expected"), [pytest.param(*case[1:], id=case[0]) for case in TABLE])
def test_each_case_ends_as_the_rfc_demands(wire: bytes, expected: list[object]) -> None:
    assert outcome(wire) == expected


@pytest.mark.parametrize(
    ("wire", "expected"), [pytest.param(*case[1:], id=case[0]) for case in TABLE if len(case[1]) < 300]
)
def test_each_case_ends_alike_when_its_bytes_come_one_by_one(wire: bytes, expected: list[object]) -> None:
    assert outcome(*(wire[at : at + 1] for at in range(len(wire)))) == expected


# --- cutting ---


def mixed_session() -> tuple[bytes, list[object]]:
    """Every kind of frame and length field, ended by a close."""
    big = bytes(range(256)) * 2
    parts: list[tuple[bytes, list[object]]] = [
        (frame(BINARY, b'{"type":"ticker"}'), [b'{"type":"ticker"}']),
        (frame(BINARY, big), [big]),
        (frame(PING, b"alive?"), [Ping(b"alive?")]),
        (frame(TEXT, "상태".encode()), ["상태".encode()]),
        (frame(TEXT, "상".encode()[:2], fin=False), []),
        (frame(PONG, b"5"), [Pong(b"5")]),
        (frame(CONTINUATION, "상".encode()[2:], fin=False), []),
        (frame(CONTINUATION, b"!" * 130), ["상".encode() + b"!" * 130]),
        (frame(BINARY), [b""]),
        (frame(BINARY, b"y" * 125), [b"y" * 125]),
        (frame(CLOSE, close_payload(1001, b"restart")), [Close(1001, "restart")]),
    ]
    return b"".join(wire for wire, _ in parts), [event for _, events in parts for event in events]


def test_a_session_cut_in_two_anywhere_gives_the_same_events() -> None:
    wire, expected = mixed_session()
    for cut in range(len(wire) + 1):
        assert outcome(wire[:cut], wire[cut:]) == expected, f"cut at {cut}"


def test_a_session_that_ends_anywhere_gives_only_whole_messages() -> None:
    wire, expected = mixed_session()
    for end in range(len(wire)):
        events = outcome(wire[:end])
        assert events == expected[: len(events)], f"ended at {end}"


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (1, 2, 3), (3, 1), (7, 1, 130)])
def test_a_session_in_small_slices_gives_the_same_events(sizes: tuple[int, ...]) -> None:
    wire, expected = mixed_session()
    assert outcome(*slices(wire, sizes)) == expected


def slices(wire: bytes, sizes: Iterable[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(wire):
            return chunks
        chunks.append(wire[at : at + size])
        at += size
    return chunks


def test_a_frame_of_another_length_field_width_each_is_cut_alike_by_both_paths() -> None:
    """The fast path only takes unfragmented binary frames; a text frame of ASCII goes the general way."""
    for length in (0, 1, 2, 3, 124, 125, 126, 127, 255, 256, 1_000, 65_535, 65_536):
        payload = b"z" * length
        assert outcome(frame(BINARY, payload) * 3) == outcome(frame(TEXT, payload) * 3) == [payload] * 3


# --- random bytes ---


def random_wire(rng: random.Random) -> bytes:
    """Half noise, half frames that are nearly right, so that the deep branches are reached."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.randrange(24))
    wire = b""
    for _ in range(rng.randrange(1, 5)):
        opcode = rng.choice((CONTINUATION, TEXT, BINARY, BINARY, CLOSE, PING, PONG, rng.randrange(16)))
        payload = rng.choice((b"", b"a", b"\xec\x83", b"\x03\xe8ok", rng.randbytes(rng.randrange(140))))
        rsv = rng.choice((0, 0, 0, 0, 0, 0, 0, rng.randrange(8)))
        wire += frame(opcode, payload, fin=rng.random() < 0.7, rsv=rsv, masked=rng.random() < 0.03)
    if rng.random() < 0.2:
        at = rng.randrange(len(wire))
        wire = wire[:at] + rng.randbytes(1) + wire[at + 1 :]
    return wire


def test_random_bytes_end_in_events_and_never_depend_on_how_they_were_cut() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  # shown when the test fails: repeats it exactly
    rng = random.Random(seed)
    for _ in range(50_000):  # each wire is read twice
        wire = random_wire(rng)
        whole = outcome(wire)
        cut = rng.randrange(len(wire) + 1)
        step = rng.randrange(1, 4)
        assert outcome(wire[:cut], *slices(wire[cut:], (step,))) == whole, f"seed {seed}: {wire.hex()}"
        assert all(isinstance(event, (bytes, Ping, Pong, Close, int)) for event in whole)
        ends = [isinstance(event, (Close, int)) for event in whole]
        assert not any(ends[:-1])


# --- limits ---


def test_an_oversized_frame_is_refused_by_its_header_before_a_byte_of_it_is_held() -> None:
    reader = FrameReader(max_frame_bytes=1_000)
    [violation] = reader.feed(frame(BINARY, announced=1_001)[:4])
    assert isinstance(violation, OversizeViolation)
    assert isinstance(violation, MessageTooBigError)
    assert violation.close_code == 1009
    assert repr(reader) == "<FrameReader finished>"


def test_frames_of_exactly_the_cap_pass_on_both_paths() -> None:
    for opcode, length in itertools.product(DATA, (125, 126, 1_000)):
        payload = b"x" * length
        assert outcome(frame(opcode, payload), max_frame_bytes=length) == [payload]
        assert outcome(frame(opcode, payload + b"x"), max_frame_bytes=length) == [1009]
        assert outcome(frame(opcode, payload + b"x"), max_message_bytes=length) == [1009]


def test_a_message_may_not_outgrow_its_cap_by_fragments() -> None:
    half = b"x" * 500
    opened = frame(BINARY, half, fin=False)
    assert outcome(opened, frame(CONTINUATION, half), max_message_bytes=1_000) == [half * 2]
    assert outcome(opened, frame(CONTINUATION, half + b"x")[:4], max_message_bytes=1_000) == [1009]


def test_the_cap_counts_one_message_and_not_all_of_them() -> None:
    wire = (frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 400)) * 3
    assert outcome(wire, max_message_bytes=1_000) == [b"x" * 1_000] * 3


def test_control_frames_count_against_no_message() -> None:
    full = frame(BINARY, b"x" * 1_000, fin=False)
    rest = frame(CONTINUATION)
    expected = [Ping(b"alive?"), b"x" * 1_000]
    assert outcome(full, frame(PING, b"alive?"), rest, max_message_bytes=1_000) == expected
    assert outcome(full, frame(PING, b"alive?"), rest, max_fragments=2) == expected


def test_sixty_four_fragments_pass_and_the_next_one_does_not() -> None:
    fragments = frame(BINARY, b"f", fin=False) + frame(CONTINUATION, b"f", fin=False) * (MAX_FRAGMENTS - 2)
    assert outcome(fragments + frame(CONTINUATION, b"f")) == [b"f" * MAX_FRAGMENTS]
    assert outcome(fragments + frame(CONTINUATION, b"f", fin=False) + frame(CONTINUATION, b"f")) == [1009]


def test_a_flood_of_fragments_ends_at_once() -> None:
    piece = frame(CONTINUATION, b"x" * 1_024, fin=False)
    wire = frame(BINARY, b"x" * 1_024, fin=False) + piece * 32_000
    started = time.process_time()
    assert outcome(wire) == [1009]
    assert time.process_time() - started < 0.1


def test_after_a_violation_nothing_is_held_and_nothing_is_read() -> None:
    reader = FrameReader()
    reader.feed(frame(BINARY, b"x" * 100, fin=False))
    assert len(reader.feed(frame(TEXT))) == 1
    assert reader.finished
    assert reader.feed(frame(BINARY, b"late") * 1_000) == []
    assert repr(reader) == "<FrameReader finished>"


def test_after_a_close_nothing_is_read() -> None:
    reader = FrameReader()
    assert reader.feed(frame(CLOSE, close_payload(1000))) == [Close(1000, "")]
    assert reader.finished
    assert reader.feed(frame(BINARY, b"late")) == []


# --- cost ---


def lines_run(work: Callable[[], object]) -> int:
    """Python lines executed by `work`: a cost that no other load on the machine can change."""
    count = 0

    def tracer(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("step", [1, 2, 3])
def test_slicing_costs_in_proportion_to_the_bytes(step: int) -> None:
    def cost(length: int) -> int:
        chunks = slices(frame(BINARY, b"x" * length), (step,))
        return lines_run(lambda: outcome(*chunks))

    assert cost(8_000) <= 2.2 * cost(4_000)


def test_a_mebibyte_byte_by_byte_is_read_in_seconds() -> None:
    """What the line count cannot see: bytes moved. Moving the buffer at each byte would be 2^39 of them."""
    payload = b"x" * 1_048_576
    reader = FrameReader()
    wire = frame(BINARY, payload)
    started = time.process_time()
    events = [event for at in range(len(wire)) for event in reader.feed(wire[at : at + 1])]
    assert events == [payload]
    assert time.process_time() - started < 10


# --- manners ---


def test_a_violation_is_one_of_our_errors_and_says_what_happened() -> None:
    [violation] = FrameReader().feed(frame(BINARY, masked=True))
    assert isinstance(violation, ProtocolError)
    assert str(violation) == "WebSocket protocol violation (1002): the server masked a frame"
    assert violation.__traceback__ is None


def test_a_close_reason_is_safe_to_log() -> None:
    [closed] = FrameReader().feed(frame(CLOSE, close_payload(1000, b"a\n\x1b[31mb")))
    assert closed == Close(1000, "a\\u000a\\u001b[31mb")


def test_the_reader_says_what_it_waits_for() -> None:
    reader = FrameReader()
    reader.feed(frame(TEXT, b"a", fin=False) + b"\x80")
    assert repr(reader) == "<FrameReader 1 bytes of a frame, 1 fragments of a message>"


def test_the_module_does_no_input_or_output() -> None:
    source = sys.modules[FrameReader.__module__]
    assert not {"socket", "threading", "time", "select"} & set(vars(source))
