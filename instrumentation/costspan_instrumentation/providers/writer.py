"""Writer: chat and completions, through the `writer-sdk`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, get, given, known
from costspan_instrumentation.providers import compatible
from costspan_instrumentation.providers.openai.requests import wants_raw

if TYPE_CHECKING:
    from collections.abc import Mapping


def _request(arguments: Mapping[str, Any]) -> Attributes:
    return compatible.request(arguments) | given(arguments, {"random_seed": semconv.REQUEST_SEED})


def _cached(usage: Any) -> Attributes:
    return known({semconv.CACHE_READ_TOKENS: get(get(usage, "prompt_token_details"), "cached_tokens") or None})


def chat_usage(usage: Any) -> Attributes:
    """`usage` of a chat: OpenAI's, but for a letter in the name of a detail.

    >>> chat_usage({"prompt_tokens": 9, "completion_tokens": 2, "prompt_token_details": {"cached_tokens": 8}})
    {'gen_ai.usage.input_tokens': 9, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.cache_read.input_tokens': 8}
    """
    return compatible.usage_of(usage) | _cached(usage)


def _response(answer: Any) -> Attributes:
    return compatible.response(answer) | _cached(get(answer, "usage"))


def _chunk(chunk: Any, seen: Seen) -> bool:
    compatible.chunk(chunk, seen)
    usage = get(chunk, "usage")
    if not usage:
        return False
    seen.attributes.update(_cached(usage))
    return seen.asked and not get(chunk, "choices")


def _ask(arguments: Mapping[str, Any], host: str, _: Any) -> Mapping[str, Any] | None:
    options = arguments.get("stream_options")
    options = options if isinstance(options, dict) else {}
    if wants_raw(arguments) or options.get("include_usage") or provider_of(host) != "writer":
        return None
    return {"stream_options": {**options, "include_usage": True}}


def _text(chunk: Any, seen: Seen) -> None:
    """A chunk of a completion: nothing but its text, so that the usage stays an estimate."""
    seen.characters += len(get(chunk, "value") or "")


WRITER = Provider(
    name="writer",
    requires="writer-sdk>=1.0",
    base_url=lambda resource: resource._client.base_url,
    usage_formats={"writer.chat": chat_usage},
    endpoints=(
        Endpoint(
            "writerai.resources.chat",
            "ChatResource.chat",
            semconv.CHAT,
            _request,
            _response,
            _chunk,
            content=("messages", "tools"),
            ask=_ask,
        ),
        Endpoint(
            "writerai.resources.completions",
            "CompletionsResource.create",
            semconv.TEXT_COMPLETION,
            _request,
            compatible.response,
            _text,
            content=("prompt",),
        ),
    ),
)
