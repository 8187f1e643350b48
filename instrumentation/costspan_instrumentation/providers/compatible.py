"""Chat, completions and embeddings in OpenAI's protocol, as the SDKs of other providers hand them over.

Their classes differ, between providers and between versions of one SDK: these readers take them all, and plain dicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, get, given, known
from costspan_instrumentation.providers.openai.requests import request as openai_request
from costspan_instrumentation.providers.openai.usage import chat_usage, embeddings_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Request attributes of any call; what asks for the default is left out."""
    attributes = openai_request(arguments) | given(arguments, {"top_k": semconv.REQUEST_TOP_K})
    # OpenAI has an attribute of its own for it.
    if tier := attributes.pop(semconv.OPENAI_REQUEST_SERVICE_TIER, None):
        attributes[semconv.SERVICE_TIER] = tier
    return attributes


def usage_of(usage: Any) -> Attributes:
    """`usage` of a completion, and what providers that speak the protocol add to it.

    >>> usage_of({"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 8, "estimated_cost": 3e-7})[
    ...     "costspan.usage.reported_cost"
    ... ]
    3e-07
    """
    added = {semconv.CACHE_READ_TOKENS: get(usage, "cached_tokens") or None}
    # DeepInfra's own figure, also through the router of Hugging Face.
    added[semconv.USAGE_REPORTED_COST] = get(usage, "estimated_cost")
    return {**known(added), **chat_usage(usage)}


def response(answer: Any) -> Attributes:
    """A chat or text completion: who answered, why it ended, and its usage."""
    attributes = {**identity(answer), **usage_of(get(answer, "usage"))}
    if reasons := tuple(_reason(choice) for choice in get(answer, "choices") or () if _reason(choice)):
        attributes[semconv.RESPONSE_FINISH_REASONS] = reasons
    return attributes


def identity(answer: Any) -> Attributes:
    """Who answered, and at what service tier."""
    named = {
        semconv.RESPONSE_ID: get(answer, "id"),
        semconv.RESPONSE_MODEL: get(answer, "model"),
        semconv.SERVICE_TIER: get(answer, "service_tier"),
    }
    return {key: value for key, value in named.items() if value}


def _reason(choice: Any) -> str:
    """Why a choice ended; old SDKs have a class of their own for it."""
    reason = get(choice, "finish_reason")
    return str(getattr(reason, "value", reason)) if reason else ""


def chunk(part: Any, seen: Seen) -> None:
    """One chunk of a streamed chat or text completion; the last usage that comes is the whole one."""
    attributes = seen.attributes
    content(part, seen)
    usage = get(part, "usage")
    if not usage and semconv.RESPONSE_FINISH_REASONS in attributes:
        # Groq has a place of its own for it, where nobody asked for the usual one.
        usage = get(get(part, "x_groq"), "usage")
    if usage or not seen.started:
        attributes.update(identity(part))
        seen.started = semconv.RESPONSE_MODEL in attributes
    if usage:
        attributes.update(usage_of(usage))
        seen.final = True


def content(part: Any, seen: Seen) -> None:
    """What a chunk brings of the answer itself."""
    for choice in get(part, "choices") or ():
        # Completions of Together send their text twice, as a completion's and as a chat's.
        seen.characters += written(get(choice, "delta") or choice)
        if reason := _reason(choice):
            reasons = seen.attributes.get(semconv.RESPONSE_FINISH_REASONS, ())
            seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (*reasons, reason)


def written(delta: Any) -> int:
    """Characters that a model wrote: its text, its thoughts, and what it wants tools to be given."""
    tools = (get(get(tool, "function"), "arguments") for tool in get(delta, "tool_calls") or ())
    texts = (get(delta, name) for name in ("content", "reasoning", "reasoning_content", "text"))
    return sum(len(text) for text in (*texts, *tools) if isinstance(text, str))


def embeddings_response(answer: Any) -> Attributes:
    """Embeddings: their model, and the tokens that went in."""
    return known({semconv.RESPONSE_MODEL: get(answer, "model"), **embeddings_usage(get(answer, "usage"))})
