"""When REST counts as slow or failing: measured, with hysteresis, pure.

Two thresholds with room between them, so that a channel on the edge does not flap between two decisions.
"""

from __future__ import annotations

from ..models.metric import PerformanceMetric

MIN_SAMPLES = 10
POOR_SUCCESS_RATE, GOOD_SUCCESS_RATE = 0.7, 0.9
POOR_P95_SECONDS, GOOD_P95_SECONDS = 2.0, 1.0


def is_poor(metric: PerformanceMetric, was_poor: bool) -> bool:
    """Whether a channel counts as poor now, given whether it did before. Few samples change nothing."""
    if metric.samples < MIN_SAMPLES or metric.success_rate is None or metric.p95 is None:
        return was_poor and metric.samples > 0
    success_needed = GOOD_SUCCESS_RATE if was_poor else POOR_SUCCESS_RATE
    p95_allowed = GOOD_P95_SECONDS if was_poor else POOR_P95_SECONDS
    return metric.success_rate < success_needed or metric.p95 > p95_allowed
