"""Anthropic's batches, billed when their results are read, and the completions before messages, on the real SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_pricing import PriceBook
from costspan_processor import enrich

from .replies import replying
from .watched import finished, items, watching

anthropic = pytest.importorskip("anthropic")

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def message(model: str, **usage: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 20, "service_tier": "batch", **usage},
    }


def succeeded(number: int, model: str, **usage: Any) -> dict[str, Any]:
    return {"custom_id": str(number), "result": {"type": "succeeded", "message": message(model, **usage)}}


ERRORED = {
    "custom_id": "9",
    "result": {"type": "errored", "error": {"type": "error", "error": {"type": "x", "message": "y"}}},
}


def job(url: str) -> dict[str, Any]:
    return {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "created_at": "2026-11-01T00:00:00Z",
        "expires_at": "2026-11-02T00:00:00Z",
        "request_counts": {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0},
        "results_url": f"{url}/v1/messages/batches/msgbatch_1/results",
    }


async def read(lines: list[dict[str, Any]], is_async: bool, times: int = 1) -> list[dict[str, Any]]:
    """The attributes of the spans that come of reading the results of a batch so many times."""

    def reply(path: str, _: dict[str, Any]) -> Any:
        return "".join(json.dumps(line) + "\n" for line in lines) if path.endswith("/results") else job(asked.url)

    with replying(reply) as asked, watching(ANTHROPIC) as seen:
        make = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        client = make(base_url=asked.url, api_key="k", max_retries=0)
        for _ in range(times):
            results = await finished(client.messages.batches.results("msgbatch_1"), is_async)
            told = await items(results, is_async)
            assert [line.custom_id for line in told] == [line["custom_id"] for line in lines]
        return [dict(span.attributes or {}) for span in seen.spans()]


@both
async def test_a_batch_is_counted_the_first_time_its_results_are_read(is_async: bool) -> None:
    lines = [
        succeeded(1, "claude-haiku-4-5", cache_read_input_tokens=100),
        ERRORED,
        succeeded(2, "claude-haiku-4-5", server_tool_use={"web_search_requests": 2}),
    ]
    first, second = await read(lines, is_async, times=2)
    assert (first["gen_ai.operation.name"], first["costspan.service_tier"]) == ("chat", "batch")
    assert (first["gen_ai.request.model"], first["gen_ai.response.model"]) == ("claude-haiku-4-5", "claude-haiku-4-5")
    assert (first["gen_ai.usage.input_tokens"], first["gen_ai.usage.output_tokens"]) == (120, 40)
    assert (first["gen_ai.usage.cache_read.input_tokens"], first["costspan.usage.web_searches"]) == (100, 2)
    assert second["gen_ai.operation.name"] == "fetch_response"
    assert not any(key.startswith("gen_ai.usage.") for key in second)


async def test_a_batch_of_several_models_says_whose_the_tokens_are() -> None:
    searched = succeeded(2, "claude-opus-4-6", server_tool_use={"web_search_requests": 3})
    (span,) = await read([succeeded(1, "claude-haiku-4-5"), searched], is_async=False)
    assert span["gen_ai.usage.input_tokens"] == 20
    assert [part["model"] for part in json.loads(span["costspan.usage.by_model"])] == [
        "claude-haiku-4-5",
        "claude-opus-4-6",
    ]
    cost = enrich(span, 1_795_392_000 * 10**9, PriceBook.bundled())["costspan.cost.total"]
    # Half of (10 x 1 + 20 x 5) and of (10 x 5 + 20 x 25) dollars a million, and three searches at $10 a thousand.
    assert cost == pytest.approx(0.00033 + 0.03, abs=1e-12)


async def test_a_batch_in_which_nothing_succeeded_costs_nothing() -> None:
    (span,) = await read([ERRORED], is_async=False)
    assert span["gen_ai.operation.name"] == "fetch_response"
    assert not any(key.startswith("gen_ai.usage.") for key in span)


@both
async def test_a_completion_of_the_api_before_messages_tells_no_usage(is_async: bool) -> None:
    answer = {
        "id": "compl_1",
        "type": "completion",
        "completion": " hi",
        "stop_reason": "stop_sequence",
        "model": "claude-2.1",
    }
    with replying(lambda *_: answer) as asked, watching(ANTHROPIC) as seen:
        make = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        client = make(base_url=asked.url, api_key="k", max_retries=0)
        if not hasattr(client, "completions"):
            pytest.skip("this version has no completions")
        await finished(
            client.completions.create(model="claude-2.1", max_tokens_to_sample=5, prompt="\n\nHuman: hi"), is_async
        )
        span = seen.one()
    assert (span["gen_ai.operation.name"], span["gen_ai.response.model"]) == ("text_completion", "claude-2.1")
    assert not any(key.startswith("gen_ai.usage.") for key in span)
