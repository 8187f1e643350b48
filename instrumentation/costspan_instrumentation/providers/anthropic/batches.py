"""Anthropic: batches, billed when their results are read, and the completions before messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, get, given, known, total
from costspan_instrumentation.providers.anthropic.usage import messages_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def _request(kwargs: Mapping[str, Any]) -> Attributes:
    # A batch is counted the first time that somebody reads its results.
    return known({semconv.RESPONSE_ID: kwargs.get("message_batch_id")})


def _nothing(_: Any) -> Attributes:
    return {}


def _result(line: Any, seen: Seen) -> None:
    """One result of the batch: what it used is added to that of its model."""
    seen.final = True
    result = get(line, "result")
    message = get(result, "message")
    if get(result, "type") != "succeeded" or message is None:
        return
    usage = messages_usage(get(message, "usage"))
    by_model: dict[str, Attributes] = seen.notes if seen.notes is not None else {}
    seen.notes = by_model
    model = get(message, "model")
    share = by_model.setdefault(model, {})
    for key, count in usage.items():
        if key.startswith(("gen_ai.usage.", "costspan.usage.")) and key != semconv.USAGE_ITERATIONS:
            seen.attributes[key] = total(seen.attributes.get(key), count)
            # What is no token is the whole batch's: it costs the same whichever model asked for it.
            if key != semconv.WEB_SEARCHES:
                share[key] = total(share.get(key), count)
    seen.attributes |= {semconv.OPERATION: semconv.CHAT, semconv.SERVICE_TIER: "batch"}
    if len(by_model) == 1:
        seen.attributes |= {semconv.REQUEST_MODEL: model, semconv.RESPONSE_MODEL: model}
    else:
        seen.attributes[semconv.USAGE_BY_MODEL] = json.dumps([{"model": m, **told} for m, told in by_model.items()])


_COMPLETION = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens_to_sample": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "stream": semconv.REQUEST_STREAM,
}


def _completion_request(kwargs: Mapping[str, Any]) -> Attributes:
    return given(kwargs, _COMPLETION)


def _completion(answer: Any) -> Attributes:
    """A completion of the API before messages, which tells no usage."""
    reason = get(answer, "stop_reason")
    told = {semconv.RESPONSE_MODEL: get(answer, "model"), semconv.RESPONSE_ID: get(answer, "id")}
    return known({**told, semconv.RESPONSE_FINISH_REASONS: (reason,) if reason else None})


def _completion_chunk(event: Any, seen: Seen) -> None:
    seen.characters += len(get(event, "completion") or "")
    seen.attributes.update(_completion(event))


ENDPOINTS = (
    *(
        Endpoint(
            module,
            "Batches.results",
            semconv.FETCH_RESPONSE,
            _request,
            _nothing,
            _result,
            positional=("message_batch_id",),
            fetch=True,
        )
        for module in ("anthropic.resources.messages.batches", "anthropic.resources.beta.messages.batches")
    ),
    Endpoint(
        "anthropic.resources.completions",
        "Completions.create",
        semconv.TEXT_COMPLETION,
        _completion_request,
        _completion,
        _completion_chunk,
        content=("prompt",),
    ),
)
