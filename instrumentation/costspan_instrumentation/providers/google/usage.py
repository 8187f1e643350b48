"""`usageMetadata`, in the SDK's spelling and on the wire."""

from __future__ import annotations

from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, total
from costspan_instrumentation.providers.google.requests import tier_of

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
_INPUT = {"AUDIO": semconv.AUDIO_INPUT_TOKENS, "IMAGE": semconv.IMAGE_INPUT_TOKENS, "VIDEO": semconv.INPUT_VIDEO}
_OUTPUT = {"AUDIO": semconv.AUDIO_OUTPUT_TOKENS, "IMAGE": semconv.IMAGE_OUTPUT_TOKENS}
_CACHE = {
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
    for names, keys in ((ins, _INPUT), ((outs,), _OUTPUT), ((cache,), _CACHE)):
        for name in names:
            for part in fields.get(name) or ():
                if (key := keys.get(get(part, "modality"))) and (tokens := get(part, count)):
                    attributes[key] = total(attributes.get(key), tokens)
    for name in tiers:
        if tier := tier_of(fields.get(name)):
            attributes[semconv.SERVICE_TIER] = tier
    if prompts := fields.get("grounded_prompts"):
        attributes[semconv.GROUNDED_PROMPTS] = prompts
    return attributes
