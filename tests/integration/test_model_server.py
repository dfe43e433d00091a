"""The scripted model that stands behind real agents in tests, asked in each API without an agent."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.agent_clis import model_server
from tests.support.model_server import ModelServer, Step, play
from tests.support.waiting import until

__all__ = ["model_server"]  # fixture

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TITLE = {"type": "object", "properties": {"title": {"type": "string"}, "kind": {"enum": ["a", "b"]}}}
Body = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """How an API is asked, with a prompt and a wish to stream, and where its answers have what."""

    path: str
    ask: Callable[[str, bool], Body]
    texts: Callable[[Any], Any]
    calls: Callable[[Any], Any]
    streamed: Callable[[Sequence[Any]], str]


def _anthropic(prompt: str, stream: bool) -> Body:
    tools = [{"name": "Bash", "input_schema": SCHEMA}]
    return {
        "model": "m",
        "stream": stream,
        "tools": tools,
        "messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
    }


def _responses(prompt: str, stream: bool) -> Body:
    tools = [{"type": "function", "name": "exec_command", "parameters": SCHEMA}]
    content = [{"type": "input_text", "text": prompt}]
    return {"model": "m", "stream": stream, "tools": tools, "input": [{"role": "user", "content": content}]}


def _chat(prompt: str, stream: bool) -> Body:
    tools = [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}]
    return {"model": "m", "stream": stream, "tools": tools, "messages": [{"role": "user", "content": prompt}]}


def _gemini(prompt: str, stream: bool) -> Body:
    declared = [{"name": "run_shell_command", "parametersJsonSchema": SCHEMA}]
    contents = [{"role": "user", "parts": [{"text": prompt}]}]
    return {"tools": [{"functionDeclarations": declared}], "contents": contents}


def _parts(answer: Any) -> Any:
    return answer["candidates"][0]["content"]["parts"]


APIS = {
    "anthropic": Api(
        "/v1/messages?beta=true",
        _anthropic,
        lambda answer: [block["text"] for block in answer["content"] if block["type"] == "text"],
        lambda answer: [block["input"] for block in answer["content"] if block["type"] == "tool_use"],
        lambda events: "".join(each["delta"].get("text", "") for each in events if "delta" in each),
    ),
    "responses": Api(
        "/v1/responses",
        _responses,
        lambda answer: [each["content"][0]["text"] for each in answer["output"] if each["type"] == "message"],
        lambda answer: [
            json.loads(each["arguments"]) for each in answer["output"] if each["type"] == "function_call"
        ],
        lambda events: "".join(
            each["delta"] for each in events if each["type"] == "response.output_text.delta"
        ),
    ),
    "chat": Api(
        "/v1/chat/completions",
        _chat,
        lambda answer: [answer["choices"][0]["message"]["content"]],
        lambda answer: [
            json.loads(each["function"]["arguments"])
            for each in answer["choices"][0]["message"]["tool_calls"]
        ],
        lambda events: "".join(
            choice["delta"].get("content") or "" for each in events for choice in each["choices"]
        ),
    ),
    "gemini": Api(
        "/v1beta/models/m:generateContent",
        _gemini,
        lambda answer: ["".join(part.get("text", "") for part in _parts(answer))],
        lambda answer: [part["functionCall"]["args"] for part in _parts(answer) if "functionCall" in part],
        lambda events: "".join(part["text"] for each in events for part in _parts(each)),
    ),
}


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Api:
    return APIS[request.param]


@contextmanager
def post(server: ModelServer, path: str, body: Mapping[str, Any]) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    with closing(connection):
        connection.request("POST", path, json.dumps(body), {"x-api-key": "k"})
        with connection.getresponse() as answer:
            yield answer


def asked(server: ModelServer, api: Api, steps: Sequence[Step]) -> Any:
    with post(server, api.path, api.ask(f"Hello. {play(steps)}", False)) as answer:
        assert answer.status == 200
        return json.loads(answer.read())


def events(answer: http.client.HTTPResponse) -> Iterator[Any]:
    for line in answer:
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def stream(
    server: ModelServer, api: Api, steps: Sequence[Step]
) -> AbstractContextManager[http.client.HTTPResponse]:
    path = api.path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    return post(server, path, api.ask(play(steps), True))


def test_it_says_a_step_and_calls_its_tools(model_server: ModelServer, api: Api) -> None:
    answer = asked(model_server, api, [{"text": "I look.", "calls": [{"bash": "ls"}, {"bash": "pwd"}]}])
    assert api.texts(answer) == ["I look."]
    assert [given["command"] for given in api.calls(answer)] == ["ls", "pwd"]
    assert model_server.asked[0].step == 0
    assert (model_server.asked[0].model, model_server.asked[0].key) == ("m", "k")


def test_a_stream_says_the_same(model_server: ModelServer, api: Api) -> None:
    with stream(model_server, api, [{"text": "In several pieces."}]) as answer:
        assert api.streamed(list(events(answer))) == "In several pieces."


def test_the_numbers_of_a_step_are_reported(model_server: ModelServer, api: Api) -> None:
    usage = {"input_tokens": 71, "output_tokens": 13, "cached_tokens": 5}
    answer = asked(model_server, api, [{"text": "x", "usage": usage}])
    assert {"71", "13", "5"} <= set(json.dumps(answer).replace(",", " ").replace("}", " ").split())


def test_what_offers_no_tools_gets_a_short_text(model_server: ModelServer, api: Api) -> None:
    body = api.ask(play([{"text": "never"}]), False)
    del body["tools"]
    with post(model_server, api.path, body) as answer:
        assert api.texts(json.loads(answer.read())) == ["ok"]
    assert model_server.asked[0].step is None


def test_what_wants_json_gets_some_that_fits(model_server: ModelServer) -> None:
    body = _gemini("which model?", False)
    wanted = {"tools": [], "generationConfig": {"responseJsonSchema": TITLE}, "contents": body["contents"]}
    with post(model_server, APIS["gemini"].path, wanted) as answer:
        (text,) = APIS["gemini"].texts(json.loads(answer.read()))
    assert json.loads(text) == {"title": "scripted", "kind": "a"}


def test_an_error_is_told_for_so_many_tries(model_server: ModelServer, api: Api) -> None:
    steps = [{"status": 429, "retry_after": 3, "message": "slow down", "times": 1, "text": "Better."}]
    with post(model_server, api.path, api.ask(play(steps), False)) as refused:
        assert (refused.status, refused.headers["retry-after"]) == (429, "3")
        assert json.loads(refused.read())["error"]["message"] == "slow down"
    with post(model_server, api.path, api.ask(play(steps), False)) as answer:
        answered = json.loads(answer.read())
    assert api.texts(answered) == ["Better."]


@pytest.mark.parametrize("fault", ["cut", "hang"])
def test_a_stream_ends_unfinished(fault: str, model_server: ModelServer, api: Api) -> None:
    with stream(model_server, api, [{"text": "In several pieces.", fault: True}]) as answer:
        begun = answer.readline()
        model_server.over.set()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    assert begun


def test_a_gate_holds_an_answer_back(model_server: ModelServer, api: Api) -> None:
    answers: list[Any] = []
    steps: list[Step] = [{"gate": True, "text": "At last."}]
    client = threading.Thread(target=lambda: answers.append(asked(model_server, api, steps)))
    client.start()
    until(lambda: model_server.asked, what="the model is asked")
    assert not answers
    model_server.gate.set()
    client.join()
    assert api.texts(answers[0]) == ["At last."]


@pytest.mark.parametrize("stop", ["max_tokens", "refusal"])
def test_a_message_may_end_against_its_will(stop: str, model_server: ModelServer, api: Api) -> None:
    words = {"max_tokens", "max_output_tokens", "length", "MAX_TOKENS"}
    words |= {"refusal", "content_filter", "SAFETY"}
    found = json.dumps(asked(model_server, api, [{"text": "x", "stop": stop}]))
    assert any(f'"{word}"' in found for word in words)


# ---------------------------------------------------------------- where a conversation is


def anthropic_turns(*turns: tuple[str, Sequence[Mapping[str, Any]]]) -> Body:
    return {
        **_anthropic("", False),
        "messages": [{"role": role, "content": list(what)} for role, what in turns],
    }


def said(model_server: ModelServer, body: Body) -> Any:
    with post(model_server, "/v1/messages", body) as answer:
        return json.loads(answer.read())["content"]


def text(words: str) -> Mapping[str, Any]:
    return {"type": "text", "text": words}


def result(call: Mapping[str, Any], words: str) -> Mapping[str, Any]:
    return {"type": "tool_result", "tool_use_id": call["id"], "content": [text(words)]}


def test_a_later_step_can_use_what_an_earlier_call_was_answered(model_server: ModelServer) -> None:
    steps: list[Step] = [{"bash": "a"}, {"bash": "echo ${0:task.ids.1}"}, {"text": "Got: ${0} ${1:task_id}"}]
    begun = [("user", [text(play(steps))])]
    (first,) = said(model_server, anthropic_turns(*begun))
    wrapped = 'Output:\n{"structured": "{\\"task\\": {\\"ids\\": [\\"t1\\", \\"t2\\"]}}"}'
    begun += [("assistant", [first]), ("user", [result(first, wrapped)])]
    (second,) = said(model_server, anthropic_turns(*begun))
    assert second["input"] == {"command": "echo t2"}
    begun += [("assistant", [second]), ("user", [result(second, "<told>\n  task_id: task-1\n")])]
    assert said(model_server, anthropic_turns(*begun)) == [text(f"Got: {wrapped} task-1")]


def test_a_new_prompt_in_the_same_conversation_plays_its_own_script(model_server: ModelServer) -> None:
    first = anthropic_turns(("user", [text(play([{"bash": "a"}, {"text": "One."}]))]))
    (call,) = said(model_server, first)
    resumed = anthropic_turns(
        ("user", [text(play([{"bash": "a"}, {"text": "One."}]))]),
        ("assistant", [call]),
        ("user", [result(call, "")]),
        ("assistant", [text("One.")]),
        ("user", [text("Go on."), text(f"As before: {play([{'bash': 'b'}])}")]),
    )
    assert said(model_server, resumed)[0]["input"] == {"command": "b"}


def test_a_client_that_asks_to_go_on_gets_the_next_step(model_server: ModelServer) -> None:
    body = anthropic_turns(
        ("user", [text(play([{"text": "Half a", "stop": "max_tokens"}, {"text": " sentence."}]))]),
        ("assistant", [text("Half a")]),
        ("user", [text("Please go on.")]),
    )
    assert said(model_server, body) == [text(" sentence.")]


def test_a_script_may_hold_one_for_a_child_and_be_quoted(model_server: ModelServer) -> None:
    child = play([{"bash": "echo 'as a \"child\"'"}])
    steps: list[Step] = [{"bash": child}]
    for prompt in (play(steps), json.dumps({"prompt": play(steps)})):
        (call,) = said(model_server, anthropic_turns(("user", [text(prompt)])))
        assert call["input"] == {"command": child}


def test_what_cannot_be_played_is_said(model_server: ModelServer) -> None:
    missing: list[Step] = [{"mcp": {"server": "s", "tool": "t"}}]
    (words,) = said(model_server, anthropic_turns(("user", [text(play(missing))])))
    assert words["text"] == "(cannot play step 0: no tool t of s among Bash)"
