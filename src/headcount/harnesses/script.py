"""`script`: our own agent, which does what a list of steps says. It needs no model and no key."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput, PlacementFailed
from headcount.domain.lifecycle import Outcome
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses import script_agent
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import clean, dump, last_object, load_object, unknown
from headcount.harnesses.program import check_argument, check_text
from headcount.harnesses.verdicts import judge_exit

STEPS_FILE = "steps.json"
OPEN_FILE = "inbox/.open"
"""It is there where the agent is to look into its inbox."""


class Script(NotInteractive):
    """The steps are the prompt, or a file that stands behind `--`."""

    name: str = "script"
    renders: bool = True
    needs_prompt: bool = False
    needs_command: bool = False
    wraps_prompt: bool = False
    env_names: tuple[str, ...] = ()
    env_prefixes: tuple[str, ...] = ()
    abilities: frozenset[Ability] = frozenset(
        {Ability.MCP_STDIO, Ability.RESUME, Ability.PRESET_SESSION, Ability.STEER, Ability.CANCEL}
    )
    permissions: frozenset[Permissions] = frozenset()
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = None

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        if command and prompt.strip():
            raise InvalidInput("both the prompt and a file have steps", hint="give the steps once")
        if len(command) > 1:
            raise InvalidInput("harness script takes one file of steps", hint="give one path behind '--'")
        _check_steps(check_text("the prompt", prompt))

    def command(self, spec: Spec) -> Launch:
        command = () if spec.session.resumed else spec.command  # which had the steps of the first run
        self.check(prompt=spec.prompt, command=command, options=spec.options)
        text = _from_file(spec) if command else spec.prompt
        _check_steps(text)
        return Launch(
            argv=(
                sys.executable,
                "-I",
                "-S",
                script_agent.__file__,
                os.path.join(spec.run_path, STEPS_FILE),
                spec.session.session_id,
                *spec.headcount,
                "mcp",
            ),
            files={STEPS_FILE: text.encode(), **({OPEN_FILE: b""} if spec.options.steer else {})},
        )

    def read(self, line: bytes) -> Sequence[Entry]:
        found = load_object(line)
        kind = found.get("type") if found else None
        if found is None or not isinstance(kind, str) or kind not in _READERS:
            return (unknown(line),)
        return (_READERS[kind](found),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        verdict = judge_exit(record)
        result = last_object(tail, kind="result")
        if result is None or verdict.outcome is not Outcome.FAILED:
            return verdict
        failed = result.get("failed")
        if record.code == 1 and isinstance(failed, int) and failed > 0:
            return Verdict(Outcome.FAILED, f"{failed} step{'s' if failed != 1 else ''} failed", result)
        return verdict


def _check_steps(text: str) -> None:
    try:
        script_agent.parse_steps(text)
    except ValueError as error:
        raise InvalidInput(str(error), hint="docs/harnesses.md describes the steps of a script") from error


def _from_file(spec: Spec) -> str:
    path = os.path.join(spec.cwd, check_argument("the path of the steps", spec.command[0]))
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise PlacementFailed(
            f"the steps cannot be read from {path}: {error}", hint="give a JSON file"
        ) from error


def _session(found: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind.SESSION, f"script agent with {found.get('steps')} steps", found)


def _text(found: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind.TEXT, clean(found.get("text")), {})


def _call(found: Mapping[str, Any]) -> Entry:
    tool = clean(found.get("tool"))
    return Entry(EntryKind.TOOL_CALL, f"{tool} {dump(found.get('arguments'))}", found)


def _result_of_call(found: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind.TOOL_RESULT, clean(found.get("text")), found)


def _error(found: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind.ERROR, clean(found.get("text")), found)


def _result(found: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind.RESULT, f"exit code {found.get('exit_code')}, {found.get('failed')} failed", found)


_READERS = {
    "session": _session,
    "text": _text,
    "tool_call": _call,
    "tool_result": _result_of_call,
    "error": _error,
    "result": _result,
}
