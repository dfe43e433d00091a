"""The official conformance suite and the Inspector, on our own server, in both protocol eras.

They come from npm with the Node that they need; where that cannot be reached they are skipped, but in CI.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import daemons, needs
from tests.support.source import REPOSITORY

INSTALL = REPOSITORY / "tests/node/mcp/install"
PRODUCT = {
    "2025-11-25": ["server-initialize", "tools-list"],
    "2026-07-28": ["tools-list", "http-header-validation", "sep-2164-resource-not-found"],
}
"""Scenarios that call no fixture, for our own tools, resources and prompts; those for lists and hosts are
in the whole suite, which lists ours too."""


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder with both programs."""
    needs.program("npm", how="with Node, from nodejs.org or the system's packages")
    cache = REPOSITORY / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "node-mcp.lock").open("w") as lock:  # another worker may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([str(INSTALL)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        needs.lacking(f"npm cannot install the conformance suite: {done.stderr[-500:]}")
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def node(tools: Path) -> str:
    found = sorted(tools.glob("node_modules/node-*/bin/node"))
    return str(found[0]) if found else needs.program("node", how="22 or later")


@contextmanager
def serving(home: Path, kind: str) -> Iterator[str]:
    """Serve our app factory on a port; yields the URL."""
    argv = [sys.executable, "-P", "-m", "tests.support.conformance", str(home), kind]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        yield f"http://localhost:{int(process.stdout.readline())}/mcp"
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def _run(argv: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, cwd=out, check=False)


def conformance(node: str, tools: Path, out: Path, url: str, *args: str) -> str:
    """Run the suite; return what it says. It must say that all has passed."""
    program = tools / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    argv = [node, str(program), "server", "--url", url, "-o", str(out), *args]
    done = _run(argv, out)
    if done.returncode != 0:  # the suite's own client loses an answer of `tools-call-sampling` now and then
        done = _run(argv, out)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first one installs
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_every_server_scenario_passes_through_our_app_factory(
    home: Path, tmp_path: Path, tools: Path, node: str, version: str
) -> None:
    with serving(home, "fixtures") as url:
        said = conformance(node, tools, tmp_path, url, "--suite", "all", "--spec-version", version)
    total = said.rpartition("Total: ")[2].strip()
    print(f"{version}: {total}")
    assert ", 0 failed" in total
    assert int(total.split()[0]) >= {"2025-11-25": 80, "2026-07-28": 140}[version]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first one installs
@pytest.mark.parametrize("version", sorted(PRODUCT))
def test_our_own_tools_pass_what_needs_no_fixture(
    home: Path, tmp_path: Path, tools: Path, node: str, version: str
) -> None:
    with serving(home, "product") as url:
        for scenario in PRODUCT[version]:
            conformance(node, tools, tmp_path, url, "--scenario", scenario, "--spec-version", version)


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first one installs
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_finds_our_schemas_portable_and_calls_our_tools(
    home: Path, tools: Path, node: str, era: str
) -> None:
    program = tools / "node_modules/.bin/mcp-inspector"

    def inspect(*args: str) -> str:
        where = ("-e", f"HEADCOUNT_HOME={home}")
        argv = [node, str(program.resolve()), "--cli", *where, *daemons.BRIDGE, "--protocol-era", era, *args]
        env = {**daemons.environment(home), "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    with daemons.daemon(home):
        listed = inspect("--method", "tools/list", "--strict")
        assert "deploy_headless_agent" in listed
        made = inspect(
            "--method", "tools/call", "--tool-name", "create_task", "--tool-arg", "description=look"
        )
        assert json.loads(made)["structuredContent"]["description"] == "look"
        assert "tasks://list" in inspect("--method", "resources/list")
        assert "plan_and_deploy" in inspect("--method", "prompts/list")
