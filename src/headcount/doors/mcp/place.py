"""Where a home's files are, for the bridge: as `config.Home` says (a test compares them), without what
that imports."""

import os
import sys
from collections.abc import Mapping

SOCKET_PATH_MAX = 100


class Place:
    """The parts of a home that lead to its daemon."""

    def __init__(self, root: str, environ: Mapping[str, str]) -> None:
        self.root = root
        self.daemon_lock = os.path.join(root, "daemon.lock")
        self.daemon_log = os.path.join(root, "daemon.log")
        inside = os.path.join(root, "daemon.sock")
        short = len(os.fsencode(inside)) <= SOCKET_PATH_MAX
        self.daemon_socket = inside if short else os.path.join(_runtime(root, environ), "daemon.sock")

    def make(self) -> None:
        """Create the home if it is not there; the daemon makes what is in it."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)


def root(environ: Mapping[str, str]) -> str:
    """Return the state directory: `HEADCOUNT_HOME`, or the platform's place for a user's state."""
    if given := environ.get("HEADCOUNT_HOME"):
        return os.path.abspath(os.path.expanduser(given))
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/headcount")
    base = environ.get("XDG_STATE_HOME", "").strip() or os.path.expanduser("~/.local/state")
    return os.path.join(base, "headcount")


def _runtime(root: str, environ: Mapping[str, str]) -> str:
    import hashlib  # only under a deep home: it takes seven megabytes

    base = environ.get("XDG_RUNTIME_DIR") or _temporary()
    return os.path.join(base, f"headcount-{os.getuid()}", hashlib.sha256(os.fsencode(root)).hexdigest()[:12])


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()
