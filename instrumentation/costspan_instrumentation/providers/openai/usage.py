"""OpenAI's usage objects, which many other providers speak too. Totals include cached and reasoning tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, known, total, undeclared
from costspan_instrumentation.providers.openai.gateways import billed_beside, reported_cost

if TYPE_CHECKING:
    from collections.abc import Mapping


def chat_usage(usage: Any) -> Attributes:
    """`usage` of a chat completion: totals include cached and reasoning tokens, details are parts of them.

    >>> chat_usage({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}})
    {'gen_ai.usage.input_tokens': 9, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.cache_read.input_tokens': 8}
    """
    if usage is None:
        return {}
    told = _all_fields(usage)
    return _usage(
        usage,
        told.get("prompt_tokens"),
        told.get("completion_tokens"),
        told.get("prompt_tokens_details"),
        told.get("completion_tokens_details"),
    )


def responses_usage(usage: Any) -> Attributes:
    """`usage` of a response: as a chat completion's, under other names."""
    if usage is None:
        return {}
    told = _all_fields(usage)
    return _usage(
        usage,
        told.get("input_tokens"),
        told.get("output_tokens"),
        told.get("input_tokens_details"),
        told.get("output_tokens_details"),
    )


def embeddings_usage(usage: Any) -> Attributes:
    """`usage` of embeddings: input alone, whatever a server says of output; some (Jina) tell the total alone."""
    told = fields_of(usage)
    tokens = told.get("prompt_tokens", told.get("total_tokens"))
    return known({semconv.INPUT_TOKENS: tokens, **reported_cost(undeclared(usage))})


def _all_fields(usage: Any) -> dict[str, Any]:
    """All fields of a usage; old SDKs declare fewer than hosts send."""
    unusual = undeclared(usage)
    return {**fields_of(usage), **unusual} if unusual else fields_of(usage)


def _usage(usage: Any, tokens_in: Any, tokens_out: Any, details_in: Any, details_out: Any) -> Attributes:
    attributes: Attributes = {}
    if tokens_in is not None:
        attributes[semconv.INPUT_TOKENS] = tokens_in
    if tokens_out is not None:
        attributes[semconv.OUTPUT_TOKENS] = tokens_out
    if details_in is not None and _parts(details_in, _INPUT_PARTS, attributes):
        writes = fields_of(details_in).get("cache_write_tokens_details")
        if writes is not None:
            _parts(writes, _WRITE_PARTS, attributes)
    if details_out is not None and _parts(details_out, _OUTPUT_PARTS, attributes):
        reasoning = attributes.get(semconv.REASONING_TOKENS)
        # Some hosts (xAI) count reasoning beside the completion; only the total tells.
        if reasoning and get(usage, "total_tokens") == total(tokens_in, tokens_out, reasoning):
            attributes[semconv.OUTPUT_TOKENS] = total(tokens_out, reasoning)
    if unusual := undeclared(usage):
        # DeepSeek's name, and Moonshot's.
        cached = unusual.get("prompt_cache_hit_tokens") or unusual.get("cached_tokens")
        if cached and semconv.CACHE_READ_TOKENS not in attributes:
            attributes[semconv.CACHE_READ_TOKENS] = cached
        attributes.update(reported_cost(unusual))
        attributes.update(billed_beside(unusual, tokens_out))
    return attributes


_INPUT_PARTS = {
    "cached_tokens": semconv.CACHE_READ_TOKENS,
    "cache_write_tokens": semconv.CACHE_WRITE_TOKENS,
    "audio_tokens": semconv.AUDIO_INPUT_TOKENS,
    "image_tokens": semconv.IMAGE_INPUT_TOKENS,
}
_OUTPUT_PARTS = {
    "reasoning_tokens": semconv.REASONING_TOKENS,
    "audio_tokens": semconv.AUDIO_OUTPUT_TOKENS,
    "image_tokens": semconv.IMAGE_OUTPUT_TOKENS,
}
_WRITE_PARTS = {"ttl_30m_tokens": semconv.CACHE_WRITE_30M, "ttl_12h_tokens": semconv.CACHE_WRITE_12H}


def _parts(details: Any, parts: Mapping[str, str], attributes: Attributes) -> bool:
    """Adds the parts of a total that are not 0; False if there are none, as in most calls."""
    found = False
    for fields in (fields_of(details), getattr(details, "__pydantic_extra__", None)):
        if fields and any(fields.values()):
            found = True
            for name, count in fields.items():
                if count and name in parts:
                    attributes[parts[name]] = count
    return found
