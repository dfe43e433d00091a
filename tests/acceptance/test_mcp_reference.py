"""The reference page of the MCP door is the code's own."""

from __future__ import annotations

from scripts import write_mcp_reference as written


def test_the_reference_of_the_mcp_door_is_current() -> None:
    assert written.PAGE.read_text("utf-8") == written.reference(), "run scripts/write_mcp_reference.py"
