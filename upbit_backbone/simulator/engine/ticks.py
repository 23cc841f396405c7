"""Upbit's price grids. All prices are integers in units of 1e-8, so that no price ever passes through a float."""

from __future__ import annotations

from bisect import bisect_right

UNIT = 100_000_000

_KRW = [
    (0, 1), (1_000, 10), (10_000, 100), (100_000, 1_000), (1_000_000, 10_000), (10_000_000, 100_000),
    (100_000_000, 1_000_000), (10 * UNIT, UNIT // 10), (100 * UNIT, UNIT), (1_000 * UNIT, UNIT),
    (5_000 * UNIT, 5 * UNIT), (10_000 * UNIT, 10 * UNIT), (50_000 * UNIT, 50 * UNIT),
    (100_000 * UNIT, 100 * UNIT), (500_000 * UNIT, 500 * UNIT), (1_000_000 * UNIT, 1_000 * UNIT),
]  # fmt: skip
_USDT = [
    (0, 1), (10_000, 10), (100_000, 100), (1_000_000, 1_000), (10_000_000, 10_000), (100_000_000, 100_000),
    (10 * UNIT, 1_000_000),
]  # fmt: skip
# KRW-USDT and KRW-USDC have a tick of 0.5 won between 1,000 and 10,000.
_STABLE = [(low, UNIT // 2 if 1_000 * UNIT <= low < 10_000 * UNIT else tick) for low, tick in _KRW]
_BOUNDS = {id(table): [low for low, _ in table] for table in (_KRW, _USDT, _STABLE)}


class TickGrid:
    """The price grid of one pair."""

    def __init__(self, code: str) -> None:
        quote = code.partition("-")[0]
        self.quote = quote
        self._table = _STABLE if code in ("KRW-USDT", "KRW-USDC") else _KRW if quote == "KRW" else _USDT
        self._bounds = _BOUNDS[id(self._table)]
        self._fixed = 1 if quote == "BTC" else 0

    def tick(self, price: int) -> int:
        """The tick in force at `price`."""
        return self._fixed or self._table[bisect_right(self._bounds, price) - 1][1]

    def stretch(self, price: int) -> tuple[int, int, int]:
        """The tick in force at `price`, and from which price to before which one it is."""
        if self._fixed:
            return self._fixed, 0, price + 1
        place = bisect_right(self._bounds, price)
        is_last = place == len(self._bounds)
        return self._table[place - 1][1], self._bounds[place - 1], price + 1 if is_last else self._bounds[place]

    def round(self, price: int) -> int:
        """The nearest allowed price, never zero."""
        tick = self.tick(price)
        return max(tick, (price + tick // 2) // tick * tick)

    def up(self, price: int, steps: int = 1) -> int:
        for _ in range(steps):
            price += self.tick(price)
        return price

    def down(self, price: int, steps: int = 1) -> int:
        """The allowed price `steps` below; 0 when there is none."""
        for _ in range(steps):
            if price <= 0:
                return 0
            price -= self.tick(price - 1)
        return max(0, price)

    def levels(self, price: int) -> list[int]:
        """The supported groupings of the order book: 0, and for KRW the powers of ten above the tick."""
        # Upbit groups only won books.
        if self.quote != "KRW":
            return [0]
        step, levels = 10 * self.tick(price), [0]
        power = 1
        while power < step:
            power *= 10
        while power <= price:
            levels.append(power)
            power *= 10
        return levels
