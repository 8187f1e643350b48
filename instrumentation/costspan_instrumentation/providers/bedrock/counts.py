"""What Bedrock and the models on it call the counts of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, known, total
from costspan_instrumentation.providers.anthropic import messages_usage
from costspan_instrumentation.providers.openai import chat_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first that is told counts: the API's own name, those of models, those of Bedrock's metrics and headers.
_INPUT = (
    "inputTokens",
    "prompt_token_count",
    "inputTextTokenCount",
    "inputTokenCount",
    "x-amzn-bedrock-input-token-count",
)
_OUTPUT = (
    "outputTokens",
    "generation_token_count",
    "totalOutputTextTokenCount",
    "outputTokenCount",
    "x-amzn-bedrock-output-token-count",
)
_READ = ("cacheReadInputTokens", "cacheReadInputTokenCount", "x-amzn-bedrock-cache-read-input-token-count")
_WRITE = ("cacheWriteInputTokens", "cacheWriteInputTokenCount", "x-amzn-bedrock-cache-write-input-token-count")
_LIFETIMES = {"5m": semconv.CACHE_WRITE_5M, "1h": semconv.CACHE_WRITE_1H}


def first(told: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of these names that has one."""
    return next((value for name in names if (value := told.get(name)) is not None), None)


def converse_usage(usage: Any) -> Attributes:
    """`usage` of a conversation. What is read from and written to a cache is counted beside the input.

    >>> converse_usage({"inputTokens": 3, "outputTokens": 9, "cacheReadInputTokens": 50})
    {'gen_ai.usage.input_tokens': 53, 'gen_ai.usage.output_tokens': 9, 'gen_ai.usage.cache_read.input_tokens': 50}
    """
    told = fields_of(usage)
    written = {
        key: tokens
        for detail in told.get("cacheDetails") or ()
        if (key := _LIFETIMES.get(get(detail, "ttl"))) and (tokens := get(detail, "inputTokens"))
    }
    read, write = total(first(told, _READ)), total(first(told, _WRITE))
    if write is None:
        write = total(*written.values())
    return {
        **known(
            {
                semconv.INPUT_TOKENS: total(first(told, _INPUT), read, write),
                semconv.OUTPUT_TOKENS: total(first(told, _OUTPUT)),
                semconv.CACHE_READ_TOKENS: read or None,
                semconv.CACHE_WRITE_TOKENS: write or None,
            }
        ),
        **written,
    }


def invoke_usage(usage: Any) -> Attributes:
    """The counts of a native answer, of its headers and of the metrics that end a stream, all in one mapping.

    >>> invoke_usage({"prompt_token_count": 5, "generation_token_count": 2, "x-amzn-bedrock-input-token-count": "5"})
    {'gen_ai.usage.input_tokens': 5, 'gen_ai.usage.output_tokens': 2}
    """
    told = fields_of(usage)
    native: Attributes = {}
    if "prompt_tokens" in told or "completion_tokens" in told:
        native = chat_usage(told)
    elif "input_tokens" in told or "output_tokens" in told:
        native = messages_usage(told)
    if semconv.INPUT_TOKENS in native and semconv.OUTPUT_TOKENS in native:
        return native
    attributes = {**converse_usage(told), **native}
    if semconv.OUTPUT_TOKENS not in attributes and type(results := told.get("results")) is list:
        # Titan counts each of its answers.
        attributes |= known({semconv.OUTPUT_TOKENS: total(*(get(result, "tokenCount") for result in results))})
    return attributes
