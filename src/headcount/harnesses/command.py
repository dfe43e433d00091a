"""`command`: any program. It gets the raw prompt on stdin, and its exit code is its verdict."""

from __future__ import annotations

from collections.abc import Sequence

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.errors import InvalidInput
from headcount.domain.model import ExitRecord
from headcount.domain.options import Ability, Effort, Options, Permissions
from headcount.harnesses.abilities import NotInteractive
from headcount.harnesses.base import Launch, Probe, Spec, Verdict
from headcount.harnesses.parse import decode
from headcount.harnesses.program import check_argument, check_text, find_program
from headcount.harnesses.verdicts import judge_exit


class Command(NotInteractive):
    """What stands behind `--` is run as it is, by no shell."""

    name: str = "command"
    renders: bool = False
    needs_prompt: bool = False
    needs_command: bool = True
    wraps_prompt: bool = False
    env_names: tuple[str, ...] = ()
    env_prefixes: tuple[str, ...] = ()
    abilities: frozenset[Ability] = frozenset()
    permissions: frozenset[Permissions] = frozenset()
    efforts: tuple[Effort, ...] = ()
    probe: Probe | None = None

    def check(self, *, prompt: str, command: tuple[str, ...], options: Options) -> None:
        if not command or not command[0]:
            raise InvalidInput(
                "harness command needs a command",
                hint="put it behind '--': headcount deploy TASK --role builder --harness command -- make",
            )
        for argument in command:
            check_argument("an argument of the command", argument)
        check_text("the prompt", prompt)

    def command(self, spec: Spec) -> Launch:
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_program(
            spec.command[0],
            env=spec.env,
            cwd=spec.cwd,
            hint="check its name, or give its full path; a relative path begins in the agent's directory",
        )
        stdin = spec.prompt.encode() if spec.prompt else None
        return Launch(argv=(program, *spec.command[1:]), stdin=stdin)

    def read(self, line: bytes) -> Sequence[Entry]:
        return (Entry(EntryKind.TEXT, decode(line)),)

    def verdict(self, record: ExitRecord, tail: bytes) -> Verdict:
        return judge_exit(record)
