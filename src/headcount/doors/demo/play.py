"""The demo, act by act."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headcount.api import Headcount
from headcount.daemon import start as daemon
from headcount.domain.errors import NotAllowed
from headcount.doors.cli import watch
from headcount.doors.demo import scene
from headcount.doors.demo.count import Witness
from headcount.doors.demo.ending import report, tell
from headcount.services.answers import AgentFacts


@dataclass(slots=True)
class Play:
    """A running demo."""

    fleet: Headcount
    home: Path
    project: Path
    pace: float
    witness: Witness
    draw: Callable[[Sequence[AgentFacts]], None]
    task_id: str = ""

    def show(self) -> list[AgentFacts]:
        """Count, draw, and return all agents."""
        self.witness.look()
        agents = list(reversed(self.fleet.list_agents(all=True).agents))
        self.draw(agents)
        return agents

    def until(self, condition: Callable[[], bool], *, what: str, patience: float = 60.0) -> None:
        """Go on showing until `condition` holds.

        Raises:
            TimeoutError: it did not in `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the demo waited {patience:g} s for {what}")
            self.show()
            time.sleep(0.1)


def main(*, pace: float = 0.6, keep: bool = False, as_json: bool = False) -> int:
    """Run the demo; return 0 if the count was right at every moment and all went as it should.

    Raises:
        NotAllowed: an agent asks; its end would end the fleet.
    """
    if "HEADCOUNT_AGENT_ID" in os.environ:
        raise NotAllowed("the demo starts a fleet of its own", hint="run it outside of an agent")
    place = Path(tempfile.mkdtemp(prefix="hc-demo-"))
    home, project = place / "home", place / "toy"
    project.mkdir()
    fleet = Headcount(home, machine_max_live=12, grace=2.0)
    try:
        with watch.shown(quiet=as_json) as draw:
            play = Play(fleet, home, project, pace, Witness(fleet), draw)
            notes = _acts(play)
        return tell(report(play.fleet, play.task_id, play.witness, notes), as_json=as_json)
    except KeyboardInterrupt:
        print("\ninterrupted: ending the fleet", file=sys.stderr)
        return 130
    finally:
        _clear(fleet, place, keep=keep)


def _acts(play: Play) -> list[str]:
    notes = [_views(play), _project(play)]
    play.task_id = play.fleet.create_task(
        "Mend the toy project, and show that the count is right",
        project=play.project,
        max_live=12,
        max_depth=scene.MAX_DEPTH,
        success_criteria=["the count is right at every moment"],
    ).task_id
    _say(f"act 1: a fleet over {play.project}")
    for role, steps in scene.scripts(play.pace).items():
        play.fleet.deploy(
            play.task_id, role=role, harness="script", prompt=scene.text(steps), cwd=play.project
        )
        play.show()
    daemon.wait_ready(play.fleet.context.home, timeout=30.0)
    _say("act 2: two deployers want the same role at the same instant")
    notes.append(_race(play))
    _say("act 3: SIGKILL, out of the blue")
    notes.append(_kill(play))
    _say("act 4: to the end")
    play.until(lambda: not play.fleet.list_agents(task_id=play.task_id).agents, what="the end of the fleet")
    notes.append(_depth(play))
    play.witness.settle()
    play.show()
    return notes


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _views(play: Play) -> str:
    why = play.fleet.context.views.available()
    if why is not None:
        _say(f"{why}; the fleet runs without views")
        return "views: none"
    socket = play.fleet.context.home.tmux_socket
    _say(f"each agent has a session: tmux -S {socket} ls")
    return "views: a tmux session for each agent"


def _project(play: Play) -> str:
    if scene.make_project(play.project):
        return "project: a git repository of its own"
    return "project: a plain directory, for git is not there"


def _race(play: Play) -> str:
    """Deploy one role from two processes at once; exactly one may get it.

    Raises:
        AssertionError: none or both did.
    """
    steps = play.home / "racer.json"
    steps.write_text(scene.text(scene.racer(play.pace)))
    words = (
        "deploy",
        play.task_id,
        "--role",
        "reviewer",
        "--harness",
        "script",
        "--json",
        "--prompt-file",
        str(steps),
    )
    environ = {**os.environ, "HEADCOUNT_HOME": str(play.home), "HEADCOUNT_MACHINE_MAX_LIVE": "12"}
    both = [_command(play, words, environ) for _ in range(2)]
    codes = []
    refusal: Mapping[str, Any] = {}
    for each in both:
        out, _ = each.communicate(timeout=60)
        codes.append(each.returncode)
        if each.returncode == 3:
            refusal = json.loads(out)["error"]
    if sorted(codes) != [0, 3]:
        raise AssertionError(f"two deploys of one role ended with {codes}, not with one 0 and one 3")
    holders = ", ".join(map(str, refusal["holders"]))
    _say(f"  one got it; the other was told: {refusal['message']} (held by {holders})")
    return f"race for one role: one deployed, one refused ({refusal['code']})"


def _command(play: Play, words: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*play.fleet.context.headcount, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=play.project,
        env=dict(environ),
    )


def _kill(play: Play) -> str:
    """Kill an agent's runner, the worst that can happen to a run, and see it noticed and made good."""
    victim = next(each for each in play.show() if each.role == "watcher")
    if victim.runner_pid is None:
        raise AssertionError("the watcher has no runner")
    began = time.monotonic()
    os.kill(victim.runner_pid, signal.SIGKILL)
    play.until(
        lambda: play.fleet.get_agent(victim.agent_id).state == "lost", what="the lost agent to be noticed"
    )
    noticed = (time.monotonic() - began) * 1000
    _say(f"  {victim.agent_id} was killed with its runner; noticed and repaired after {noticed:.0f} ms")
    again = play.fleet.deploy(
        play.task_id,
        role="watcher",
        harness="script",
        prompt=scene.text(scene.relief(play.pace)),
        cwd=play.project,
    )
    _say(f"  its slot is free: {again.agent_id} takes over")
    return f"SIGKILL of an agent and its runner: lost, repaired and replaced after {noticed:.0f} ms"


def _depth(play: Play) -> str:
    refusals = play.fleet.get_task_status(play.task_id).refusals
    if not refusals.get("max_depth"):
        raise AssertionError(f"nobody was refused by the depth limit: {dict(refusals)}")
    return f"a spawn below depth {scene.MAX_DEPTH}: refused (max_depth)"


def _clear(fleet: Headcount, place: Path, *, keep: bool) -> None:
    """End all that the demo started, and take its files away."""
    fleet.halt(reason="the demo is over")
    fleet.close()
    daemon.stop(fleet.context.home)
    fleet.context.views.shut()
    if keep:
        print(f"kept: {place}", file=sys.stderr)
    else:
        shutil.rmtree(place, ignore_errors=True)
