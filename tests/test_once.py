"""Parts made at their first use."""

from __future__ import annotations

import threading

import pytest

from upbit_backbone._concurrency import Once


def test_many_threads_at_once_get_the_one_that_was_made() -> None:
    start, made, got = threading.Barrier(16), [], []

    def make() -> object:
        made.append(object())
        return made[-1]

    once = Once(make)

    def ask() -> None:
        start.wait(10)
        got.append(once.get())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert got == made * 16
    assert once.made is made[0]


def test_nothing_is_made_by_looking() -> None:
    once = Once(object)
    assert once.made is None
    assert once.settled() is None
    assert repr(once) == "<Once not made>"


def test_who_fails_to_make_it_is_told_and_the_next_one_tries_again() -> None:
    answers = iter([OSError("not now"), "made"])

    def make() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(OSError, match="not now"):
        once.get()
    assert once.settled() is None
    assert once.get() == "made"


def test_who_closes_waits_for_who_is_making_and_who_only_looks_does_not() -> None:
    making, may_end, settled = threading.Event(), threading.Event(), []

    def make() -> str:
        making.set()
        assert may_end.wait(10)
        return "made"

    once = Once(make)
    maker = threading.Thread(target=once.get)
    closer = threading.Thread(target=lambda: settled.append(once.settled()))
    maker.start()
    assert making.wait(10)
    assert once.made is None
    closer.start()
    assert settled == []
    may_end.set()
    maker.join(10)
    closer.join(10)
    assert settled == ["made"]


def test_a_signal_handler_may_close_on_the_thread_that_is_making() -> None:
    found = []
    once: Once[str] = Once(lambda: found.append(once.settled()) or "made")
    assert once.get() == "made"
    assert found == [None]
