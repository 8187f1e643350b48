"""Runs of OpenAI's assistants on the real SDK: each is counted once, by whoever first sees that it has ended."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.openai import OPENAI

from .replies import Asked, replying
from .watched import Watched, finished, items, watching

openai = pytest.importorskip("openai")
if not hasattr(openai.OpenAI(api_key="k").beta, "threads"):
    pytest.skip("this version has no assistants", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning")
both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

USAGE = {
    "prompt_tokens": 381,
    "completion_tokens": 88,
    "total_tokens": 469,
    "prompt_token_details": {"cached_tokens": 128},
}
COUNTED = {"input_tokens": 381, "output_tokens": 88, "cache_read.input_tokens": 128}


def run(status: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "id": "run_1",
        "object": "thread.run",
        "created_at": 1,
        "assistant_id": "asst_1",
        "thread_id": "thread_1",
        "model": "gpt-4o-mini",
        "instructions": "",
        "tools": [],
        "metadata": {},
        "status": status,
        "usage": usage,
    }


def streamed(*runs: dict[str, Any]) -> str:
    """A run's events: what becomes of it, and the words of its message in between."""
    words = {
        "id": "msg_1",
        "object": "thread.message.delta",
        "delta": {"content": [{"index": 0, "type": "text", "text": {"value": "x = 1, as it should"}}]},
    }
    message = {
        "id": "msg_1",
        "object": "thread.message",
        "created_at": 1,
        "thread_id": "thread_1",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
        "metadata": {},
    }
    events = [(f"thread.run.{told['status']}", told) for told in runs]
    events[1:1] = [("thread.message.created", message), ("thread.message.delta", words)]
    return (
        "".join(f"event: {name}\ndata: {json.dumps(told)}\n\n" for name, told in events)
        + "event: done\ndata: [DONE]\n\n"
    )


class Server:
    """What a run looks like, the next time that somebody asks."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def __call__(self, _path: str, _body: dict[str, Any]) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def asked(server: Server) -> Iterator[Asked]:
    with replying(server) as asked:
        yield asked


@pytest.fixture
def seen() -> Iterator[Watched]:
    with watching(OPENAI) as watched:
        yield watched


def runs(asked: Asked, is_async: bool) -> Any:
    make = openai.AsyncOpenAI if is_async else openai.OpenAI
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(base_url=f"{asked.url}/v1", api_key="k", max_retries=0).beta.threads.runs


@both
async def test_a_run_that_is_polled_is_counted_when_it_has_ended_and_never_again(
    asked: Asked, server: Server, seen: Watched, is_async: bool
) -> None:
    api = runs(asked, is_async)
    server.answers = [run("queued"), run("in_progress"), run("completed", USAGE)]
    await finished(api.create("thread_1", assistant_id="asst_1"), is_async)
    assert not seen.usage()
    await finished(api.retrieve("run_1", thread_id="thread_1"), is_async)
    assert seen.one()["gen_ai.operation.name"] == "fetch_response"
    await finished(api.retrieve("run_1", thread_id="thread_1"), is_async)
    (span,) = seen.spans()
    told = dict(span.attributes or {})
    assert (span.name, told["gen_ai.response.model"], told["gen_ai.conversation.id"]) == (
        "chat gpt-4o-mini",
        "gpt-4o-mini",
        "thread_1",
    )
    assert {key: told[f"gen_ai.usage.{key}"] for key in COUNTED} == COUNTED
    await finished(api.retrieve("run_1", thread_id="thread_1"), is_async)
    assert not seen.usage()


@both
async def test_the_sdk_that_waits_for_a_run_asks_as_often_as_it_likes(
    asked: Asked, server: Server, seen: Watched, is_async: bool
) -> None:
    server.answers = [run("queued"), run("in_progress"), run("completed", USAGE)]
    waiting = runs(asked, is_async).create_and_poll(thread_id="thread_1", assistant_id="asst_1", poll_interval_ms=1)
    assert (await finished(waiting, is_async)).status == "completed"
    counted = [span for span in seen.spans() if "gen_ai.usage.input_tokens" in (span.attributes or {})]
    assert [dict(span.attributes or {})["gen_ai.usage.output_tokens"] for span in counted] == [88]


@both
async def test_a_streamed_run_is_not_counted_again_when_it_is_fetched(
    asked: Asked, server: Server, seen: Watched, is_async: bool
) -> None:
    api = runs(asked, is_async)
    server.answers = [streamed(run("queued"), run("completed", USAGE)), run("completed", USAGE)]
    stream = await finished(api.create("thread_1", assistant_id="asst_1", stream=True), is_async)
    assert len(await items(stream, is_async)) == 4
    assert seen.usage() == COUNTED
    await finished(api.retrieve("run_1", thread_id="thread_1"), is_async)
    assert not seen.usage()


@both
async def test_the_streaming_helper(asked: Asked, server: Server, seen: Watched, is_async: bool) -> None:
    server.answers = [streamed(run("queued"), run("completed", USAGE))]
    manager = runs(asked, is_async).stream(thread_id="thread_1", assistant_id="asst_1")
    if is_async:
        async with manager as stream:
            await stream.until_done()
    else:
        with manager as stream:
            stream.until_done()
    assert seen.usage() == COUNTED


def test_the_raw_stream_is_read_too(asked: Asked, server: Server, seen: Watched) -> None:
    server.answers = [streamed(run("queued"), run("completed", USAGE))]
    raw = runs(asked, False).with_raw_response.create("thread_1", assistant_id="asst_1", stream=True)
    assert len(list(raw.parse())) == 4
    assert seen.usage() == COUNTED


def test_a_run_that_waits_for_its_tools_is_counted_when_they_have_answered(
    asked: Asked, server: Server, seen: Watched
) -> None:
    server.answers = [
        streamed(run("queued"), run("requires_action")),
        streamed(run("queued"), run("completed", USAGE)),
    ]
    api = runs(asked, False)
    list(api.create("thread_1", assistant_id="asst_1", stream=True))
    assert not seen.usage()
    outputs = [{"tool_call_id": "call_1", "output": "1"}]
    list(api.submit_tool_outputs("run_1", thread_id="thread_1", tool_outputs=outputs, stream=True))
    assert seen.usage() == COUNTED


def test_a_stream_that_is_left_counts_what_was_written(asked: Asked, server: Server, seen: Watched) -> None:
    server.answers = [streamed(run("queued"), run("completed", USAGE))]
    stream = runs(asked, False).create("thread_1", assistant_id="asst_1", stream=True, instructions="Solve it.")
    for _ in range(3):
        next(stream)
    stream.close()
    assert seen.usage() == {"input_tokens": 3, "output_tokens": 5, "estimated": True}
