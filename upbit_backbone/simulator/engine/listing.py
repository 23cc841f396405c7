"""Which pairs exist, in which order, at what price, and how busy they are."""

from __future__ import annotations

import random
from dataclasses import dataclass

from upbit_backbone.simulator.engine.coins import Coin, coins

COUNTS = {"KRW": 289, "BTC": 328, "USDT": 238}
"""Pairs per quote currency, as counted on the real venue."""
KRW_PER = {"KRW": 1.0, "BTC": 131_000_000.0, "USDT": 1_450.0}
SMALLEST_PRICE = 4e-8


@dataclass(slots=True)
class Listing:
    """One pair as `/v1/market/all` knows it, and what the market model needs to bring it to life."""

    code: str
    korean_name: str
    english_name: str
    price: float
    trades_per_minute: float
    warning: bool = False
    cautions: int = 0


def listings(seed: int, wanted: int | list[str] | None) -> list[Listing]:
    """The pairs of one simulated venue, in a stable order with KRW-BTC first."""
    assets = coins(seed, COUNTS["BTC"] + 2)
    everything = [row for quote, count in COUNTS.items() for row in _quoted(quote, assets)[:count]]
    chosen = everything if wanted is None else _choose(everything, assets, wanted)
    rng = random.Random(f"{seed}/alerts")
    for listing in chosen:
        listing.warning = rng.random() < 0.02
        listing.cautions = (1 << rng.randrange(5)) if rng.random() < 0.27 else 0
    return chosen


def _choose(everything: list[Listing], assets: list[Coin], wanted: int | list[str]) -> list[Listing]:
    if isinstance(wanted, int):
        shares = _shares(wanted)
        by_quote = {quote: [row for row in everything if row.code.startswith(quote + "-")] for quote in shares}
        return [row for quote, share in shares.items() for row in by_quote[quote][:share]]
    known = {row.code: row for row in everything}
    return [known.get(code) or _invent(code, assets) for code in wanted]


def _shares(wanted: int) -> dict[str, int]:
    """So many pairs of each quote, in the proportion of the real venue, none below what fits."""
    whole = sum(COUNTS.values())
    if not 1 <= wanted <= whole:
        raise ValueError(f"markets must be 1 to {whole}, or a list of codes")
    shares = {quote: wanted * count // whole for quote, count in COUNTS.items()}
    # What rounding down has left over.
    for quote in list(shares) * 2:
        shares[quote] += 1 if sum(shares.values()) < wanted else 0
    return shares


def _invent(code: str, assets: list[Coin]) -> Listing:
    """A pair that the venue does not have by itself; of a known coin if possible."""
    quote, _, base = code.partition("-")
    if not quote or not base or code != code.upper():
        raise ValueError(f"{code!r} is not a pair like KRW-BTC")
    unknown = Coin(base, base, base.title(), 10.0 * (1 + sum(map(ord, base)) % 900))
    coin = next((coin for coin in assets if coin.symbol == base), unknown)
    return _listing(quote, coin, 0.3)


def _quoted(quote: str, assets: list[Coin]) -> list[Listing]:
    tradable = [coin for coin in assets if coin.symbol != quote and (quote, coin.symbol) != ("BTC", "USDT")]
    return [_listing(quote, coin, _activity(quote, rank)) for rank, coin in enumerate(tradable)]


def _listing(quote: str, coin: Coin, trades_per_minute: float) -> Listing:
    price = max(coin.price / KRW_PER.get(quote, 1_000.0), SMALLEST_PRICE)
    return Listing(f"{quote}-{coin.symbol}", coin.korean_name, coin.english_name, price, trades_per_minute)


def _activity(quote: str, rank: int) -> float:
    """Trades per minute of history: a few busy pairs, many quiet ones, as on the real venue."""
    if quote == "KRW":
        return 2.0 if rank < 6 else 1.2 if rank < 30 else 0.3 if rank < 120 else 0.08
    return 0.15 if rank < 10 else 0.03 if rank < 60 else 0.006
