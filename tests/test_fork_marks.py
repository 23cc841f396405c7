"""The marks by which a forked child is known, whoever forked it; the child of a program with one thread is safe."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from upbit_backbone._fork import ForkGuard, PidMark, new_mark, notice

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SCRIPT = """
    import ctypes, os
    from upbit_backbone import _fork
    from upbit_backbone._fork import ForkGuard, PidMark, at_fork, new_mark, notice

    _fork._mark = _fork._coming = {mark}()
    started = []
    at_fork(lambda: started.append(ForkGuard("what starts over")))  # may itself ask whose process this is
    guard = ForkGuard("this")

    def generation(left):
        pid = {fork}()
        if not pid:
            assert guard.is_foreign and not notice()[0] == 0 and len(started) == 1, (guard, started)
            own = ForkGuard("the child's own")
            assert not own.is_foreign and not started.pop().is_foreign
            if left:
                generation(left - 1)
                assert not own.is_foreign
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    generation(2)
    assert not guard.is_foreign and not started and repr(guard) == "<ForkGuard of this>"
"""


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
@pytest.mark.parametrize("mark", ["new_mark", "PidMark"])
def test_children_and_grandchildren_start_over_once_and_know_what_is_not_theirs(mark: str, fork: str) -> None:
    script = dedent(SCRIPT.replace("{mark}", mark).replace("{fork}", fork))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_mark_holds_in_the_process_that_made_it() -> None:
    assert new_mark()[0]
    assert PidMark()[0]
    assert notice() is notice()
    ForkGuard("this").check()
