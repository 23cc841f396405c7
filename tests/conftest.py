"""Every test must leave the process as it found it: no thread, no socket, no child process of ours."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with other work says nothing about a test: neither how long an example took, nor how long it
# took to be made up.
settings.register_profile("busy machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# What is compared with English texts is English, wherever the tests run; also in the processes that they start.
os.environ["UPBIT_BACKBONE_LANGUAGE"] = "en"

# Every simulator is an Upbit of its own, though one may get the port that another had a moment ago: what a test was
# told by its own is no matter of the other worker processes'. What is shared has its tests in tests/limits.
os.environ["UPBIT_BACKBONE_SHARE_LIMITS_BETWEEN_PROCESSES"] = "0"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the tests in the background passes this on, and no program started here would know Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting makes stays to the end: no garbage collection looks through it, neither now nor in a test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


PATIENCE_SECONDS = 3.0  # a closed peer's file descriptor may take a moment to disappear


def open_sockets() -> set[str]:
    """Names of the process's sockets, where the platform tells (Linux); elsewhere nothing."""
    names: set[str] = set()
    try:
        entries = os.listdir("/proc/self/fd")  # twice in each of thousands of tests: no place for a Path
    except FileNotFoundError:
        return names
    for entry in entries:
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            names.add(target)
    return names


def ours(thread: threading.Thread) -> bool:
    return thread.is_alive() and thread is not threading.main_thread() and not thread.name.startswith("pytest")


def close_default_backbone() -> None:
    """The one behind the module's functions is the process's, with the settings of whoever called the first of them."""
    loaded = sys.modules.get("upbit_backbone.default_backbone")  # nobody should load it because of this
    if loaded is not None and loaded._backbone is not None:
        loaded._backbone.close()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread or socket behind. Fixtures of wider scope count as there before."""
    threads_before = set(filter(ours, threading.enumerate()))
    sockets_before = open_sockets()
    yield
    close_default_backbone()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        threads = {thread for thread in threading.enumerate() if ours(thread)} - threads_before
        sockets = open_sockets() - sockets_before
        if not threads and not sockets:
            return
        if time.monotonic() > deadline:
            break
        gc.collect()  # only now, because it costs more than most tests
        threading.Event().wait(0.02)
    pytest.fail(f"left behind: threads {sorted(t.name for t in threads)}, {len(sockets)} sockets")
