"""The prompt that a model-driven agent receives: a pure function of what is known of agent, task and project.

Text of users is data. It is put in as it is, never taken as a format, and quoted where it could be mistaken
for ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headcount.domain.guidance import REPORTING, delegation, role_guidance
from headcount.domain.model import Message, Task
from headcount.domain.project import Project

__all__ = ["PARTS", "Further", "PromptInput", "assemble", "delegation", "go_on"]

USER_CHARS: Final = 2_000
OTHER_CHARS: Final = 500
"""Of a message in the conversation: the user's words are what was asked for, the rest is how that came."""
MESSAGES: Final = 20
FILES: Final = 50

DEFAULT_MARK: Final = "{{default}}"
"""In a user's replacement text, our own text of that part is put here."""


@dataclass(frozen=True, slots=True)
class PromptInput:
    """What a prompt is made of. `replacements` maps the name of a part to the user's text for it; a name
    such as "role-builder" is for one role only and goes before "role"."""

    agent_id: str
    role: str
    task: Task
    parent: str | None
    depth: int
    prompt: str
    project: Project = field(default_factory=Project)
    result_schema: Mapping[str, Any] | None = None  # that its answer is asked to fit; None: no such wish
    replacements: Mapping[str, str] = field(default_factory=dict)


def assemble(given: PromptInput) -> str:
    """Return the whole prompt; parts without anything to say are left out."""
    parts = (_part(name, make(given), given) for name, make in _MAKERS.items())
    return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True, slots=True)
class Further:
    """What an agent is told that goes on with its conversation. `messages` are (sender or None for a person,
    text)."""

    agent_id: str
    role: str
    task_id: str
    n: int
    interrupted: bool
    prompt: str | None
    messages: Sequence[tuple[str | None, str]] = ()
    result_schema: Mapping[str, Any] | None = None


def go_on(given: Further) -> str:
    """Return the prompt of a further run: the conversation has all that was said before."""
    asked = (given.prompt or "").strip()
    sections = (
        _still(given),
        INTERRUPTED if given.interrupted else "",
        f"# What is asked of you now\n{asked}" if asked else "",
        *(_said(sender, text) for sender, text in given.messages),
        _answer_to(given.result_schema),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _still(given: Further) -> str:
    return (
        "# You go on\n"
        f"You are still the headless agent {given.agent_id}, role {given.role}, of task {given.task_id}. "
        f"This is run {given.n}, in the same conversation. Report and decide as before."
    )


INTERRUPTED: Final = (
    "You were interrupted before you had finished. What you did last may be there in full, in part or not at "
    "all: look before you do it again. Then go on with your mission."
)


def _said(sender: str | None, text: str) -> str:
    by = f"agent {sender}" if sender else "a person"
    return f"# A message from {by}\n{text.strip()}"


def _part(name: str, default: str, given: PromptInput) -> str:
    replacement = given.replacements.get(f"{name}-{given.role}", given.replacements.get(name))
    if replacement is None:
        return default
    if DEFAULT_MARK not in replacement and name == "mission":
        return f"{replacement.strip()}\n\n{default}".strip()  # a mission is added to, never lost
    return default.join(replacement.split(DEFAULT_MARK)).strip()


def _identity(given: PromptInput) -> str:
    by = f"agent {given.parent}" if given.parent else "a person"
    return (
        "# Who you are\n"
        f"You are the headless agent {given.agent_id}, role {given.role}, of task {given.task.task_id}. "
        f"You were deployed by {by} and are at depth {given.depth} of at most {given.task.max_depth}.\n"
        "Nobody can answer questions while you work: decide, and say what you decided. "
        "Other agents may work in the same directory: do not undo what you did not do."
    )


def _mission(given: PromptInput) -> str:
    return f"# Your mission\n{given.prompt.strip()}"


def _task(given: PromptInput) -> str:
    task, context = given.task, given.task.context
    sections = (
        f"# The task\n{task.description.strip()}",
        f"Priority: {task.priority}. Project directory: {task.project}"
        if task.project
        else f"Priority: {task.priority}.",
        _text("Background", context.background),
        _list("Deliverables", context.deliverables),
        _list("Success criteria", context.success_criteria),
        _list("Constraints", context.constraints),
        _list("Relevant files", context.relevant_files, most=FILES),
        _conversation(context.conversation),
    )
    return "\n\n".join(section for section in sections if section)


def _text(title: str, text: str) -> str:
    return f"## {title}\n{text.strip()}" if text.strip() else ""


def _list(title: str, items: Sequence[str], *, most: int | None = None) -> str:
    if not items:
        return ""
    shown = [f"- {_indented(item)}" for item in items[:most]]
    if most is not None and len(items) > most:
        shown.append(f"(and {len(items) - most} more)")
    return "\n".join([f"## {title}", *shown])


def _indented(item: str) -> str:
    return item.strip().replace("\n", "\n  ")


def _conversation(messages: Sequence[Message]) -> str:
    if not messages:
        return ""
    left_out = len(messages) - MESSAGES
    lines = ["## Conversation that led to this task"]
    if left_out > 0:
        lines.append(f"({left_out} earlier message{'s' if left_out > 1 else ''} left out)")
    lines += [_message(message) for message in messages[-MESSAGES:]]
    return "\n".join(lines)


def _message(message: Message) -> str:
    most = USER_CHARS if message.role == "user" else OTHER_CHARS
    text = message.content.strip()
    if len(text) > most:
        text = f"{text[:most]}\n({len(text) - most} more characters left out)"
    who = f"{message.role} at {message.timestamp}" if message.timestamp else message.role
    quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
    return f"{' '.join(who.split())}:\n{quoted}"


def _project(given: PromptInput) -> str:
    facts = given.project
    lines = [
        _fact("Languages", facts.languages),
        _fact("Frameworks", facts.frameworks),
        _fact("Package managers", facts.package_managers),
        _fact("Test commands", facts.test_commands),
        _fact("Read these first, they hold the project's own rules", facts.instructions),
        _fact("Could not be read", facts.broken),
    ]
    shown = [line for line in lines if line]
    return "\n".join(["# The project, by its own files", *shown]) if shown else ""


def _fact(title: str, values: Sequence[str]) -> str:
    return f"- {title}: {', '.join(values)}" if values else ""


def _role(given: PromptInput) -> str:
    return f"# How you work as {given.role}\n{role_guidance(given.role)}"


def _delegation(given: PromptInput) -> str:
    return f"# Delegating\n{delegation(given.task.max_depth - given.depth)}"


def _answer(given: PromptInput) -> str:
    return _answer_to(given.result_schema)


def _answer_to(schema: Mapping[str, Any] | None) -> str:
    if schema is None:
        return ""
    return (
        "# Your final answer\n"
        "A program reads your last message. It must be one JSON value that fits this JSON Schema and nothing "
        "else, no words before or behind it:\n\n"
        f"{json.dumps(schema, indent=2, ensure_ascii=False)}"
    )


def _reporting(_given: PromptInput) -> str:
    return f"# Reporting\n{REPORTING}"


_MAKERS: Final = {
    "identity": _identity,
    "mission": _mission,
    "task": _task,
    "project": _project,
    "role": _role,
    "delegation": _delegation,
    "reporting": _reporting,
    "answer": _answer,
}
PARTS: Final = tuple(_MAKERS)
"""The parts in their order; a user replaces one by the file `prompts/<part>.md` in the home."""
