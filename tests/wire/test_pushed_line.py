"""What Redis pushes, taken apart: whole or in pieces, and refused where it is none of Redis's."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.errors import InvalidRequestError, NetworkError, ProtocolError, ServerError
from upbit_backbone.wire import pushed_line
from upbit_backbone.wire.frames import MAX_MESSAGE_BYTES
from upbit_backbone.wire.pushed_line import LINE_BYTES, READ_BYTES, WORDS, Answer, PushedLine
from upbit_backbone.wire.redis_server import RedisServer

MESSAGE = b"*3\r\n$7\r\nmessage\r\n$4\r\nlive\r\n$3\r\n{}\n\r\n"
PONG = b"*2\r\n$4\r\npong\r\n$1\r\n7\r\n"


class Connection:
    """Redis-py's, of which only the socket is used."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sent: list[tuple[Any, ...]] = []

    def send_command(self, *words: Any) -> None:
        self.sent.append(words)

    def disconnect(self) -> None:
        self._sock.close()


def explained(text: str) -> Exception | None:
    return InvalidRequestError("keys of another kind") if "WRONGTYPE" in text else None


class Ends:
    """A line, and what is at its other end."""

    def __init__(self) -> None:
        mine, self.others = socket.socketpair()
        server = RedisServer("redis://localhost:1", timeout=1.0, name="test", explain=explained)
        self.connection = Connection(mine)
        self.line = PushedLine(server, self.connection, mine)

    def take(self, *pieces: bytes) -> list[Answer]:
        found: list[Answer] = []
        for piece in pieces:
            self.others.sendall(piece)
            found += self.line.answers()
        return found

    def close(self) -> None:
        self.line.close()
        self.others.close()


@pytest.fixture(params=["held", "as any socket"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    if request.param != "held":
        monkeypatch.setattr(pushed_line, "held_read", lambda *_: None)
    made = Ends()
    yield made
    made.close()


def spelled(answer: Answer) -> bytes:
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%b\r\n" % (len(answer), answer)
    return b"*%d\r\n" % len(answer) + b"".join(map(spelled, answer))


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_it_is_the_same_in_whatever_pieces_it_comes(ends: Ends, size: int) -> None:
    data = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nlive\r\n:1\r\n" + MESSAGE + PONG + b"+PONG\r\n" + MESSAGE
    message: Answer = [b"message", b"live", b"{}\n"]
    subscribed: Answer = [b"subscribe", b"live", 1]
    assert ends.take(*pieces(data, size)) == [subscribed, message, [b"pong", b"7"], b"PONG", message]
    assert not ends.line.has_more
    assert ends.take(b"") == []


WORD = st.binary(max_size=40) | st.integers(0, 1 << 40)
ANSWERS = st.lists(
    st.lists(WORD, min_size=1, max_size=WORDS) | st.tuples(st.just(b"message"), WORD, WORD).map(list), max_size=8
)


@given(answers=ANSWERS, size=st.integers(1, 60))
def test_whatever_words_there_are_they_come_as_they_are(answers: Sequence[Answer], size: int) -> None:
    made = Ends()
    try:
        assert made.take(*pieces(b"".join(map(spelled, answers)), size)) == answers
    finally:
        made.close()


def test_more_than_one_read_takes_comes_all_the_same(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed_line, "READS_AT_ONCE", 1)
    long = spelled([b"message", b"live", b"x" * (READ_BYTES // 4)])
    found: list[Answer] = []
    for _ in range(3):  # a socket pair holds two hundred kilobytes
        ends.others.sendall(long * 4)
        found += ends.line.answers()
        assert ends.line.has_more, "no selector tells of it"
        while ends.line.has_more:
            found += ends.line.answers()
    assert found == [[b"message", b"live", b"x" * (READ_BYTES // 4)]] * 12


def test_what_is_wrong_is_told_behind_what_came_before_it(ends: Ends) -> None:
    ends.others.sendall(MESSAGE + b"-ERR no such thing\r\n")
    answers = ends.line.answers()
    assert next(answers) == [b"message", b"live", b"{}\n"]
    with pytest.raises(ServerError, match="Redis at localhost:1 answers: ERR no such thing"):
        next(answers)


def test_an_answer_is_explained_by_who_knows_it(ends: Ends) -> None:
    with pytest.raises(InvalidRequestError, match="keys of another kind"):
        ends.take(b"-WRONGTYPE of key\r\n")


def test_the_end_comes_behind_what_came_before_it(ends: Ends) -> None:
    ends.others.sendall(MESSAGE)
    ends.others.close()
    found: list[Answer] = []

    def all_of_it() -> None:
        for _ in range(2):
            found.extend(ends.line.answers())

    with pytest.raises(NetworkError, match="Redis at localhost:1 cannot be reached"):
        all_of_it()
    assert found == [[b"message", b"live", b"{}\n"]]


@pytest.mark.parametrize(
    "data",
    [
        b"?\r\n",
        b"*2\r\n$4\r\npong\r\n?7\r\n",
        b"*1\r\n*1\r\n:1\r\n",
        b"*%d\r\n" % (WORDS + 1),
        b"*x\r\n",
        b"$-1\r\n",
        b"$%d\r\n" % (MAX_MESSAGE_BYTES + 1),
        b"$2\r\nabc\r\n",
        b"*3\r\n$7\r\nmessage\r\n$4\r\nlive\r\n$%d\r\n" % (MAX_MESSAGE_BYTES + 1),
        b"*3\r\n$7\r\nmessage\r\n$x\r\nlive\r\n",
        b"*3\r\n$7\r\nmessage\r\n$4\r\nlive?\r\n$1\r\n1\r\n",
        b"+" + b"x" * LINE_BYTES,
        b"$" + b"1" * LINE_BYTES,
    ],
)
def test_what_is_no_answer_of_redis_s_is_refused_at_once(ends: Ends, data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^Redis at localhost:1: no answer of Redis"):
        ends.take(data)


def test_commands_are_sent_by_the_connection(ends: Ends) -> None:
    ends.line.send("SUBSCRIBE", "one", "two")
    assert ends.connection.sent == [("SUBSCRIBE", "one", "two")]
