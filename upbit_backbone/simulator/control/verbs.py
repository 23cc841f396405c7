"""What can be asked of a running simulator and done to it: the verbs of the control port."""

from __future__ import annotations

from upbit_backbone.simulator.control.breaking import BreakingVerbs
from upbit_backbone.simulator.control.frames import FrameVerbs
from upbit_backbone.simulator.control.looking import LookingVerbs
from upbit_backbone.simulator.control.market import MarketVerbs


class Verbs(LookingVerbs, BreakingVerbs, FrameVerbs, MarketVerbs):
    """All verbs together."""

    def clear_faults(self) -> None:
        """Everything well-behaved again, except for listeners that were closed for a time."""
        self._context.faults.clear()
        self._context.limits.clear()
        self.thaw()
        self.resume()
