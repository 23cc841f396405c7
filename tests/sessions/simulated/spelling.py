"""The simulated server's frames in Upbit's own words, for the real intake."""

from __future__ import annotations

from collections.abc import Callable

from upbit_backbone.models.enums import DataType
from upbit_backbone.models.request import Topic

_TICKER = (
    b'{"ty":"ticker","cd":"%b","op":1,"hp":2,"lp":1,"tp":1,"pcp":1,"c":"RISE","cp":1,"scp":1,"cr":0.1,"scr":0.1,'
    b'"tv":1,"atv":%d,"atv24h":1,"atp":1,"atp24h":1,"tdt":"20261120","ttm":"120000","ttms":%d,"ab":"BID","aav":1,'
    b'"abv":1,"h52wp":9,"h52wdt":"2026-01-01","l52wp":1,"l52wdt":"2026-01-01","ms":"ACTIVE","dd":null,"tms":%d,'
    b'"st":"REALTIME"}'
)
_BOOK = (
    b'{"ty":"orderbook","cd":"%b","tms":%d,"tas":%d,"tbs":2,"obu":[{"ap":11.5,"bp":10.5,"as":1,"bs":2}],'
    b'"st":"REALTIME","lv":0}'
)
_TRADE = (
    b'{"ty":"trade","cd":"%b","tms":%d,"td":"2026-11-20","ttm":"12:00:00","ttms":%d,"tp":1,"tv":1,"ab":"BID","pcp":1,'
    b'"c":"RISE","cp":1,"sid":%d,"bap":2,"bas":1,"bbp":1,"bbs":1,"st":"REALTIME"}'
)
_REST_TICKER = (
    '{"market":"%s","trade_date":"20261120","trade_time":"120000","trade_timestamp":%d,"opening_price":1,'
    '"high_price":2,"low_price":1,"trade_price":1,"prev_closing_price":1,"change":"RISE","change_price":1,'
    '"change_rate":0.1,"signed_change_price":1,"signed_change_rate":0.1,"trade_volume":1,"acc_trade_price":1,'
    '"acc_trade_price_24h":1,"acc_trade_volume":1,"acc_trade_volume_24h":1,"highest_52_week_price":9,'
    '"highest_52_week_date":"2026-01-01","lowest_52_week_price":1,"lowest_52_week_date":"2026-01-01","timestamp":%d}'
)


def rest_tickers(rows: list[tuple[str, int]]) -> bytes:
    """REST's answer about markets, each with the time (ms) of its last trade."""
    return ("[" + ",".join(_REST_TICKER % (symbol, made_at, made_at) for symbol, made_at in rows) + "]").encode()


def speller(topics: list[Topic], begins_at_ms: int) -> Callable[[bytes], bytes]:
    """Makes `D|topic's number|serial|milliseconds since the beginning` what Upbit would send."""

    def spelled(data: bytes) -> bytes:
        number, serial, made_at = map(int, data[2:].split(b"|"))
        topic, stamp = topics[number], begins_at_ms + made_at
        code = topic.symbol.encode()
        if topic.data_type is DataType.TICKER:
            return _TICKER % (code, serial, stamp, stamp)
        if topic.data_type is DataType.ORDERBOOK:
            return _BOOK % (code, stamp, serial)
        return _TRADE % (code, stamp, stamp, stamp)  # the same trade has the same id, however often it is shown

    return spelled
