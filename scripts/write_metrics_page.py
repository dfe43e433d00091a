"""Writes the table of docs/metrics.md, behind the mark, from the code. A test says when it is old."""

from __future__ import annotations

from pathlib import Path

from headcount.daemon.metrics import FIGURES

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
MARK = "<!-- From here on written by scripts/write_metrics_page.py. -->\n"


def page() -> str:
    """Return the page: its first part as it is, its second as it should be."""
    rows = [f"| `{each.name}` | {each.kind} | {_labels(each.labels)} | {each.help} |" for each in FIGURES]
    process = (
        "Beside these stand `process_*`, of the daemon's own process: memory, processor time, open files."
    )
    table = "\n".join(["| figure | kind | labels | what it says |", "|---|---|---|---|", *rows])
    return f"{PAGE.read_text('utf-8').partition(MARK)[0]}{MARK}\n{table}\n\n{process}\n"


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
