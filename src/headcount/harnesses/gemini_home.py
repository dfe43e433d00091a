"""Starts Gemini CLI in a home of its own, which is the user's but for the settings.

    python -I -S gemini_home.py OVERLAY_JSON PROGRAM ARGUMENT...

It has no flag for settings, and takes a file of system settings only from root. So this run's home, beside
OVERLAY_JSON, links to all that lies in the user's (logins, sessions, extensions), and its settings are theirs
with ours over them. Nothing of the user's is changed; this process becomes the program.

OVERLAY_JSON is an object: `over` are settings that win over the user's, `under` those that theirs win over,
`context` what is added to the context file that every conversation begins with.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HOME_VARIABLE = "GEMINI_CLI_HOME"
FOLDER = ".gemini"
SETTINGS = "settings.json"
ORIGIN = "headcount-origin"
"""In a home made here: whose it stands for, so that an agent of an agent links to the user's own."""

KEPT = ("tmp", "history")
"""Where conversations are: a later run has to find them."""

BESIDE = (".agents", ".env")
LOCKS = (".lock", ".tmp")
BAD_CONFIG = 52
"""With this code the program itself ends when it cannot read its settings."""

JSON_NOISE = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)


def main(arguments: Sequence[str]) -> None:
    overlay_file, program, *rest = arguments
    with open(overlay_file, encoding="utf-8") as file:
        overlay = json.load(file)
    origin = find_origin(os.environ)
    try:
        home = make_home(os.path.join(os.path.dirname(overlay_file), "gemini-home"), origin, overlay)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the settings of {origin} cannot be used: {error}\n")
        sys.exit(BAD_CONFIG)
    os.environ[HOME_VARIABLE] = home
    os.execv(program, [program, *rest])  # noqa: S606  # no shell is wanted


def find_origin(env: Mapping[str, str]) -> str:
    """Return the home of the user, also if `env` is that of another agent's run."""
    home = env.get(HOME_VARIABLE) or env.get("HOME") or os.path.expanduser("~")
    try:
        with open(os.path.join(home, ORIGIN), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return home


def make_home(home: str, origin: str, overlay: Mapping[str, Any]) -> str:
    """Make `home` stand for the user's home `origin` and return it; again if it was there before.

    Raises:
        OSError, ValueError: the user's settings cannot be read.
    """
    theirs, ours = os.path.join(origin, FOLDER), os.path.join(home, FOLDER)
    os.makedirs(ours, mode=0o700, exist_ok=True)
    for name in KEPT:
        os.makedirs(os.path.join(theirs, name), mode=0o700, exist_ok=True)
    settings = merge(overlay.get("under", {}), read_settings(os.path.join(theirs, SETTINGS)))
    settings = merge(settings, overlay.get("over", {}))
    made = {SETTINGS: json.dumps(settings, indent=1)}
    if overlay.get("context"):
        name = context_name(settings)
        made[name] = "\n\n".join(filter(None, (_text(os.path.join(theirs, name)), overlay["context"])))
    shared = [name for name in os.listdir(theirs) if name not in made and not name.endswith(LOCKS)]
    _link(theirs, ours, names=shared)
    _link(origin, home, names=BESIDE)
    for name, text in made.items():
        _write(os.path.join(ours, name), text)
    _write(os.path.join(home, ORIGIN), origin)
    return home


def read_settings(path: str) -> dict[str, Any]:
    """Return the user's settings, which may have comments; none if there is no such file."""
    found = json.loads(JSON_NOISE.sub(lambda match: match[1] or "", _text(path)) or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004  # of a file, not of a caller
    return found


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, object by object; where they differ `over` wins."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def context_name(settings: Mapping[str, Any]) -> str:
    """Return what the user calls the file that every conversation begins with."""
    context = settings.get("context")
    name = context.get("fileName") if isinstance(context, dict) else None
    first = name[0] if isinstance(name, list) and name else name
    return first if isinstance(first, str) and first and "/" not in first else "GEMINI.md"


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _link(source: str, target: str, *, names: Iterable[str]) -> None:
    for name in names:
        path = os.path.join(target, name)
        if os.path.lexists(os.path.join(source, name)) and not os.path.lexists(path):
            os.symlink(os.path.join(source, name), path)


def _write(path: str, text: str) -> None:
    """Write a file that only its owner reads: the user's settings may hold keys."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
