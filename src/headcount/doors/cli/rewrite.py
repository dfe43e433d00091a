"""Change one entry of a settings file that belongs to another program, and nothing else in it."""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headcount.domain.errors import Infrastructure, InvalidInput

_INDENT: Final = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def read(path: Path) -> str | None:
    """Return the file's text, None if there is none.

    Raises:
        Infrastructure: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Infrastructure(f"{path} cannot be read: {error}") from error


def in_json(text: str | None, *, path: Path, key: str, name: str, entry: Mapping[str, Any] | None) -> str:
    """Return `text` with `entry` under `key` and `name`, or without it (None).

    Order, other entries and the width of indentation stay.

    Raises:
        InvalidInput: it is not plain JSON (a comment, say), or not shaped as the client has it.
    """
    settings = _parsed(text, path, entry)
    servers = settings.get(key, {})
    if not isinstance(servers, dict):
        raise InvalidInput(f"{key} in {path} is not an object", hint=_by_hand(entry, name))
    changed = {other: value for other, value in servers.items() if other != name or entry is not None}
    if entry is not None:
        changed[name] = dict(entry)
    if changed or entry is not None or key in settings:
        settings[key] = changed
    if entry is None and not changed:
        settings.pop(key, None)
    if text is not None and settings == _parsed(text, path, entry):
        return text
    return json.dumps(settings, indent=_indent(text), ensure_ascii=False) + "\n"


def _parsed(text: str | None, path: Path, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        hint = _by_hand(entry, "headcount")
        raise InvalidInput(f"{path} is not plain JSON, so it is not touched: {error}", hint=hint) from error
    if not isinstance(found, dict):
        raise InvalidInput(
            f"{path} does not hold an object, so it is not touched", hint=_by_hand(entry, "headcount")
        )
    return found


def _by_hand(entry: Mapping[str, Any] | None, name: str) -> str:
    if entry is None:
        return f"remove the entry {name!r} by hand"
    return f"add by hand: {json.dumps({name: entry})}"


def _indent(text: str | None) -> str | int:
    found = _INDENT.search(text or "")
    return found[1] if found else 2


def in_toml(text: str | None, *, path: Path, key: str, name: str, entry: Mapping[str, Any] | None) -> str:
    """Return `text` with the table `[key.name]` in it, or without it (None); every other line stays as it is.

    Raises:
        InvalidInput: it is not TOML, or has the entry in a form that cannot be replaced safely.
    """
    before = text or ""
    settings = _loaded(before, path)
    others = {each: value for each, value in settings.items() if each != key}
    servers = settings.get(key, {})
    wanted = {each: value for each, value in servers.items() if each != name}
    kept = _without_table(before, f"{key}.{name}")
    if entry is None:
        after = kept
    else:
        wanted[name] = dict(entry)
        after = f"{kept.rstrip()}\n\n{_table(key, name, entry)}".lstrip()
    found = _loaded(after, path)
    if {each: value for each, value in found.items() if each != key} != others or found.get(
        key, {}
    ) != wanted:
        raise InvalidInput(f"the entry {name!r} in {path} is not in a form of ours", hint="change it by hand")
    return before if _loaded(before, path) == found else after


def _loaded(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML, so it is not touched: {error}") from error


def _without_table(text: str, table: str) -> str:
    """Return `text` without the lines from `[table]` (and its sub-tables) to the next other table."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        head = line.strip()
        if head.startswith("["):
            inside = head.startswith((f"[{table}]", f"[{table}."))
        if not inside:
            kept.append(line)
    return "".join(kept)


def _table(key: str, name: str, entry: Mapping[str, Any]) -> str:
    """Return the entry as TOML; a JSON string or list of strings is TOML too."""
    lines = [f"[{key}.{name}]"]
    lines += [f"{each} = {json.dumps(value)}" for each, value in entry.items() if not isinstance(value, dict)]
    for each, value in entry.items():
        if isinstance(value, dict):
            lines += [
                "",
                f"[{key}.{name}.{each}]",
                *(f"{var} = {json.dumps(text)}" for var, text in value.items()),
            ]
    return "\n".join(lines) + "\n"


def difference(before: str | None, after: str, path: Path) -> str:
    """Return what would change, as a unified diff."""
    old = (before or "").splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, after.splitlines(keepends=True), str(path), str(path)))


def replace(path: Path, text: str) -> Path | None:
    """Put `text` in the place of the file at once or not at all, and return the backup beside it.

    A link is followed: the file that it leads to is replaced. Mode and owner's rights stay.

    Raises:
        Infrastructure: it cannot be written; the file is as it was.
    """
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        backup = _backed_up(target)
        mode = target.stat().st_mode & 0o777 if backup else 0o600
        _put(target, text, mode)
    except OSError as error:
        raise Infrastructure(f"{target} cannot be written: {error.strerror}") from error
    return backup


def _backed_up(target: Path) -> Path | None:
    """Copy the file beside itself under a name that no earlier backup has."""
    if not target.exists():
        return None
    content, mode = target.read_bytes(), target.stat().st_mode & 0o777
    for number in range(1, 1000):
        backup = target.with_name(f"{target.name}.headcount-backup-{number}")
        try:
            fd = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        return backup
    raise Infrastructure(f"{target} has too many backups beside it", hint="delete those you do not need")


def _put(target: Path, text: str, mode: int) -> None:
    fd, made = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, mode)
        os.replace(made, target)
    except BaseException:
        os.unlink(made)
        raise
