"""A turn of the event loop at a time, until something has happened; and what Qt deletes, deleted now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QCoreApplication, QEvent

from .waiting import wait_until

T = TypeVar("T")


def run_until(condition: Callable[[], T], what: str | Callable[[], str] = "the event loop's turn") -> T:
    """What `condition` says once that is true, with the event loop running meanwhile."""
    application = QCoreApplication.instance()

    def look() -> T:
        application.processEvents()
        return condition()

    return wait_until(look, what)


def deleted(thing: Any) -> None:
    """Have Qt delete it, and what belongs to it, before this returns."""
    thing.deleteLater()
    QCoreApplication.sendPostedEvents(thing, QEvent.Type.DeferredDelete)


def what_is_wrong(errors: str) -> list[str]:
    """The lines a program wrote to stderr, without what Qt itself says where there is no screen and no desktop."""
    usual = ("propagateSizeHints", "XDG_RUNTIME_DIR")
    return [line for line in errors.splitlines() if not any(word in line for word in usual)]
