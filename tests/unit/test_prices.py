"""What tokens cost, by the user's own table."""

from __future__ import annotations

from typing import Any

import pytest

from headcount.domain.errors import InvalidInput
from headcount.domain.prices import cost, parse_prices

TABLE = {
    "big-*": {"input": 3, "output": 15.0, "cached": 0.3},
    "*": {"input": 1.0, "output": 2.0},
}


def test_the_first_pattern_that_fits_counts_and_cached_input_costs_less() -> None:
    prices = parse_prices(TABLE, source="prices.toml")
    assert cost(prices, "big-2", input=1_000_000, output=100_000, cached=400_000) == pytest.approx(
        0.6 * 3 + 0.4 * 0.3 + 0.1 * 15
    )
    assert cost(prices, "small", input=1_000_000, output=0, cached=400_000) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("model", "input", "output"), [(None, 1, 1), ("other", 1, 1), ("big-1", None, 1), ("big-1", 1, None)]
)
def test_what_is_not_known_costs_what_is_not_known(
    model: str | None, input: int | None, output: int | None
) -> None:
    prices = parse_prices({"big-*": TABLE["big-*"]}, source="prices.toml")
    assert cost(prices, model, input=input, output=output, cached=None) is None


@pytest.mark.parametrize(
    "price",
    [
        3,
        {"input": 1},
        {"input": 1, "output": -1},
        {"input": True, "output": 1},
        {"input": 1, "output": 1, "in": 1},
    ],
)
def test_a_line_that_is_no_price_is_named(price: Any) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        parse_prices({"x": price}, source="prices.toml")
