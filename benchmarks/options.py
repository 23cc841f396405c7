"""What can be set from the command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` is the length of one measurement; `quick` leaves out what takes long and shortens the rest; `minutes`
    is how long memory is watched, where that is measured."""

    seconds: float = 4.0
    quick: bool = False
    rivals: bool = True
    minutes: float = 0.0

    def count(self, many: int) -> int:
        """A number of repetitions, fewer when in a hurry."""
        return max(1, many // 5) if self.quick else many
