"""What the docs say that a harness can do is what it says of itself."""

from __future__ import annotations

from scripts import write_harness_tables as written


def test_the_tables_of_the_harnesses_are_current() -> None:
    for page, text in written.tables().items():
        assert page.read_text("utf-8") == text, "run scripts/write_harness_tables.py"
