"""Mistral: responses, in OpenAI's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, given
from costspan_instrumentation.providers.mistral import chat
from costspan_instrumentation.providers.openai import responses_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "model": semconv.REQUEST_MODEL,
    "max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "previous_response_id": semconv.REQUEST_PREVIOUS_RESPONSE_ID,
}


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Arguments of a response."""
    stream = {semconv.REQUEST_STREAM: True} if arguments.get("stream") is True else {}
    return given(arguments, _REQUEST) | stream


def response(answer: Any) -> Attributes:
    """A response, in OpenAI's form."""
    reason = get(get(answer, "incomplete_details"), "reason") or get(answer, "status")
    reasons = {semconv.RESPONSE_FINISH_REASONS: (reason,)} if reason else {}
    tier = chat.served_tier(get(answer, "service_tier"))
    return chat.identity(answer) | reasons | tier | responses_usage(get(answer, "usage"))


def chunk(frame: Any, seen: Seen) -> None:
    """An event of a streamed response: the last one holds the whole."""
    told = fields_of(frame.__dict__["data"])
    if type(delta := told.get("delta")) is str:
        seen.characters += len(delta)
    elif (answer := told.get("response")) is not None:
        seen.attributes.update(response(answer))
        seen.final = bool(get(answer, "usage"))
