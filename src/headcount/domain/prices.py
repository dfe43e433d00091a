"""What tokens cost, by the user's own table: prices change, so none is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from headcount.domain.errors import InvalidInput

MILLION: Final = 1_000_000
PRICE_MAX: Final = 1_000_000.0
KINDS: Final = ("input", "output", "cached")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens of the models whose names the pattern fits.

    `cached` None: what came from a cache costs what other input does.
    """

    pattern: str
    input: float
    output: float
    cached: float | None = None


def parse_prices(found: Mapping[str, Any], *, source: str) -> tuple[Price, ...]:
    """Return the table of a TOML file, in its order.

    Raises:
        InvalidInput: a line of it is not a price; says which.
    """
    return tuple(_price(pattern, each, source) for pattern, each in found.items())


def _price(pattern: str, given: object, source: str) -> Price:
    if not isinstance(given, dict) or not {"input", "output"} <= given.keys() <= set(KINDS):
        raise InvalidInput(
            f"{pattern!r} in {source} is not a price",
            hint=f'["{pattern}"] has input, output and perhaps cached: dollars per million tokens',
        )
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= PRICE_MAX:
            raise InvalidInput(
                f"{name} of {pattern!r} in {source} is {value!r}",
                hint="dollars per million tokens, 0 or more",
            )
    return Price(pattern, **{name: float(value) for name, value in given.items()})


def cost(
    prices: tuple[Price, ...], model: str | None, *, input: int | None, output: int | None, cached: int | None
) -> float | None:
    """Return the dollars that these tokens cost by the first price whose pattern fits, None if unknown."""
    price = next((each for each in prices if model is not None and fnmatchcase(model, each.pattern)), None)
    if price is None or input is None or output is None:
        return None
    from_cache = min(cached or 0, input)
    of_cache = price.input if price.cached is None else price.cached
    return ((input - from_cache) * price.input + from_cache * of_cache + output * price.output) / MILLION
