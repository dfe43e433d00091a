"""Which of the caller's variables an agent gets: an allow-list, so that no secret travels by accident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

BASE_NAMES: Final = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
BASE_PREFIXES: Final = ("LC_",)
NEVER_PREFIXES: Final = ("HEADCOUNT_", "TMUX")
"""Ours are set anew for each run; tmux's would let an agent reach the user's own server."""


def select(
    environ: Mapping[str, str], *, names: Iterable[str] = (), prefixes: Iterable[str] = ()
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables to pass on, and the names of those that were dropped."""
    wanted, starts = {*BASE_NAMES, *names}, (*BASE_PREFIXES, *prefixes)
    kept = {
        name: value
        for name, value in environ.items()
        if (name in wanted or name.startswith(starts)) and not name.startswith(NEVER_PREFIXES)
    }
    return kept, tuple(sorted(set(environ) - set(kept)))
