"""Bytes of records to columns of readings, or to labels; everything wrong with them becomes a `RecordError`.

RecordBatch -> the format's fast path -.
               `-> exact.py, by one ---+-> parts.py: joined in offset order -> finish.py: units, range -> columns
"""

from streamer.codec.codec import Codec
from streamer.codec.times import MAX_TS, MIN_TS, log_time, parse_time
from streamer.codec.wire import JSON, MSGPACK

__all__ = ["JSON", "MAX_TS", "MIN_TS", "MSGPACK", "Codec", "log_time", "parse_time"]
