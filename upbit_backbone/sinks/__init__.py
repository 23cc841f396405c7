"""Keep what comes in: in a database, in files, or wherever a `Sink` of yours puts it.

base ○ says what a sink is, columns ○ how a datum lies in columns, watermarks ○ until when everything is there; spool ●
holds what a sink has not taken yet, sink_recorder ● feeds it, sqlite ● is the sink for people without a database,
postgres ● and redis_streams ● are for those with one, ledger ● is what they write down of what is complete, and
day_files ● keeps files by market and day beside a store.
"""

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..models.report import SinkStats
    from .base import Batch, Hole, Sink, Span
    from .day_files import CsvSink, JsonlSink, ParquetSink
    from .postgres import PostgresSink
    from .redis_streams import RedisStreamsSink
    from .sink_recorder import SinkRecorder
    from .sqlite import SqliteSink
else:  # few record
    __getattr__, __dir__ = _lazy.attributes(
        __name__,
        {
            "base": ("Batch", "Hole", "Sink", "Span"),
            "day_files": ("CsvSink", "JsonlSink", "ParquetSink"),
            "postgres": ("PostgresSink",),  # psycopg is an extra
            "redis_streams": ("RedisStreamsSink",),  # and so is redis
            "sink_recorder": ("SinkRecorder", "SinkStats"),
            "sqlite": ("SqliteSink",),
        },
    )

__all__ = [
    "Batch",
    "CsvSink",
    "Hole",
    "JsonlSink",
    "ParquetSink",
    "PostgresSink",
    "RedisStreamsSink",
    "Sink",
    "SinkRecorder",
    "SinkStats",
    "Span",
    "SqliteSink",
]
