"""Interrupts and failures at any place where Python itself could deliver one: in turn, or at random by seed.

CPython looks for signals and asynchronous exceptions at few places: after a call of a function written in C, where a
Python function begins, and where a loop jumps back. A trace function counts these places in the code under test and,
at the chosen one, arms the interrupt the way the interpreter does it. What is armed there strikes at the very next
look, so nothing happens here that could not happen in the field.
"""

from __future__ import annotations

import ctypes
import dis
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import upbit_backbone

PACKAGE = str(Path(upbit_backbone.__file__).parent)
OTHERS = tuple(str(Path(module.__file__)) for module in (threading,) if module.__file__)

# Where the interpreter looks: before these are carried out the interrupt is armed.
LOOKING = {code for name, code in dis.opmap.items() if name in {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}}


class Arm:
    """`ARM[number]` raises a signal in this thread: no call of Python's, which would be a place itself.

    (Asynchronous exceptions would go to the thread of that number, which one that is just being started has, too.)
    """

    __getitem__ = getattr(ctypes.CDLL(None), "raise") if sys.platform != "win32" else None


ARM: Any = Arm()


class Injector:
    """Counts the places that `call` comes along; at place `at` (from 0), an interrupt strikes.

    It is a signal, by default Ctrl-C's, whose handler runs there; or `action` is called on top of what runs, as a
    finalizer would be.
    """

    def __init__(
        self,
        *,
        number: int = signal.SIGINT,
        action: Callable[[], object] | None = None,
    ) -> None:
        self.number = number
        self.action = action
        self.place = ""
        self._left = -1
        self._count = 0

    def count(self, call: Callable[[], object]) -> int:
        """How many places there are."""
        self._run(call, -1)
        if not self._count:  # CPython 3.12 tells opcodes only to the second trace function that asks for them
            self._run(call, -1)
        assert self._count, "nothing was traced: no fault would strike"
        return self._count

    def strike(self, call: Callable[[], object], at: int) -> BaseException | None:
        """Run `call` with one interrupt; what it raised."""
        try:
            self._run(call, at)
        except BaseException as error:
            return error
        return None

    def _run(self, call: Callable[[], object], at: int) -> None:
        self._left, self._count, self.place = at, 0, ""
        before = sys.gettrace()

        def trace(frame: FrameType, event: str, _: object) -> Any:
            file = frame.f_code.co_filename
            if not (file.startswith(PACKAGE) or file in OTHERS):
                return None
            frame.f_trace_opcodes = True
            if event != "opcode" or frame.f_code.co_code[frame.f_lasti] not in LOOKING:
                return trace
            self._count += 1
            if self._left == 0:
                self.place = f"{Path(file).name}:{frame.f_lineno} {frame.f_code.co_name}"
                self._left = -1
                if self.action is not None:
                    self.action()
                    return trace
                frame.f_trace = None  # an event of this frame's would be a place of its own
                ARM[self.number]
                return None
            self._left -= 1
            return trace

        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)


class ArmThread:
    """`ARM_THREAD[ident] = kind` raises an exception of that kind in that thread, at its next look."""

    __setitem__ = ctypes.pythonapi.PyThreadState_SetAsyncExc


ARM_THREAD: Any = ArmThread()


class OwnThreads:
    """In a `with` block: counts the places that threads of ours come along that start in it, by name.

    Where one of them comes along `place` for the `turn`-th time (from 0), an exception of this kind is raised there,
    once: as where memory runs out, or C code gives a thread an exception.
    """

    def __init__(self, kind: type[BaseException] = MemoryError, place: str = "", turn: int = 0) -> None:
        self.kind = kind
        self.place = place
        self.struck = ""  # the thread
        self.places: Counter[str] = Counter()
        self._left = turn
        self._lock = threading.Lock()  # guards the counts: every thread of ours comes along
        self._is_over = False

    @classmethod
    def count(cls, call: Callable[[OwnThreads], object]) -> Counter[str]:
        """How often its threads come along each place, where nothing strikes."""
        with cls() as counted:
            call(counted)
        assert counted.places, "nothing was traced: no fault would strike"
        return counted.places

    def __enter__(self) -> Self:
        threading.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)  # type: ignore[arg-type]  # as documented
        self.end()

    def end(self) -> None:
        """Nothing strikes from now on."""
        self._is_over = True

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if self._is_over or self.struck or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event != "opcode" or frame.f_code.co_code[frame.f_lasti] not in LOOKING:
            return self._trace
        name = f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}+{frame.f_lasti} "
        if not self._is_hit(name + frame.f_code.co_name):
            return self._trace
        frame.f_trace = None  # an event of this frame's would be a place of its own
        ident, kind = threading.get_ident(), ctypes.py_object(self.kind)
        ARM_THREAD[ctypes.c_ulong(ident)] = kind
        return None

    def _is_hit(self, name: str) -> bool:
        with self._lock:
            self.places[name] += 1
            if name != self.place or self.struck or self.places[name] <= self._left or self._is_over:
                return False
            self.struck = threading.current_thread().name
            return True
