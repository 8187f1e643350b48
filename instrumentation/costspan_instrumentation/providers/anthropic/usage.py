"""Anthropic's usage objects. Their input excludes the cache, which the conventions include: it is added."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, total, undeclared

if TYPE_CHECKING:
    from collections.abc import Mapping

NOWHERE = {None, "", "not_available", "global"}
"""Values of `inference_geo` that name no place."""


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
    if (geo := told("inference_geo")) not in NOWHERE:
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
