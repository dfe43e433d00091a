"""What a run used and did, folded from its entries."""

from collections.abc import Mapping

from headcount.domain.account import NOTHING, Account, Tally
from headcount.domain.entries import Entry, EntryKind


def account(
    *entries: tuple[EntryKind, dict[str, object]], before: Mapping[str, float] | None = NOTHING
) -> Account:
    tally = Tally()
    for kind, data in entries:
        tally.add(Entry(kind, str(data.get("said", "")), data))
    return tally.account(before=before)


def test_of_nothing_nothing_is_known_and_unknown_is_not_0() -> None:
    made = account()
    assert (made.cost_usd, made.input, made.turns, made.session_id) == (None, None, None, None)
    assert (made.tool_calls, made.files, made.entries) == (0, (), 0)


def test_steps_add_up_and_are_turns() -> None:
    step: tuple[EntryKind, dict[str, object]] = (
        EntryKind.USAGE,
        {"scope": "step", "input": 10, "output": 2, "cost_usd": 0.5},
    )
    made = account(step, step, step)
    assert (made.input, made.output, made.cached, made.cost_usd, made.turns) == (30, 6, None, 1.5, 3)


def test_of_a_runs_own_sum_the_last_one_counts() -> None:
    made = account(
        (EntryKind.USAGE, {"scope": "run", "input": 5}), (EntryKind.USAGE, {"scope": "run", "input": 9})
    )
    assert made.input == 9


def test_of_a_conversations_sum_what_came_before_is_taken_off() -> None:
    used = (EntryKind.USAGE, {"scope": "session", "input": 100, "output": 40, "cost_usd": 3.0})
    made = account(used, before={"input": 60.0, "cost_usd": 1.0})
    assert (made.input, made.output, made.cost_usd) == (40, 40, 2.0)
    assert made.session_usage == {"input": 100, "output": 40, "cost_usd": 3.0}


def test_of_a_conversation_whose_beginning_is_unknown_so_is_this_runs_part() -> None:
    used = (EntryKind.USAGE, {"scope": "session", "input": 100})
    made = account((EntryKind.USAGE, {"scope": "run", "input": 7, "output": 3}), used, before=None)
    assert (made.input, made.output, made.session_usage) == (None, 3, {"input": 100})


def test_a_run_that_used_nothing_hands_on_what_came_before() -> None:
    assert account(before={"input": 60.0}).session_usage == {"input": 60.0}


def test_a_file_is_changed_once_the_call_has_succeeded() -> None:
    made = account(
        (EntryKind.FILE_CHANGE, {"path": "a.py", "change": "edit", "id": "1"}),
        (EntryKind.FILE_CHANGE, {"path": "b.py", "change": "edit", "id": "2"}),
        (EntryKind.FILE_CHANGE, {"path": "c.py", "change": "add"}),
        (EntryKind.TOOL_RESULT, {"id": "1", "is_error": True}),
        (EntryKind.TOOL_RESULT, {"id": "2", "is_error": False}),
    )
    assert set(made.files) == {"b.py", "c.py"}
    assert (made.files_changed, made.failed_calls) == (2, 1)


def test_the_last_result_is_the_answer_and_without_one_the_last_text() -> None:
    text: tuple[EntryKind, dict[str, object]] = (EntryKind.TEXT, {"said": "so far"})
    assert account(text).answer == "so far"
    made = account(text, (EntryKind.RESULT, {"text": "one"}), (EntryKind.RESULT, {"text": "two", "turns": 4}))
    assert (made.answer, made.turns) == ("two", 4)


def test_a_text_in_pieces_is_one_answer_and_what_was_said_before_a_call_is_not_in_it() -> None:
    made = account(
        (EntryKind.TEXT, {"said": "I wr", "delta": True}),
        (EntryKind.TEXT, {"said": "ite.", "delta": True}),
        (EntryKind.TOOL_CALL, {"id": "1"}),
        (EntryKind.TEXT, {"said": "All ", "delta": True}),
        (EntryKind.TEXT, {"said": "done.", "delta": True}),
        (EntryKind.RESULT, {}),
    )
    assert made.answer == "All done."
    whole = account((EntryKind.TEXT, {"said": "One."}), (EntryKind.TEXT, {"said": "Two."}))
    assert whole.answer == "Two."
