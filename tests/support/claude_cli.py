"""The real Claude Code on a machine without a network: a scripted model on loopback, a key that is none.

A test module that imports the fixtures `model_server` and `claude_cli` can use them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.model_server import ModelServer

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".cache" / "node" / "node_modules" / ".bin"


@dataclass(frozen=True)
class ClaudeCli:
    """Where it is, and the variables that it needs; its own files go to a private home."""

    program: Path
    env: Mapping[str, str]


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A scripted model; `model_server.asked` has what it was asked."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def claude_cli(tmp_path: Path, model_server: ModelServer) -> ClaudeCli:
    """Claude Code as a user has it, with that model behind it."""
    program = BIN / "claude"
    if not os.access(program, os.X_OK):
        needs.lacking("Claude Code is not installed (tests/node/install)")
    private = tmp_path / "claude-home"
    private.mkdir()
    env = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(private),
        "ANTHROPIC_BASE_URL": model_server.url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",  # else a fault is tried again for minutes
    }
    return ClaudeCli(program, env)
