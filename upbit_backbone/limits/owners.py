"""Owners: who has a request under way, by one number: a process id, the name space it is valid in, a count."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Final

_NUMBER_BITS: Final = 28
_SPACE_BITS: Final = 10


@cache
def _name_space() -> int:
    """Containers that share a folder do not share process ids: of another name space nothing can be said."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino % (1 << _SPACE_BITS)
    except OSError:
        return 0


def first_owner() -> int:
    """The first name for requests of this process; the next ones follow. Numbered from anywhere: a process may have
    got the id of one that died a moment ago, whose requests still count."""
    process = os.getpid() << _SPACE_BITS | _name_space()
    return process << _NUMBER_BITS | (time.monotonic_ns() >> 10) % (1 << (_NUMBER_BITS - 1))


def stands_still(owner: int) -> bool:
    """Whether its process has ended or was stopped, as far as one can tell."""
    process, space = owner >> (_NUMBER_BITS + _SPACE_BITS), owner >> _NUMBER_BITS & ((1 << _SPACE_BITS) - 1)
    if space != _name_space() or process <= 0 or os.name != "posix":
        return False  # Windows: asking for a process there may end it
    try:
        # The state stands behind the name, which may hold anything: zombie, dead, stopped, traced.
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] in b"ZXTt"
    except (OSError, IndexError):
        pass  # it has ended, or there is no /proc
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
