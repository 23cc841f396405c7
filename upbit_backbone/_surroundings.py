"""Surroundings in which nothing of ours can work: refused at construction, in a sentence that names the way out."""

from __future__ import annotations

import sys

from .errors import InvalidRequestError


def check_surroundings() -> None:
    """InvalidRequestError under eventlet's monkey patches. gevent's are fine."""
    patcher = sys.modules.get("eventlet.patcher")
    # Its sockets and locks lack what ours are asked for, and eventlet itself advises against its use.
    if patcher is not None and (patcher.is_monkey_patched("thread") or patcher.is_monkey_patched("socket")):
        raise InvalidRequestError(
            "eventlet.monkey_patch() is active, under which this library cannot keep its streams alive: "
            "use gevent, whose monkey.patch_all() works, or threads"
        )
