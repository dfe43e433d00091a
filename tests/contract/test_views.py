"""What every kind of view promises: with tmux, with tmux and without GNU's tail, and without views."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.domain.errors import HeadcountError, InvalidInput
from headcount.domain.model import RunKey
from headcount.runtimes.base import Views
from headcount.runtimes.tmux_view import NoViews
from tests.support.views import Fleet, alive, fleet
from tests.support.waiting import until


@pytest.fixture(params=["gnu", "portable"])
def views(request: pytest.FixtureRequest, home: Path, require_tmux: str) -> Iterator[Fleet]:
    with fleet(home, require_tmux, portable=request.param == "portable") as made:
        yield made


@pytest.fixture(params=["tmux", "none"])
def any_views(request: pytest.FixtureRequest, home: Path, require_tmux: str) -> Iterator[Views]:
    if request.param == "none":
        yield NoViews()
    else:
        with fleet(home, require_tmux) as made:
            yield made.views


def test_nothing_shown_is_a_complete_and_empty_answer(any_views: Views) -> None:
    answer = any_views.list()
    assert answer is not None
    assert not answer


def test_closing_what_is_not_there_finds_it_gone(any_views: Views) -> None:
    assert any_views.close("builder-01jx5e2k9pab12cd")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.b",
        "a:b",
        "a b",
        "#(touch x)",
        "#{pid}",
        "x;",
        "../x",
        "=x",
        "$1",
        "x" * 65,
        "bûilder",
        "x\n",
        "х",
    ],
)
def test_a_name_that_tmux_would_interpret_is_refused(any_views: Views, name: str) -> None:
    with pytest.raises(InvalidInput):
        any_views.close(name)
    with pytest.raises(InvalidInput):
        any_views.hide(name)
    with pytest.raises(HeadcountError):
        any_views.attach_argv(name)


def test_no_views_say_how_to_get_them() -> None:
    assert "apt install tmux" in str(NoViews().available())


def test_no_views_show_nothing_without_complaint(home: Path) -> None:
    NoViews().show(RunKey("builder-01jx5e2k9pab12cd", 1), str(home), runner_pid=os.getpid(), renders=False)


def test_a_run_has_a_session_named_after_its_agent(views: Fleet) -> None:
    before = time.time()
    run = views.shown()
    (session,) = views.views.list() or ()
    assert session.name == session.agent_id == run.name
    assert before - 2 < session.created_at < time.time() + 2


def test_a_view_shows_what_was_written_before_and_after(views: Fleet) -> None:
    run = views.shown(b"first line\n")
    until(lambda: "first line" in views.screen(run), what="the first line")
    run.write("then \u00e9 \u2018\U0001f600\u2019\n".encode())
    until(lambda: "then \u00e9 \u2018\U0001f600\u2019" in views.screen(run), what="the second line")


def test_a_view_begins_with_the_last_lines(views: Fleet) -> None:
    run = views.shown(b"".join(b"line %d.\n" % number for number in range(5000)))
    until(lambda: "line 4999." in views.screen(run), what="the last line")
    assert "line 1000." not in views.screen(run)


def test_a_rendered_run_shows_its_transcript(views: Fleet) -> None:
    run = views.shown(b"not this\n", renders=True)
    run.write(b"a readable line\n", part="transcript")
    until(lambda: "a readable line" in views.screen(run), what="the transcript")
    assert "not this" not in views.screen(run)


def test_a_view_goes_on_with_a_transcript_that_began_anew(views: Fleet) -> None:
    run = views.shown(renders=True)
    run.write(b"old\n", part="transcript")
    until(lambda: "old" in views.screen(run), what="the old transcript")
    (run.path / "transcript").rename(run.path / "transcript.1")
    run.write(b"new\n", part="transcript")
    until(lambda: "new" in views.screen(run), what="the new transcript")


def test_a_view_ends_by_itself_with_the_runner(views: Fleet) -> None:
    ending, staying = views.shown(), views.shown()
    ending.end()
    until(lambda: views.names() == [staying.name], what="the end of the view")


def test_exactly_the_named_session_is_closed(views: Fleet) -> None:
    short, long = views.shown(agent_id="foo"), views.shown(agent_id="foobar")
    assert views.views.close("fo")
    assert views.names() == [short.name, long.name]
    assert views.views.close("foo")
    assert views.names() == [long.name]


def test_exactly_the_named_session_is_hidden_without_waiting(views: Fleet) -> None:
    short, long = views.shown(agent_id="foo"), views.shown(agent_id="foobar")
    views.views.hide("fo")
    views.views.hide(short.name)
    until(lambda: views.names() == [long.name], what="the end of the view")


def test_showing_twice_is_harmless(views: Fleet) -> None:
    run = views.shown(b"once\n")
    first = views.pane_pids()
    views.show(run)
    until(views.settled, what="the second client's end")
    assert views.pane_pids() == first


def test_a_session_that_is_no_view_is_told_apart(views: Fleet) -> None:
    run = views.shown()
    views.ask("new-session", "-d", "-s", "my own", "sleep", "1000")
    found = {each.name: each.agent_id for each in views.views.list() or ()}
    assert found == {run.name: run.name, "my own": None}


def test_shutting_takes_every_session_away(any_views: Views, views: Fleet) -> None:
    any_views.shut()
    assert any_views.list() == ()
    views.shown()
    panes = views.pane_pids()
    views.views.shut()
    until(lambda: not any(map(alive, panes)), what="the end of the views")
    assert views.names() == []
