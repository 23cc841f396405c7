"""Market data for many processes and machines: one of them asks Upbit and publishes to a Redis server, the rest read.

entries ○ says how a datum is written, tail ○ what a server that lost its memory is told again; redis_store ● does all
of it there, by scripts that do a whole thing or nothing; relay ● feeds it while it leads, and stands ready while
another does.
"""

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..models.report import RelayStats
    from .relay import Relay
else:  # few relay, and redis is an extra
    __getattr__, __dir__ = _lazy.attributes(__name__, {"relay": ("Relay", "RelayStats")})

__all__ = ["Relay", "RelayStats"]
