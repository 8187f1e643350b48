"""OpenAI: chat completions and the completions before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, fields_of, get, undeclared
from costspan_instrumentation.providers.openai.requests import ask, forget_asking, hides, identity, request
from costspan_instrumentation.providers.openai.usage import chat_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def _chat_request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = request(kwargs)
    attributes[semconv.OPENAI_API_TYPE] = "chat_completions"
    return attributes


def _chat_response(answer: Any) -> Attributes:
    attributes = identity(answer)
    told = fields_of(answer)
    reasons = []
    for choice in told.get("choices") or ():
        if reason := fields_of(choice).get("finish_reason"):
            reasons.append(reason)  # noqa: PERF401  a comprehension is a call, and there is one choice
    if reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = tuple(reasons)
    usage = told.get("usage")
    if usage is None:
        usage = get(undeclared(answer).get("x_groq"), "usage")
    attributes.update(chat_usage(usage))
    return attributes


def _chat_chunk(chunk: Any, seen: Seen) -> bool:
    told = chunk.__dict__
    choices, usage = told["choices"], told["usage"]
    # Nearly every chunk is text for one choice and says nothing else.
    if usage is None and seen.started and choices is not None and len(choices) == 1:
        part = choices[0].__dict__
        if part["finish_reason"] is None:
            # Azure's asynchronous filter sends choices without a delta.
            if (delta := part["delta"]) is not None and (text := delta.content) is not None:
                seen.characters += len(text)
            if seen.asked:
                forget_asking(chunk)
            return False
    return _whole_chunk(chunk, seen)


def _whole_chunk(chunk: Any, seen: Seen) -> bool:
    """Reads any chunk, of a chat or of a completion."""
    told = chunk.__dict__
    usage = told["usage"]
    for choice in told["choices"] or ():
        part = choice.__dict__
        delta = part.get("delta")
        if text := part.get("text") if delta is None else delta.content:
            seen.characters += len(text)
        if reason := part["finish_reason"]:
            usage = usage or get(get(chunk, "x_groq"), "usage")
            _finished(reason, seen)
    if usage or not seen.started:
        _told(chunk, usage, seen)
    return seen.asked and hides(chunk, told)


def _finished(reason: str, seen: Seen) -> None:
    reasons = seen.attributes.get(semconv.RESPONSE_FINISH_REASONS, ())
    seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (*reasons, reason)


def _told(chunk: Any, usage: Any, seen: Seen) -> None:
    attributes = seen.attributes
    attributes.update(identity(chunk))
    # Azure's first chunk has no model: the next one is asked too.
    seen.started = semconv.RESPONSE_MODEL in attributes
    if usage:
        attributes.update(chat_usage(usage))
        seen.final = True


_CHAT = "openai.resources.chat.completions.completions"

CREATE = Endpoint(
    _CHAT,
    "Completions.create",
    semconv.CHAT,
    _chat_request,
    _chat_response,
    _chat_chunk,
    content=("messages", "tools"),
    ask=ask,
    moved_from=("openai.resources.chat.completions",),
)
PARSE = Endpoint(
    _CHAT,
    "Completions.parse",
    semconv.CHAT,
    _chat_request,
    _chat_response,
    content=("messages", "tools"),
    moved_from=("openai.resources.beta.chat.completions",),
)
COMPLETE = Endpoint(
    "openai.resources.completions",
    "Completions.create",
    semconv.TEXT_COMPLETION,
    request,
    _chat_response,
    _whole_chunk,
    content=("prompt", "suffix"),
    ask=ask,
)
