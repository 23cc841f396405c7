"""Which market a symbol means: the one it says, if that exists; another one only if nothing speaks against it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from upbit_backbone._concurrency import SYSTEM_CLOCK, Deadline
from upbit_backbone.channels.markets import MarketDirectory
from upbit_backbone.errors import ClosedError, NetworkError
from upbit_backbone.models.enums import DataSource, Priority
from upbit_backbone.models.market import MarketInfo


class Listing:
    """Upbit's market list, or its refusal to give one, and how often it was asked for."""

    def __init__(self, *codes: str, error: Exception | None = None, unlisted: str | None = None) -> None:
        self.codes, self.error, self.unlisted, self.loads = codes, error, unlisted, 0

    def load(self, deadline: Deadline, priority: Priority) -> list[MarketInfo]:
        self.loads += 1
        if self.error is not None:
            raise self.error
        return [MarketInfo(code, None, None, DataSource.REST) for code in self.codes if code != self.unlisted]

    def refused(self, code: str, deadline: Deadline) -> bool:
        return code not in self.codes


def directory_of(listing: Listing) -> MarketDirectory:
    return MarketDirectory(listing.load, refused=listing.refused, max_age=300.0, clock=SYSTEM_CLOCK)


def meant(listing: Listing, code: str, *, asks: bool = True, seen: Iterable[str] = ()) -> str:
    directory = directory_of(listing)
    directory.learn(seen)
    return directory.meant(code, Deadline.after(5) if asks else None)


@pytest.mark.parametrize("code", ["USDC-BTC", "BTC-USDC", "KRW-BTC", "BTC-USDT", "USDT-BTC", "BTC-KRW"])
def test_a_market_that_exists_as_it_is_said_is_taken_as_it_is_said(code: str) -> None:
    first, _, second = code.partition("-")
    assert meant(Listing("KRW-ETH", code, f"{second}-{first}"), code) == code


def test_the_swapped_market_is_meant_only_where_the_one_said_does_not_exist() -> None:
    listing = Listing("KRW-BTC", "BTC-ETH")
    assert [meant(listing, code) for code in ("BTC-KRW", "ETH-BTC")] == ["KRW-BTC", "BTC-ETH"]


def test_where_neither_exists_the_code_stays_for_the_error_to_name() -> None:
    assert meant(Listing("KRW-BTC"), "XYZ-KRW") == "XYZ-KRW"


def test_having_seen_only_the_swapped_one_proves_nothing_against_the_one_said() -> None:
    listing = Listing("BTC-USDC", "USDC-BTC")
    assert meant(listing, "USDC-BTC", seen=["BTC-USDC"]) == "USDC-BTC"
    assert listing.loads == 1
    assert meant(listing, "USDC-BTC", asks=False, seen=["BTC-USDC"]) == "USDC-BTC"


def test_a_list_that_lacks_the_one_said_proves_nothing_while_upbit_knows_it() -> None:
    assert meant(Listing("BTC-USDC", "USDC-BTC", unlisted="USDC-BTC"), "USDC-BTC") == "USDC-BTC"


def test_a_usual_code_or_one_that_was_seen_costs_no_list() -> None:
    listing = Listing("KRW-BTC")
    assert meant(listing, "KRW-BTC") == "KRW-BTC"
    assert meant(listing, "USDC-BTC", seen=["USDC-BTC"]) == "USDC-BTC"
    assert listing.loads == 0


def test_without_a_list_the_code_is_taken_as_it_is_said() -> None:
    assert meant(Listing(error=NetworkError("cut")), "BTC-KRW") == "BTC-KRW"
    with pytest.raises(ClosedError):
        meant(Listing(error=ClosedError("closed")), "BTC-KRW")


def test_a_market_that_is_listed_twice_is_one_market() -> None:
    listing = Listing("KRW-BTC", "KRW-ETH", "KRW-BTC")
    markets = directory_of(listing).markets(Deadline.after(5.0))
    assert [market.symbol for market in markets] == ["KRW-BTC", "KRW-ETH"]
