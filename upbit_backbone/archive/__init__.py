"""Read back what was kept, and know what is there: `Store` answers, and has fetched what is missing."""

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..sinks.coverage import Coverage, CoverageState
    from .store import FillReport, MarketState, Store, TopicQuality, Unfilled
else:
    __getattr__, __dir__ = _lazy.attributes(
        __name__,
        {"store": ("Coverage", "CoverageState", "FillReport", "MarketState", "Store", "TopicQuality", "Unfilled")},
    )

__all__ = ["Coverage", "CoverageState", "FillReport", "MarketState", "Store", "TopicQuality", "Unfilled"]
