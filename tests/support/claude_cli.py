"""The real Claude Code on a machine without a network: a scripted model on loopback, a key that is none.

A test module that imports the fixtures `model_server` and `claude_cli` can use them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import agent_clis
from tests.support.agent_clis import AgentCli as ClaudeCli
from tests.support.agent_clis import model_server
from tests.support.model_server import ModelServer

__all__ = ["ClaudeCli", "claude_cli", "model_server"]


@pytest.fixture
def claude_cli(tmp_path: Path, model_server: ModelServer) -> ClaudeCli:
    """Claude Code as a user has it, with that model behind it."""
    return agent_clis.set_up("claude", home=tmp_path / "claude-home", url=model_server.url)
