"""Somebody outside is told of what happens at least once, whoever dies in between; and no secret gets out."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headcount import Headcount, InvalidInput, NotFound
from headcount.config import Home
from headcount.domain.errors import NotAllowed
from headcount.domain.model import Caller, Event
from headcount.domain.notices import Hook, NoticeState, parse_hooks
from headcount.runtimes import hooks
from headcount.services import notify
from tests.support import daemons
from tests.support.commands import answer, headcount
from tests.support.fleets import fleet, new_task
from tests.support.waiting import until


class Receiver:
    """A server on this machine that answers with what it is told to, and remembers what it got."""

    def __init__(self, answers: Sequence[int]) -> None:
        self.got: list[tuple[bytes, dict[str, str]]] = []
        self._answers = list(answers)
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((body, dict(self.headers)))
                outer.hold.wait(20)
                self.send_response(outer._answers.pop(0) if outer._answers else 204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=hidden"

    def notices(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in list(self.got)]

    def kinds(self) -> list[tuple[str, str | None]]:
        return [(each["event"]["kind"], each["event"]["agent_id"]) for each in self.notices()]


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    made = Receiver(answers)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.hold.set()
        made.server.shutdown()
        thread.join(10)
        made.server.server_close()


@pytest.fixture
def opened(home: Path) -> Iterator[Headcount]:
    with fleet(home) as each:
        yield each


def settings(home: Path, **hook: object) -> None:
    """Write a settings file with one hook called `me`."""
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in hook.items())
    (home / "settings.toml").write_text(f'[[notify]]\nname = "me"\n{lines}')


def begun(home: Path) -> None:
    """Wait until the daemon has taken note of the hook: what happens from then on is told."""

    def noted() -> bool:
        with sqlite3.connect(Home(home).registry) as connection:
            found = connection.execute("SELECT count(*) FROM notice_cursor").fetchone()[0]
        connection.close()
        return bool(found)

    until(noted, what="the hook is taken note of")


def runs(opened: Headcount, tmp_path: Path, *command: str) -> str:
    task = new_task(opened, tmp_path)
    agent = opened.deploy(task, role="builder", harness="command", command=command or ("true",)).agent_id
    assert opened.wait_for_agents([agent], timeout=30).done
    return agent


def states(opened: Headcount) -> tuple[int, int, int]:
    (hook,) = opened.list_hooks().hooks
    return hook.queued, hook.delivered, hook.dead


def test_a_webhook_that_fails_twice_gets_it_and_can_tell_who_sent_it(home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("between us\n")
    secret.chmod(0o600)
    with receiving(500, 503) as receiver:
        settings(home, url=receiver.url, secret_file=str(secret), pause=0.05, on=["run_ended"])
        with fleet(home) as opened, daemons.daemon(home):
            begun(home)
            agent = runs(opened, tmp_path, "sh", "-c", "exit 3")
            until(lambda: states(opened) == (0, 1, 0), what="it is delivered")
    assert receiver.kinds() == [("run_ended", agent)] * 3
    assert {each["notice"] for each in receiver.notices()} == {1}
    told = receiver.notices()[-1]
    assert told["text"] == f"{agent} run 1: run ended: failed (exit code 3)"
    assert told["event"]["data"]["exit_code"] == 3
    for body, headers in receiver.got:
        signed = hmac.new(b"between us", body, hashlib.sha256).hexdigest()
        assert headers["X-Headcount-Signature"] == f"sha256={signed}"


def test_what_happens_between_two_daemons_is_told_by_the_next(home: Path, tmp_path: Path) -> None:
    with receiving() as receiver:
        settings(home, url=receiver.url, on=["run_ended"])
        with fleet(home) as opened:
            with daemons.daemon(home) as process:
                begun(home)
                process.kill()
                process.wait(20)
                agents = [runs(opened, tmp_path) for _ in range(2)]
            with daemons.daemon(home):
                until(lambda: len(receiver.got) == 2, what="both are told")
    assert receiver.kinds() == [("run_ended", each) for each in agents]


def test_a_daemon_that_is_killed_while_it_tells_loses_nothing(home: Path, tmp_path: Path) -> None:
    with receiving() as receiver:
        settings(home, url=receiver.url, on=["run_ended"])
        with fleet(home) as opened:
            with daemons.daemon(home):
                begun(home)
                receiver.hold.clear()
                runs(opened, tmp_path)
                until(lambda: len(receiver.got) == 1, what="it is being told")
                daemons.kill(home)
                assert states(opened) == (1, 0, 0)
            receiver.hold.set()
            with daemons.daemon(home):
                until(lambda: states(opened) == (0, 1, 0), what="it is delivered")
    first, second = receiver.notices()
    assert first == second


def test_a_hook_that_never_takes_it_is_given_up_with_the_reason(home: Path, tmp_path: Path) -> None:
    settings(home, command=["sh", "-c", "echo not today >&2; exit 7"], tries=3, pause=0.02, on=["run_ended"])
    with fleet(home) as opened:
        context, (hook,) = opened.context, opened.context.settings.notify
        notify.begin(context)
        runs(opened, tmp_path)
        assert notify.collect(context, hook) == 1
        for state in (NoticeState.QUEUED, NoticeState.QUEUED, NoticeState.DEAD):
            (notice,) = until(lambda: notify.due(context, hook), what="the next try is due")
            assert notify.deliver(context, hook, notice) is state
        assert states(opened) == (0, 0, 1)
        assert opened.list_hooks().hooks[0].last_failure == "sh ended with 7: not today"
        (check,) = [each for each in opened.doctor().checks if each.name == "notify"]
        assert check.ok is None
        assert "not today" in check.detail
    listed = headcount("notify", "list")
    assert "1 dead" in listed.out
    assert "not today" in listed.out


def test_a_command_gets_the_notice_on_stdin_and_only_of_its_tasks(home: Path, tmp_path: Path) -> None:
    got = tmp_path / "got"
    with fleet(home) as opened:
        task, other = new_task(opened, tmp_path), new_task(opened, tmp_path)
        hook = {"name": "me", "command": ["sh", "-c", f"cat >> {got}; echo >> {got}"], "tasks": [task]}
        with fleet(home, notify=[hook]) as told:
            context = told.context
            (mine,) = context.settings.notify
            notify.begin(context)
            for each in (other, task):
                agent = opened.deploy(each, role="builder", harness="command", command=["true"]).agent_id
                opened.wait_for_agents([agent], timeout=30)
            assert notify.collect(context, mine) == 1
            assert notify.collect(context, mine) == 0
            (notice,) = notify.due(context, mine)
            assert notify.deliver(context, mine, notice) is NoticeState.DELIVERED
            assert notify.due(context, mine) == []
    (line,) = got.read_text().splitlines()
    assert json.loads(line)["event"]["task_id"] == task


def test_the_desktop_is_told_by_notify_send(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, got = tmp_path / "notify-send", tmp_path / "got"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {got}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings(home, desktop=True)
    assert answer("notify", "test", "me")["delivered"] is True
    assert got.read_text().splitlines()[:3] == ["--app-name=headcount", "--", "Headcount"]
    program.unlink()
    ran = headcount("notify", "test", "me", env={"PATH": str(tmp_path)})
    assert ran.code == 1
    assert "there is no program notify-send" in ran.out


def test_a_hook_that_was_taken_away_is_told_nothing_later(home: Path, tmp_path: Path) -> None:
    hook = {"name": "me", "command": ["false"]}
    with fleet(home, notify=[hook]) as opened:
        notify.begin(opened.context)
        runs(opened, tmp_path)
        assert notify.collect(opened.context, opened.context.settings.notify[0]) == 1
    with fleet(home) as opened:
        notify.begin(opened.context)
    with fleet(home, notify=[hook]) as opened:
        notify.begin(opened.context)
        assert states(opened) == (0, 0, 1)
        assert notify.collect(opened.context, opened.context.settings.notify[0]) == 0


def test_a_secret_that_others_may_read_signs_nothing(home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("between us")
    secret.chmod(0o644)
    with receiving() as receiver:
        hook = {"name": "me", "url": receiver.url, "secret_file": str(secret)}
        with fleet(home, notify=[hook]) as opened:
            found = opened.test_hook("me")
            assert (found.delivered, "not private" in found.note) == (False, True)
            (check,) = [each for each in opened.doctor().checks if each.name == "notify"]
            assert (check.ok, "not private" in check.detail) == (False, True)
            (listed,) = opened.list_hooks().hooks
            assert listed.to == receiver.url.partition("/hook")[0]  # what follows may be a secret
    assert receiver.got == []


def test_a_server_that_drips_holds_nobody_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "WHOLE", 0.3)
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            while not over.wait(0.02):
                peer.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with fleet(home, notify=[{"name": "me", "url": url}]) as opened:
            assert opened.test_hook("me").delivered is False
        over.set()
        thread.join(10)


def test_a_secret_in_a_url_stands_in_no_error() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_hooks([{"name": "me", "url": "https://me:hidden@example.com/"}], source="settings.toml")
    assert "hidden" not in str(refused.value.facts())


def test_an_agent_may_not_test_a_hook(opened: Headcount, tmp_path: Path) -> None:
    agent = runs(opened, tmp_path)
    with pytest.raises(NotAllowed):
        opened.acting_as(Caller(agent_id=agent, run=1)).test_hook("me")
    with pytest.raises(NotFound):
        opened.test_hook("me")


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ["true"]},
        {"name": "me"},
        {"name": "Me", "command": ["true"]},
        {"name": "me", "command": "true"},
        {"name": "me", "command": []},
        {"name": "me", "command": ["true"], "desktop": True},
        {"name": "me", "command": ["true"], "secret_file": "/x"},
        {"name": "me", "url": "http://example.com/"},
        {"name": "me", "url": "https://me:secret@example.com/"},
        {"name": "me", "url": "file:///etc/passwd"},
        {"name": "me", "url": "https://example.com:99999/"},
        {"name": "me", "url": "https://example.com/\r\nX: y"},
        {"name": "me", "desktop": "yes"},
        {"name": "me", "desktop": True, "on": ["Run Ended"]},
        {"name": "me", "desktop": True, "tries": 0},
        {"name": "me", "desktop": True, "pause": True},
        {"name": "me", "desktop": True, "nonsense": 1},
        "me",
    ],
    ids=str,
)
def test_a_wrong_hook_is_an_error_that_says_which(wrong: object) -> None:
    with pytest.raises(InvalidInput):
        parse_hooks([wrong], source="settings.toml")


def test_two_hooks_of_one_name_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        parse_hooks([{"name": "me", "desktop": True}] * 2, source="settings.toml")


def test_pauses_grow_to_a_bound() -> None:
    hook = Hook("me", desktop=True)
    assert [hook.pause_after(tries) for tries in (1, 2, 3, 10, 100)] == [2, 8, 32, 3600, 3600]
    event = Event(1, 1.0, "run_ended", "task-1", None, None, None, {})
    assert hook.wants(event)
    assert not Hook("me", desktop=True, tasks=("task-2",)).wants(event)
