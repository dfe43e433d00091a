"""The real agent CLIs on a machine without a network: a scripted model on loopback, a key that is none.

Each is installed by the project itself (tests/node/clis/install NAME) and lives in a private home that is set
up as a user would set it up for a model server of the house: nothing but `env` has to be passed to it.

A test module that imports the fixtures `model_server` and `agent_cli` can use them, in tests with the mark
that the Makefile's targets choose by:

    @pytest.mark.parametrize("name", agent_clis.every())
    def test_it(name: str, agent_cli: AgentClis, model_server: ModelServer) -> None:
        cli = agent_cli(name)
        agent_runs.start(cli, directory, play([...]))

`agent_env("claude", "codex")` is the environment of one user who has both, for a daemon that starts either.

Faults are tried again once only, where the CLI can be told so. Qwen Code still takes over a minute for a 500,
Copilot CLI 15 seconds, OpenCode over a minute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.mark import ParameterSet

from tests.support import needs
from tests.support.model_server import ModelServer

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".cache"
MODEL: Final = "gpt-5.4"
KEY: Final = "dummy"


@dataclass(frozen=True)
class AgentCli:
    """Where it is, and all the variables that it gets; its own files go to `home`."""

    name: str
    program: Path
    home: Path
    env: Mapping[str, str]


AgentClis = Callable[[str], AgentCli]
AgentEnv = Callable[..., Mapping[str, str]]
SetUp = Callable[[Path, str], Mapping[str, str]]


# ---------------------------------------------------------------- how each is pointed at a model


def _claude(home: Path, url: str) -> Mapping[str, str]:
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",  # else a fault is tried again for minutes
    }


def _codex(home: Path, url: str) -> Mapping[str, str]:
    _write(
        home / ".codex" / "config.toml",
        f"""
        model = "gpt-5.5"
        model_provider = "house"
        [model_providers.house]
        name = "house"
        base_url = "{url}/v1"
        env_key = "OPENAI_API_KEY"
        wire_api = "responses"
        request_max_retries = 1
        stream_max_retries = 1
        [features]
        unbounded_connection_retries = false
        """,
    )
    return {"OPENAI_API_KEY": KEY}


def _gemini(home: Path, url: str) -> Mapping[str, str]:
    settings = {
        # The address alone would make it ask for another way to log in.
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"maxAttempts": 2, "disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
    }
    _write_json(home / ".gemini" / "settings.json", settings)
    return {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": url}


def _opencode(home: Path, url: str) -> Mapping[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",  # inside the program: nothing is fetched
        "name": "house",
        "options": {"baseURL": f"{url}/v1", "apiKey": KEY},
        "models": {MODEL: {"name": MODEL, "limit": {"context": 200000, "output": 8000}}},
    }
    model = f"house/{MODEL}"
    config = {"provider": {"house": provider}, "model": model, "small_model": model, "autoupdate": False}
    _write_json(home / ".config" / "opencode" / "opencode.json", config)
    return {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}


def _qwen(home: Path, url: str) -> Mapping[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "openai"}},
        "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "model": {"generationConfig": {"maxRetries": 0}},
    }
    _write_json(home / ".qwen" / "settings.json", settings)
    return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_MODEL": MODEL}


def _copilot(home: Path, url: str) -> Mapping[str, str]:
    return {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": f"{url}/v1",
        "COPILOT_PROVIDER_API_KEY": KEY,
        "COPILOT_MODEL": MODEL,
        "COPILOT_AUTO_UPDATE": "false",
    }


def _pi(home: Path, url: str) -> Mapping[str, str]:
    cost = {"input": 1, "output": 2, "cacheRead": 0.1, "cacheWrite": 1}
    model = {"id": MODEL, "contextWindow": 200000, "maxTokens": 8000, "cost": cost}
    provider = {"baseUrl": f"{url}/v1", "api": "openai-completions", "apiKey": KEY, "models": [model]}
    _write_json(home / ".pi" / "agent" / "models.json", {"providers": {"house": provider}})
    settings = {"defaultProvider": "house", "defaultModel": MODEL, "retry": {"maxRetries": 1}}
    _write_json(home / ".pi" / "agent" / "settings.json", settings)
    return {"PI_OFFLINE": "1"}


SET_UP: Final[Mapping[str, SetUp]] = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
    "qwen": _qwen,
    "copilot": _copilot,
    "pi": _pi,
}
NAMES: Final = tuple(SET_UP)
USUAL: Final = frozenset({"claude", "codex", "gemini", "opencode"})
"""Those that `make test-harnesses` installs; `make test-harnesses-all` has all."""


def every(*names: str) -> Sequence[ParameterSet]:
    """Return `names`, or all, as parameters with the marks that choose which CLIs a run needs."""
    return [pytest.param(name, marks=_marks(name)) for name in names or NAMES]


def every_acp() -> Sequence[ParameterSet]:
    """Return the names of those that speak ACP, as `every` does."""
    names = [name for name in NAMES if name in ACP]
    return [pytest.param(name, marks=_marks(name if ACP[name] else "acp")) for name in names]


def _marks(name: str) -> Sequence[pytest.MarkDecorator]:
    usual = [pytest.mark.harnesses]
    return usual if name in USUAL else [*usual, pytest.mark.every_harness]


# ---------------------------------------------------------------- ACP

ACP: Final[Mapping[str, Sequence[str]]] = {
    "claude": (),  # by an adapter
    "codex": (),  # the same
    "gemini": ("--acp", "--skip-trust"),  # in a directory that is not trusted it offers no MCP tools
    "opencode": ("acp",),
    "qwen": ("--acp",),
    "copilot": ("--acp",),
}
"""What makes each speak the Agent Client Protocol on stdin and stdout."""


def acp(cli: AgentCli) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command and the environment of a CLI as an ACP agent."""
    if options := ACP[cli.name]:
        return [str(cli.program), *options], cli.env
    adapter = directory("acp") / {"claude": "claude-agent-acp", "codex": "codex-acp"}[cli.name]
    if not os.access(adapter, os.X_OK):
        needs.lacking("the ACP adapters are not installed (tests/node/clis/install acp)")
    program = {"claude": "CLAUDE_CODE_EXECUTABLE", "codex": "CODEX_PATH"}[cli.name]
    return [str(adapter)], {**cli.env, program: str(cli.program)}


