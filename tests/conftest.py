"""Every test has a home of its own, and leaves nothing: no process, no socket, no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftovers, needs, private

_LEFT = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Turn the run away from the user's home and tmux server before anything is imported."""
    if hasattr(config, "workerinput"):
        return  # inherited from the process that leads the run
    root = private.make_root(os.environ)
    config.option.basetemp = config.option.basetemp or root / "t"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if it left anything; last, so that xdist's workers are gone."""
    if hasattr(session.config, "workerinput"):
        return
    root = Path(os.environ[private.MARK])
    left = [str(each) for each in leftovers.await_none(root)] + leftovers.sockets_under(root)
    leftovers.end_all(root)
    left += leftovers.unmount(root)
    private.remove(root)
    session.config.stash[_LEFT] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left; it has been killed."""
    for each in config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND by this run: {each}", red=True)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point everything at a place of this test's own, and look afterwards what it left there."""
    place = private.place_for_a_test(Path(os.environ[private.MARK]))
    before = {child.pid for child in leftovers.children_of(os.getpid())}
    monkeypatch.setenv("HEADCOUNT_HOME", str(place / "h"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
    (place / "run").mkdir(mode=0o700)
    yield place / "h"
    used = (place / "h").exists()
    left = leftovers.await_none(place) if used else []
    killed = leftovers.end_all(place) if left else []
    left += [child for child in leftovers.children_of(os.getpid()) if child.pid not in before]
    leftovers.remove_cgroups(place / "h")
    private.remove(place)
    if left:
        killed_pids = {each.pid for each in killed}
        pytest.fail(
            "the test left these processes (killed: "
            f"{sorted(killed_pids)}):\n" + "\n".join(map(str, dict.fromkeys(left))),
            pytrace=False,
        )


@pytest.fixture
def home(_home: Path) -> Path:
    """A state directory of this test's own, empty, with a path short enough for every socket."""
    _home.mkdir(mode=0o700)
    return _home


@pytest.fixture
def require_tmux() -> str:
    """The tmux program."""
    return needs.program("tmux", how="apt-get install tmux, or brew install tmux")


@pytest.fixture
def require_root() -> None:
    """Root, for cgroups, mounts and namespaces of the test's own."""
    needs.root()
