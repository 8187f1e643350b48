"""`usageMetadata`, in the SDK's spelling and on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, total
from costspan_instrumentation.providers.google.requests import tier_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# The fields that are read, in the SDK's spelling and on the wire.
_SDK = (
    "prompt_token_count",
    "tool_use_prompt_token_count",
    "candidates_token_count",
    "thoughts_token_count",
    "cached_content_token_count",
    ("prompt_tokens_details", "tool_use_prompt_tokens_details"),
    "candidates_tokens_details",
    "cache_tokens_details",
    ("service_tier", "traffic_type"),
    "token_count",
)
_WIRE = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    # The embeddings of the Gemini API spell it without an s.
    ("promptTokensDetails", "toolUsePromptTokensDetails", "promptTokenDetails"),
    "candidatesTokensDetails",
    "cacheTokensDetails",
    ("serviceTier", "trafficType"),
    "tokenCount",
)
INPUT = {"AUDIO": semconv.AUDIO_INPUT_TOKENS, "IMAGE": semconv.IMAGE_INPUT_TOKENS, "VIDEO": semconv.INPUT_VIDEO}
OUTPUT = {"AUDIO": semconv.AUDIO_OUTPUT_TOKENS, "IMAGE": semconv.IMAGE_OUTPUT_TOKENS, "VIDEO": semconv.OUTPUT_VIDEO}
CACHE = {
    "AUDIO": semconv.AUDIO_CACHE_READ_TOKENS,
    "IMAGE": semconv.IMAGE_CACHE_READ_TOKENS,
    "VIDEO": semconv.CACHE_READ_VIDEO,
}


def content_usage(usage: Any) -> Attributes:
    """`usageMetadata` of generated content: tool prompts are added to the input, thoughts to the output.

    >>> content_usage({"promptTokenCount": 9, "toolUsePromptTokenCount": 4, "thoughtsTokenCount": 2})
    {'gen_ai.usage.input_tokens': 13, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.reasoning.output_tokens': 2}
    """
    if usage is None:
        return {}
    fields = fields_of(usage)
    on_wire = isinstance(usage, dict) and "prompt_token_count" not in usage
    prompt, tools, candidates, thoughts, cached, ins, outs, cache, tiers, count = _WIRE if on_wire else _SDK
    attributes: Attributes = {}
    if (tokens := total(fields.get(prompt), fields.get(tools))) is not None:
        attributes[semconv.INPUT_TOKENS] = tokens
    reasoning = fields.get(thoughts)
    if (tokens := total(fields.get(candidates), reasoning)) is not None:
        attributes[semconv.OUTPUT_TOKENS] = tokens
    if reasoning:
        attributes[semconv.REASONING_TOKENS] = reasoning
    if tokens := fields.get(cached):
        attributes[semconv.CACHE_READ_TOKENS] = tokens
    for names, keys in ((ins, INPUT), ((outs,), OUTPUT), ((cache,), CACHE)):
        for name in names:
            if parts := fields.get(name):
                add_modalities(parts, keys, count, attributes)
    for name in tiers:
        if tier := tier_of(fields.get(name)):
            attributes[semconv.SERVICE_TIER] = tier
    if prompts := fields.get("grounded_prompts"):
        attributes[semconv.GROUNDED_PROMPTS] = prompts
    return attributes


def add_modalities(parts: Any, keys: Mapping[str, str], count: str, attributes: Attributes) -> None:
    """Adds the parts of a total that are no text; `count` is the field of a part that has its tokens."""
    for part in parts or ():
        # A modality is text, or a member of an enumeration of texts.
        modality = get(part, "modality")
        key = keys.get(modality.upper()) if isinstance(modality, str) else None
        if key is not None and (tokens := get(part, count)):
            attributes[key] = total(attributes.get(key), tokens)


_LIVE = {
    "response_token_count": "candidates_token_count",
    "response_tokens_details": "candidates_tokens_details",
    "responseTokenCount": "candidatesTokenCount",
    "responseTokensDetails": "candidatesTokensDetails",
}


def live_usage(usage: Any) -> Attributes:
    """`usageMetadata` of a live session, which speaks of a response where generated content has candidates.

    >>> live_usage({"promptTokenCount": 9, "responseTokenCount": 4})
    {'gen_ai.usage.input_tokens': 9, 'gen_ai.usage.output_tokens': 4}
    """
    return content_usage({_LIVE.get(name, name): value for name, value in fields_of(usage).items()})
