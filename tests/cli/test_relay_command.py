"""The command `relay` beside what the relay itself does: how seldom it looks for garbage."""

from __future__ import annotations

import gc
import weakref

import pytest

from upbit_backbone.cli import relay as command


class Ring:
    """Garbage, once nobody else holds it, that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_is_looked_for_when_it_is_due_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gc.isenabled()
    with command._seldom_collected() as collect_if_due:
        assert not gc.isenabled()
        ring = weakref.ref(Ring())
        collect_if_due()
        assert ring() is not None
    assert gc.isenabled()
    monkeypatch.setattr(command, "COLLECT_SECONDS", 0.0)
    with command._seldom_collected() as collect_if_due:
        ring = weakref.ref(Ring())
        collect_if_due()
        assert ring() is None


def test_who_runs_it_without_a_collector_has_none_afterwards() -> None:
    gc.disable()
    try:
        with command._seldom_collected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
