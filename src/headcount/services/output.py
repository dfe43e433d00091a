"""Read what an agent wrote, during its run or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headcount.domain.errors import InvalidInput
from headcount.domain.output import OutputPage, OutputWish, check_wish, shape
from headcount.runtimes.base import OutputSlice
from headcount.services import given, rights
from headcount.services.context import Context
from headcount.services.search import matcher

STREAMS: Final = ("output", "stderr")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read, not yet checked."""

    agent_id: str
    run: int | None
    stream: str
    format: str
    tail: int | None
    filter: str | None
    max_bytes: int
    cursor: int | None


def _check_types(wish: Wish) -> None:
    given.text("format", wish.format)
    given.maybe_text("filter", wish.filter)
    given.whole("max_bytes", wish.max_bytes)
    for name in ("run", "tail", "cursor"):
        given.maybe_whole(name, getattr(wish, name))


def read(context: Context, wish: Wish) -> OutputPage:
    """Return a page of a run's output; costs what is asked for.

    Raises:
        InvalidInput: unknown format or stream, a pattern that is none, numbers out of range.
        NotFound: no such agent or run.
    """
    _check_types(wish)
    form = check_wish(format=wish.format, tail=wish.tail, max_bytes=wish.max_bytes, cursor=wish.cursor)
    if wish.stream not in STREAMS:
        raise InvalidInput(f"there is no stream {wish.stream[:40]!r}", hint=f"one of {', '.join(STREAMS)}")
    matches = None if wish.filter is None else matcher(wish.filter, monotonic=context.clock.monotonic)
    with context.registry.read() as tx:
        run = rights.existing(tx, wish.agent_id, wish.run)

    def source(offset: int, limit: int) -> OutputSlice:
        return context.placement.read_output(run.path, offset=offset, limit=limit, stream=wish.stream)

    asked = OutputWish(form, wish.tail, matches, wish.max_bytes, wish.cursor, final=not run.live)
    return shape(source, asked, context.harness(run.read_by).read)
