"""The harness of Parrot, a program that repeats what it is told."""

from headcount.domain.entries import Entry, EntryKind
from headcount.domain.lifecycle import Outcome
from headcount.domain.options import Ability
from headcount.harnesses.base import Launch, Probe, Verdict
from headcount.harnesses.installed import find_installed
from headcount.harnesses.parse import load_object
from headcount.harnesses.program import check_text
from headcount.harnesses.verdicts import judge_exit

KINDS = {"session": EntryKind.SESSION, "said": EntryKind.TEXT, "end": EntryKind.RESULT}


class Parrot:
    name = "parrot"
    renders = True  # its stream is not for people: Headcount makes a transcript of it
    needs_prompt = True
    needs_command = False
    wraps_prompt = False  # it gets the prompt alone, not what Headcount tells an agent beside it
    env_names = ("PARROT_HOME",)  # of the caller's variables, those that it needs
    abilities = frozenset({Ability.RESUME, Ability.PRESET_SESSION, Ability.TAKEOVER})
    probe = Probe("parrot", install="pip install headcount-parrot", oldest=(1,))

    def check(self, *, prompt, command, options):
        check_text("the prompt", prompt)

    def command(self, spec):
        return Launch(argv=(*self._argv(spec), "--json"), stdin=spec.prompt.encode())

    def interactive(self, spec):
        return Launch(argv=self._argv(spec))

    def _argv(self, spec):
        self.check(prompt=spec.prompt, command=spec.command, options=spec.options)
        program = find_installed(self.probe, env=spec.env, cwd=spec.cwd)
        return (program, "--session", spec.session.session_id, *spec.command)

    def read(self, line):
        found = load_object(line) or {}
        kind = KINDS.get(str(found.get("type")), EntryKind.UNKNOWN)
        facts = {name: str(found[name]) for name in ("session_id", "text") if name in found}
        return (Entry(kind, facts.get("text", line.decode("utf-8", "replace")), facts),)

    def verdict(self, record, tail):
        plain = judge_exit(record)  # how it ended by its exit record alone; its own last words come next
        entries = [entry for line in tail.splitlines() for entry in self.read(line)]
        words = [entry.text for entry in entries if entry.kind is EntryKind.RESULT]
        if plain.outcome is not Outcome.COMPLETED:
            return plain
        if not words:
            return Verdict(Outcome.FAILED, "it ended without an answer")
        return Verdict(Outcome.COMPLETED, plain.reason, result={"text": words[-1]})
