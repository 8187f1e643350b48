"""Anthropic: messages, created, streamed and parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, fields_of, get
from costspan_instrumentation.providers.anthropic.usage import NOWHERE, messages_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "model": (semconv.REQUEST_MODEL, str),
    "max_tokens": (semconv.REQUEST_MAX_TOKENS, int),
    "temperature": (semconv.REQUEST_TEMPERATURE, float),
    "top_p": (semconv.REQUEST_TOP_P, float),
    "top_k": (semconv.REQUEST_TOP_K, int),
}


def _request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes: Attributes = {}
    for name in _REQUEST.keys() & kwargs.keys():
        key, kind = _REQUEST[name]
        if type(value := kwargs[name]) is kind or (kind is float and type(value) is int):
            attributes[key] = value
    if kwargs.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    if type(stop := kwargs.get("stop_sequences")) is list:
        attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stop)
    if type(effort := get(kwargs.get("output_config"), "effort")) is str:
        attributes[semconv.REQUEST_REASONING_LEVEL] = effort
    if kwargs.get("speed") == "fast":
        attributes[semconv.SERVICE_TIER] = "fast"
    if type(geo := kwargs.get("inference_geo")) is str and geo not in NOWHERE:
        attributes[semconv.GEO] = geo
    return attributes


def _stream_request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = _request(kwargs)
    attributes[semconv.REQUEST_STREAM] = True
    return attributes


def _response(message: Any) -> Attributes:
    told = fields_of(message).get
    attributes = messages_usage(told("usage"))
    if model := told("model"):
        attributes[semconv.RESPONSE_MODEL] = model
    if response_id := told("id"):
        attributes[semconv.RESPONSE_ID] = response_id
    if reason := told("stop_reason"):
        attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
    return attributes


_TEXT = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
    "speed",
    "inference_geo",
    "iterations",
)


def _chunk(event: Any, seen: Seen) -> None:
    told = event.__dict__
    if (delta := told.get("delta")) is not None:
        part = delta.__dict__
        # Nearly every event is one of these and says nothing else.
        if text := part.get("text") or part.get("thinking") or part.get("partial_json"):
            seen.characters += len(text)
            return
    kind = told["type"]
    if kind == "content_block_delta":
        # Older SDKs do not declare every kind of delta.
        seen.characters += len(get(delta, _TEXT.get(get(delta, "type"), "")) or "")
    elif kind == "message_start":
        message = told["message"]
        seen.attributes.update(_response(message))
        seen.notes = _told(get(message, "usage"))
    elif kind == "message_delta":
        # Cumulative counts: what it tells replaces the start's, what it leaves out stands.
        seen.attributes.update(messages_usage({**(seen.notes or {}), **_told(told["usage"])}))
        if reason := get(told["delta"], "stop_reason"):
            seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
        seen.final = True
    elif kind == "content_block_start" and get(block := told["content_block"], "type") == "fallback":
        # Another model goes on, and the usage to come is its own.
        seen.attributes[semconv.RESPONSE_MODEL] = get(get(block, "to"), "model")


def _told(usage: Any) -> dict[str, Any]:
    return {name: value for name in _USAGE if (value := get(usage, name)) is not None}


def endpoints(module: str, *others: str) -> tuple[Endpoint, ...]:
    """The methods that send a request themselves; `tool_runner` and `thread` go through them, in every version."""

    def endpoint(method: str, **options: Any) -> Endpoint:
        options = {"request": _request, "response": _response, "moved_from": others, **options}
        return Endpoint(module, method, semconv.CHAT, content=("system", "messages", "tools"), **options)

    return (
        endpoint("Messages.create", chunk=_chunk),
        endpoint("Messages.parse"),
        endpoint("Messages.stream", request=_stream_request, chunk=_chunk, deferred=True),
    )
