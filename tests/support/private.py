"""Everything that a test run touches outside the source tree is below one short directory of its own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, MutableMapping
from itertools import count
from pathlib import Path

MARK = "HEADCOUNT_TEST_ROOT"
"""Names the run's directory; processes inherit it, so that the guard finds them."""

_PREFIXES = (
    *("HEADCOUNT_", "TMUX", "XDG_", "GIT_"),
    *(
        "ANTHROPIC_",
        "CLAUDE",
        "CODEX_",
        "COPILOT_",
        "GEMINI_",
        "GH_",
        "GITHUB_",
        "GOOGLE_",
        "OPENAI_",
        "OPENCODE",
    ),
    *("PI_", "QWEN_"),
)
"""What a developer's own shell may carry and no test may see: another fleet, a key, a repository."""

_counter: Iterator[int] = count(1)


def make_root(environ: MutableMapping[str, str]) -> Path:
    """Make the run's directory and point everything that has a default place into it.

    A Unix socket path holds 107 bytes, so the directory is directly below /tmp where that exists.
    """
    base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    root = Path(tempfile.mkdtemp(prefix="hct-", dir=base)).resolve()
    for name in [name for name in environ if name.startswith(_PREFIXES)]:
        del environ[name]
    for name, folder in {"HOME": "user", "TMUX_TMPDIR": "tmux", "XDG_RUNTIME_DIR": "run"}.items():
        (root / folder).mkdir(mode=0o700)
        environ[name] = str(root / folder)
    environ[MARK] = str(root)
    environ["HEADCOUNT_HOME"] = str(root / "nobody")
    environ["GIT_CONFIG_GLOBAL"] = os.devnull  # no signing key, no hooks, no template of the developer's
    return root


def place_for_a_test(root: Path) -> Path:
    """Make a new, short directory for one test: `<root>/<worker>/<number>`."""
    place = root / os.environ.get("PYTEST_XDIST_WORKER", "m") / str(next(_counter))
    place.mkdir(parents=True, mode=0o700)
    return place


def remove(tree: Path) -> None:
    """Remove a tree, read-only folders in it too."""
    for folder, _, _ in os.walk(tree):
        mode = os.stat(folder).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(folder, mode | stat.S_IRWXU)
    shutil.rmtree(tree)
