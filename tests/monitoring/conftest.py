"""Ready-made facts for the tests of this folder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.clock import START, ManualClock
from upbit_backbone.models.events import ConnectionState
from upbit_backbone.models.report import GroupStats, SessionStats, SubscriptionStats


def session(**changes: Any) -> SessionStats:
    values: dict[str, Any] = {
        "session": "upbit-session-1", "state": ConnectionState.LIVE, "since": START, "topics": 3, "epoch": 1,
        "last_data_age": 0.1, "last_pong_age": 1.0, "pong_seconds": 0.01, "messages": 10, "bytes": 1000,
        "connects": 1, "reconnects": 0, "messages_sent": 1, "malformed": 0, "suspect": False, "last_error": None,
    }  # fmt: skip
    return SessionStats(**(values | changes))


def group(**changes: Any) -> GroupStats:
    values: dict[str, Any] = {
        "group": "ticker", "limit_per_second": 10.0, "available": 9.0, "waiting": 0, "granted": 5, "limited_429": 0,
        "banned_418": 0, "paused_for": 0.0, "breaker": "closed", "requests": 5, "failures": 0, "bytes": 5000,
    }  # fmt: skip
    return GroupStats(**(values | changes))


def subscription(**changes: Any) -> SubscriptionStats:
    values: dict[str, Any] = {
        "subscription": "sub-1", "topics": 1, "policy": "drop_oldest", "received": 100, "delivered": 90, "dropped": 0,
        "pending": 10, "lag": 0.2, "errors": 0, "closed": False,
    }  # fmt: skip
    return SubscriptionStats(**(values | changes))


@pytest.fixture
def hand_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make() -> SimpleNamespace:
    """make.session(…), make.group(…), make.subscription(…): healthy ones, but for the changes given."""
    return SimpleNamespace(session=session, group=group, subscription=subscription, start=START)
