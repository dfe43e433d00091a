"""systemd's manager of the user's services, by its own command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from headcount.domain.errors import Infrastructure
from headcount.domain.unit import unit_name

TIMEOUT: Final = 90.0
"""Seconds: a start waits until the service says that it is ready."""
LINGER: Final = "/var/lib/systemd/linger"


class Systemd:
    """The user's systemd, as the caller's environment reaches it."""

    def __init__(self, environ: Mapping[str, str], root: Path, command: tuple[str, ...]) -> None:
        """`command` starts the daemon of the home `root`, which is still to be named."""
        user = environ.get("HOME") or "/"
        ours = os.path.join(environ.get("XDG_STATE_HOME") or f"{user}/.local/state", "headcount")
        config = environ.get("XDG_CONFIG_HOME") or f"{user}/.config"
        self.unit: Final = unit_name(str(root), is_default=str(root) == ours)
        self.command: Final = command
        self.directory: Final = os.path.join(config, "systemd", "user")
        self._environ: Final = environ
        self._program: Final = shutil.which("systemctl", path=environ.get("PATH", ""))

    def why_not(self) -> str:
        """Return why there is no manager to be asked, or nothing."""
        if self._program is None:
            return "systemctl is not installed"
        code, said = self._run("show", "--property=Version")
        return "" if code == 0 else f"systemd does not answer: {said or f'exit code {code}'}"

    def state(self) -> str:
        """Return what the manager calls our unit: active, inactive, failed or the like."""
        return self._run("is-active", self.unit)[1].partition("\n")[0]

    def lingers(self) -> bool:
        """Say whether the user's services outlive his last session."""
        return os.path.exists(f"{LINGER}/{self._environ.get('USER') or self._environ.get('LOGNAME', '')}")

    def install(self, text: str) -> None:
        """Write our unit, and have it started now and at each login.

        Raises:
            Infrastructure: it is not there, or it does not run.
        """
        path = Path(self.directory, self.unit)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{self.unit}.new")
            new.write_text(text, "utf-8")
            new.replace(path)
        except OSError as error:
            raise Infrastructure(f"{path} cannot be written: {error.strerror}") from error
        self._must("daemon-reload")
        self._must("enable", self.unit)
        self._must("restart", self.unit)

    def remove(self) -> bool:
        """End our unit and take it away; return whether there was one."""
        path = Path(self.directory, self.unit)
        if not path.exists():
            return False
        self._must("disable", "--now", self.unit)
        path.unlink(missing_ok=True)
        self._must("daemon-reload")
        return True

    def _must(self, *words: str) -> None:
        code, said = self._run(*words)
        if code != 0:
            raise Infrastructure(
                f"'systemctl --user {' '.join(words)}' failed: {said or f'exit code {code}'}",
                hint="see 'systemctl --user status' and 'journalctl --user'",
            )

    def _run(self, *words: str) -> tuple[int, str]:
        import subprocess  # only here: every command makes one of us

        assert self._program is not None, "asked for only where it is there"
        try:
            done = subprocess.run(
                (self._program, "--user", *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=self._environ,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        return done.returncode, (done.stdout + done.stderr).strip()
