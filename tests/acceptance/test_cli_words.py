"""What the command line says before it knows any fleet: help, mistakes, versions, completion."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headcount.doors.cli import edge
from headcount.doors.cli.clients import CLIENTS
from headcount.doors.cli.commands import COMMANDS, overview
from headcount.doors.cli.reference import page
from headcount.doors.cli.root import root
from tests.support.commands import environment, headcount

ANSWERING = sorted(set(COMMANDS) - {"harness", "mcp", "notify", "service", "task", "worktree"})
"""Commands with options of their own; those that hand their arguments on have none."""


def command(name: str) -> click.Command:
    found = root.get_command(click.Context(root), name)
    assert found is not None
    return found


def test_help_lists_every_command_without_loading_one() -> None:
    code = (
        "import sys; sys.argv = ['headcount', '--help']\n"
        "from headcount.doors.cli.main import main\n"
        "code = main(); print(sorted({'click', 'headcount.api'} & set(sys.modules))); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False,
                         env={**environment(), "PYTHONPATH": "src"}, timeout=60)  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("[]\n")
    for name, (_, short) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(short)}$", ran.stdout, re.MULTILINE)


def test_help_fits_80_columns() -> None:
    assert max(map(len, overview().splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    assert command(name).name == name
    assert command(name).get_short_help_str(limit=200) == COMMANDS[name][1]


@pytest.mark.parametrize("name", ANSWERING)
def test_every_command_can_answer_in_json_and_explains_every_option(name: str) -> None:
    parameters = command(name).params
    assert "as_json" in {each.name for each in parameters}
    assert all(each.help for each in parameters if isinstance(each, click.Option))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    ran = headcount(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: headcount {name}")


def test_no_command_is_a_mistake_with_the_help() -> None:
    ran = headcount()
    assert (ran.code, ran.out) == (2, "")
    assert "Exit codes" in ran.err


def test_an_unknown_command_names_the_nearest() -> None:
    ran = headcount("pss")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "headcount: No such command 'pss'. Did you mean 'ps'?\n  see 'headcount --help'\n"


def test_a_mistake_with_json_is_a_json_object() -> None:
    ran = headcount("ps", "--nonsense", "--json")
    assert (ran.code, ran.err) == (2, "")
    assert ran.error["code"] == "usage"
    assert "--nonsense" in ran.error["message"]


@pytest.mark.parametrize("words", [("audit", "--only", "tea"), ("demo", "--pace", "-1")], ids=" ".join)
def test_the_long_shows_take_no_mistake_either(words: tuple[str, ...]) -> None:
    ran = headcount(*words, "--json")
    assert (ran.code, ran.error["code"]) == (2, "usage")


def test_json_behind_the_dashes_is_the_other_commands() -> None:
    ran = headcount("deploy", "--", "x", "--json")
    assert (ran.code, ran.out) == (2, "")


def test_version_names_what_it_stands_on() -> None:
    facts = headcount("version", "--json").facts
    assert facts["headcount"] == "0.1.0"
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["sqlite"].startswith("3.")
    assert headcount("version").out.startswith("headcount  0.1.0\n")
    assert headcount("--version").out == headcount("version").out


def test_version_without_tmux_says_so(tmp_path: Path) -> None:
    assert headcount("version", "--json", env={"PATH": str(tmp_path)}).facts["tmux"] is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_says_how_to_install_it(shell: str) -> None:
    ran = headcount("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert f"headcount completion {shell} > " in ran.out
    assert "_HEADCOUNT_COMPLETE" in ran.out
    assert headcount("completion", shell, "--json").facts["shell"] == shell


def test_the_zsh_script_begins_as_zsh_wants_it() -> None:
    assert headcount("completion", "zsh").out.startswith("#compdef headcount\n")


def test_bash_accepts_its_script() -> None:
    script = headcount("completion", "bash").out
    ran = subprocess.run(
        ["bash", "-n"], input=script, text=True, capture_output=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def complete(words: str) -> list[str]:
    asked = {
        "_HEADCOUNT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return [line.partition(",")[2] for line in headcount(env=asked).out.splitlines()]


def test_commands_and_options_are_completed() -> None:
    assert complete("headcount sta") == ["status"]
    assert complete("headcount ps --w") == ["--watch"]
    assert set(complete("headcount task ")) >= {"create", "list", "show", "close", "archive"}


def test_an_unknown_shell_is_a_mistake() -> None:
    assert headcount("completion", "tcsh").code == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    for what in ("--help", "version", "ps --help"):
        line = f"{sys.executable} -m headcount {what} | true"
        ran = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")


def test_the_reference_page_is_current() -> None:
    """`python -m headcount.doors.cli.reference > docs/cli.md` makes it so."""
    assert Path("docs/cli.md").read_text() == page()


@pytest.mark.parametrize(("to", "code", "said"), [
    ("/dev/full", 5, "headcount: the answer could not be written: No space left on device\n"),
    ("&-", 0, ""),
])  # fmt: skip
def test_an_answer_that_cannot_be_written_is_no_traceback(to: str, code: int, said: str) -> None:
    line = f"{sys.executable} -m headcount version >{to}"
    ran = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (code, said)


def test_a_command_without_dashes_is_told_where_it_goes() -> None:
    ran = headcount("deploy", "task-0000000000000000", "--role", "builder", "make")
    assert ran.code == 2
    assert "A command to run goes behind --." in ran.err


@pytest.mark.parametrize("debug", ["0", "1"])
def test_an_unexpected_error_is_told_and_its_place_on_request(
    debug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: click.Context) -> None:
        raise ZeroDivisionError("no way")

    monkeypatch.setattr(root, "invoke", broken)
    monkeypatch.setenv("HEADCOUNT_DEBUG", debug)
    assert edge.run(["version"]) == 5
    said = capsys.readouterr().err
    assert (
        "headcount: this should not have happened: ZeroDivisionError: no way\n  set HEADCOUNT_DEBUG=1" in said
    )
    assert ("Traceback" in said) == (debug == "1")


def test_what_the_parser_refuses_is_said_on_one_line_in_plain_words() -> None:
    ran = headcount("logs", "builder", "--tail", "many")
    assert ran.err.splitlines()[0] == "headcount: Invalid value for '--tail': 'many' is not a whole number."
    ran = headcount("connect")
    first, hint = ran.err.splitlines()
    assert first.startswith("headcount: Missing argument 'CLIENT'. Choose one of claude, codex, ")
    assert hint == "  see 'headcount connect --help'"


def test_help_names_every_client_that_can_be_connected() -> None:
    said = " ".join((command("connect").help or "").split())
    assert f"CLIENT is {', '.join(list(CLIENTS)[:-1])} or {list(CLIENTS)[-1]}." in said


def test_a_collection_of_nothing_says_how_to_collect_more(home: Path) -> None:
    ran = headcount("gc")
    assert (ran.code, ran.out) == (0, "no run would go; '--older-than 1d' or '--max-size 1G' takes more\n")