# ---------------------------------------------------------------- where they are


def directory(name: str) -> Path:
    """Return the directory with the program `name`; it need not be there."""
    return CACHE / "node" / "node_modules" / ".bin" if name == "claude" else CACHE / f"node-{name}" / "bin"


def installed(name: str) -> Path:
    """Return the program, or end the test for want of it."""
    program = directory(name) / name
    if not os.access(program, os.X_OK):
        script = "tests/node/install" if name == "claude" else f"tests/node/clis/install {name}"
        needs.lacking(f"{name} is not installed ({script})")
    return program


def set_up(name: str, *, home: Path, url: str) -> AgentCli:
    """Make `home` the home of a user of this CLI whose model answers at `url`."""
    program = installed(name)
    home.mkdir(parents=True, exist_ok=True)
    runtime = CACHE / "node-runtime" / "bin"
    env = {
        "PATH": f"{runtime}:{program.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        **SET_UP[name](home, url),
    }
    return AgentCli(name, program, home, env)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A scripted model; `model_server.asked` has what it was asked."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def agent_cli(request: pytest.FixtureRequest, tmp_path: Path, model_server: ModelServer) -> AgentClis:
    """Give any of `NAMES` as a user has it, with that model behind it and a home of its own."""

    def give(name: str) -> AgentCli:
        _check_marks(request, name)
        return set_up(name, home=tmp_path / f"{name}-home", url=model_server.url)

    return give


@pytest.fixture
def agent_env(request: pytest.FixtureRequest, tmp_path: Path, model_server: ModelServer) -> AgentEnv:
    """Give the environment of a user who has several of `NAMES`, all in one home."""

    def give(*names: str) -> Mapping[str, str]:
        for name in names:
            _check_marks(request, name)
        clis = [set_up(name, home=tmp_path / "user-home", url=model_server.url) for name in names]
        every = {variable: value for cli in clis for variable, value in cli.env.items()}
        folders = [folder for cli in clis for folder in cli.env["PATH"].split(":")]
        return {**every, "PATH": ":".join(dict.fromkeys(folders))}

    return give


def _check_marks(request: pytest.FixtureRequest, name: str) -> None:
    for mark in _marks(name):
        assert request.node.get_closest_marker(mark.name), (
            f"a test that runs {name} needs the mark {mark.name}"
        )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    _write(path, json.dumps(value))
