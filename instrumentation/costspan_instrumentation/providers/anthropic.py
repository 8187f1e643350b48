"""Anthropic: messages, plain and beta, of the Claude API and of the clients for the clouds that sell it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import (
    Attributes,
    Endpoint,
    Provider,
    Seen,
    fields_of,
    get,
    total,
    undeclared,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "model": (semconv.REQUEST_MODEL, str),
    "max_tokens": (semconv.REQUEST_MAX_TOKENS, int),
    "temperature": (semconv.REQUEST_TEMPERATURE, float),
    "top_p": (semconv.REQUEST_TOP_P, float),
    "top_k": (semconv.REQUEST_TOP_K, int),
}
_NOWHERE = {None, "", "not_available", "global"}


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
    if type(geo := kwargs.get("inference_geo")) is str and geo not in _NOWHERE:
        attributes[semconv.GEO] = geo
    return attributes


def _stream_request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = _request(kwargs)
    attributes[semconv.REQUEST_STREAM] = True
    return attributes


# ------------------------------------------------------------------ usage


def _all_of(source: Any) -> dict[str, Any]:
    """The fields of an object, those too that this version of the SDK does not declare."""
    declared, others = fields_of(source), undeclared(source)
    return {**declared, **others} if others and others is not declared else declared


def _counts(usage: Mapping[str, Any]) -> Attributes:
    """Token counts of one usage object or iteration, with the cache that the API counts beside its input added."""
    told = usage.get
    read, write = told("cache_read_input_tokens"), told("cache_creation_input_tokens")
    attributes: Attributes = {}
    if (split := told("cache_creation")) is not None:
        lifetimes = _all_of(split)
        five, hour = lifetimes.get("ephemeral_5m_input_tokens"), lifetimes.get("ephemeral_1h_input_tokens")
        if five:
            attributes[semconv.CACHE_WRITE_5M] = five
        if hour:
            attributes[semconv.CACHE_WRITE_1H] = hour
        if write is None:
            write = total(five, hour)
    tokens = told("input_tokens")
    if read:
        attributes[semconv.CACHE_READ_TOKENS] = read
    if write:
        attributes[semconv.CACHE_WRITE_TOKENS] = write
    if read or write:
        tokens = total(tokens, read, write)
    if tokens is not None:
        attributes[semconv.INPUT_TOKENS] = tokens
    if (tokens := told("output_tokens")) is not None:
        attributes[semconv.OUTPUT_TOKENS] = tokens
    return attributes


def messages_usage(usage: Any) -> Attributes:
    """`usage` of a message, its totals made inclusive.

    >>> messages_usage({"input_tokens": 3, "cache_read_input_tokens": 50, "output_tokens": 9})
    {'gen_ai.usage.cache_read.input_tokens': 50, 'gen_ai.usage.input_tokens': 53, 'gen_ai.usage.output_tokens': 9}
    """
    if usage is None:
        return {}
    usage = _all_of(usage)
    told = usage.get
    attributes = _counts(usage)
    if (details := told("output_tokens_details")) and (reasoning := get(details, "thinking_tokens")):
        attributes[semconv.REASONING_TOKENS] = reasoning
    if (tools := told("server_tool_use")) and (searches := get(tools, "web_search_requests")):
        attributes[semconv.WEB_SEARCHES] = searches
    speed, tier = told("speed"), told("service_tier")
    if speed == "fast" or (tier is not None and tier != "standard"):
        attributes[semconv.SERVICE_TIER] = "fast" if speed == "fast" else tier
    elif speed is not None:
        # Told because it was asked for: it overrules the speed that the request names.
        attributes[semconv.SERVICE_TIER] = speed
    if (geo := told("inference_geo")) not in _NOWHERE:
        attributes[semconv.GEO] = geo
    if iterations := told("iterations"):
        _add_iterations(iterations, attributes)
    return attributes


def _add_iterations(iterations: Any, attributes: Attributes) -> None:
    """Adds what the top-level counts leave out: compactions, advisors, and models that began and then declined."""
    others: list[Attributes] = []
    served = next((get(part, "model") for part in iterations if get(part, "type") == "fallback_message"), None)
    for part in iterations:
        kind, model = get(part, "type"), get(part, "model")
        if kind == "compaction":
            for key, count in _counts(_all_of(part)).items():
                attributes[key] = total(attributes.get(key), count)
        # A model that declined before its first token is not billed.
        elif kind == "advisor_message" or (served and model not in {None, served} and get(part, "output_tokens")):
            others.append({"model": model, **_counts(_all_of(part))})
    if others:
        attributes[semconv.USAGE_ITERATIONS] = json.dumps(others)


# ------------------------------------------------------------------ answers


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
    kind = event.type
    if kind == "content_block_delta":
        delta = event.delta
        if name := _TEXT.get(delta.type):
            # Older SDKs do not declare every kind of delta.
            seen.characters += len(getattr(delta, name, None) or "")
    elif kind == "message_start":
        message = event.message
        seen.attributes.update(_response(message))
        seen.notes = _told(get(message, "usage"))
    elif kind == "message_delta":
        # Cumulative counts: what it tells replaces the start's, what it leaves out stands.
        seen.attributes.update(messages_usage({**(seen.notes or {}), **_told(event.usage)}))
        if reason := get(event.delta, "stop_reason"):
            seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
        seen.final = True
    elif kind == "content_block_start" and get(block := event.content_block, "type") == "fallback":
        # Another model goes on, and the usage to come is its own.
        seen.attributes[semconv.RESPONSE_MODEL] = get(get(block, "to"), "model")


def _told(usage: Any) -> dict[str, Any]:
    return {name: value for name in _USAGE if (value := get(usage, name)) is not None}


# ------------------------------------------------------------------ the table


def _base_url(instance: Any) -> object:
    return instance._client._base_url


_CLIENTS = {
    "Bedrock": "aws.bedrock",
    "BedrockMantle": "aws.bedrock",
    "Vertex": "gcp.vertex_ai",
    # Anthropic's own service and prices, sold through a cloud.
    "Foundry": "anthropic",
    "AWS": "anthropic",
    "GoogleCloud": "anthropic",
}


def _identify(instance: Any, _host: str) -> str | None:
    """A client made for a cloud talks to that cloud, through whatever host; None lets the host tell."""
    names = (cls.__name__.removeprefix("Async").removeprefix("Anthropic") for cls in type(instance._client).__mro__)
    return next((_CLIENTS[name] for name in names if name in _CLIENTS), None)


_MESSAGES = ("anthropic.resources.messages.messages", "anthropic.resources.messages")
_BETA = (
    "anthropic.resources.beta.messages.messages",
    "anthropic.resources.beta.prompt_caching.messages",
    # These take over the functions of the classes above when they are imported.
    "anthropic.lib.bedrock._beta_messages",
    "anthropic.lib.vertex._beta_messages",
)
_CONTENT = ("system", "messages", "tools")


def _endpoints(module: str, *others: str) -> tuple[Endpoint, ...]:
    """The methods that send a request themselves; `tool_runner` and `thread` go through them, in every version."""

    def endpoint(method: str, **options: Any) -> Endpoint:
        options = {"request": _request, "response": _response, "content": _CONTENT, "moved_from": others, **options}
        return Endpoint(module, method, semconv.CHAT, **options)

    return (
        endpoint("Messages.create", chunk=_chunk),
        endpoint("Messages.parse"),
        endpoint("Messages.stream", request=_stream_request, chunk=_chunk, deferred=True),
    )


ANTHROPIC = Provider(
    name="anthropic",
    requires="anthropic>=0.40",
    base_url=_base_url,
    identify=_identify,
    native_spans=("anthropic._base_client", "start_api_call_span"),
    usage_formats={"anthropic.messages": messages_usage},
    endpoints=_endpoints(*_MESSAGES) + _endpoints(*_BETA),
)
