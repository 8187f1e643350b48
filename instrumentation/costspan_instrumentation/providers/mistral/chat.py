"""Mistral: chat, fill-in-the-middle, agents and embeddings, in the form of OpenAI's answers with a few fields more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, get, given, known, undeclared
from costspan_instrumentation.providers.openai import chat_usage as openai_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "random_seed": semconv.REQUEST_SEED,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
    "stop": semconv.REQUEST_STOP_SEQUENCES,
    "n": semconv.REQUEST_CHOICE_COUNT,
    "reasoning_effort": semconv.REQUEST_REASONING_LEVEL,
    "output_dimension": semconv.EMBEDDINGS_DIMENSION_COUNT,
    "encoding_format": semconv.REQUEST_ENCODING_FORMATS,
}


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Request attributes of any method."""
    attributes = given(arguments, _REQUEST)
    if attributes.get(semconv.REQUEST_CHOICE_COUNT) == 1:
        del attributes[semconv.REQUEST_CHOICE_COUNT]
    return attributes


def stream_request(arguments: Mapping[str, Any]) -> Attributes:
    """Those of a method that streams."""
    return {**request(arguments), semconv.REQUEST_STREAM: True}


def chat_usage(usage: Any) -> Attributes:
    """`usage` of any answer. Audio is billed by the second, and the tokens of the prompt do not contain it.

    >>> chat_usage({"prompt_tokens": 9, "prompt_audio_seconds": 4, "prompt_tokens_details": {"audio_tokens": 375}})
    {'gen_ai.usage.input_tokens': 9, 'costspan.usage.audio_seconds': 4}
    """
    attributes = openai_usage(usage)
    # Beside what the SDK declares; older SDKs (1.5) drop it.
    more = undeclared(usage)
    if semconv.CACHE_READ_TOKENS not in attributes:
        cached = more.get("num_cached_tokens") or get(more.get("prompt_token_details"), "cached_tokens")
        if cached:
            attributes[semconv.CACHE_READ_TOKENS] = cached
    if seconds := get(usage, "prompt_audio_seconds"):
        attributes.pop(semconv.AUDIO_INPUT_TOKENS, None)
        attributes[semconv.AUDIO_SECONDS] = seconds
    return attributes | served_tier(get(usage, "service_tier"))


def served_tier(tier: Any) -> Attributes:
    """The tier that served the request, where it is not the usual one."""
    return {semconv.SERVICE_TIER: str(tier)} if tier and tier not in {"standard", "default"} else {}


def embeddings_usage(usage: Any) -> Attributes:
    """`usage` of embeddings: nothing is written, whatever the count says."""
    attributes = chat_usage(usage)
    attributes.pop(semconv.OUTPUT_TOKENS, None)
    return attributes


def identity(answer: Any) -> Attributes:
    """Which answer of which model this is."""
    return known({semconv.RESPONSE_MODEL: get(answer, "model"), semconv.RESPONSE_ID: get(answer, "id")})


def response(answer: Any) -> Attributes:
    """A completion of a chat, an agent or a code, a transcription."""
    attributes = identity(answer) | chat_usage(get(answer, "usage"))
    if reasons := tuple(r for choice in get(answer, "choices") or () if (r := get(choice, "finish_reason"))):
        attributes[semconv.RESPONSE_FINISH_REASONS] = reasons
    return attributes


def embeddings_response(answer: Any) -> Attributes:
    """Embeddings, moderations, classifications."""
    return identity(answer) | embeddings_usage(get(answer, "usage"))


def chunk(event: Any, seen: Seen) -> None:
    """An event of a streamed completion."""
    told = event.__dict__["data"].__dict__
    tells = told["usage"] or not seen.started
    for choice in told["choices"]:
        part = choice.__dict__
        delta = part["delta"].__dict__
        content = delta["content"]
        seen.characters += len(content) if type(content) is str else written(content)
        for call in delta["tool_calls"] or ():
            seen.characters += written(get(get(call, "function"), "arguments"))
        tells = tells or part["finish_reason"]
    if tells:
        seen.attributes.update(response(told))
        seen.started = True
        seen.final = bool(told["usage"])


def written(content: Any) -> int:
    """Characters of generated content: text, or parts with text or thinking in them."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(map(written, content))
    return written(get(content, "text") or get(content, "thinking")) if content else 0
