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
    for choice in told.get("choices") or ():
        if reason := fields_of(choice).get("finish_reason"):
            _finished(reason, attributes)
    usage = told.get("usage") or get(undeclared(answer).get("x_groq"), "usage")
    return {**attributes, **chat_usage(usage)}


def _chat_chunk(chunk: Any, seen: Seen) -> bool:
    # Nearly every chunk is text of one answer: how long it is matters only if the usage never comes.
    if seen.started and not seen.several and chunk.__dict__["usage"] is None:
        seen.passed += 1
        seen.tail.append(chunk)
        if seen.asked:
            forget_asking(chunk)
        return False
    return _whole_chunk(chunk, seen)


def _chat_tail(seen: Seen) -> None:
    if seen.final:  # only why it ended is still to be learnt
        while seen.tail and semconv.RESPONSE_FINISH_REASONS not in seen.attributes:
            _whole_chunk(seen.tail.pop(), seen)
        return
    before = seen.characters
    for chunk in seen.tail:
        _whole_chunk(chunk, seen)
    # Those that came before these were as long on average.
    seen.characters = before + (seen.characters - before) * seen.passed // len(seen.tail)


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
            _finished(reason, seen.attributes)
    if usage or not seen.started:
        _told(chunk, usage, seen)
    return seen.asked and hides(chunk, told)


def _finished(reason: str, attributes: Attributes) -> None:
    attributes[semconv.RESPONSE_FINISH_REASONS] = (*attributes.get(semconv.RESPONSE_FINISH_REASONS, ()), reason)


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
    tail=_chat_tail,
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
