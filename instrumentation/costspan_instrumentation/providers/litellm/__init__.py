"""LiteLLM: its functions, which call the SDKs and hosts of a hundred providers.

What they call is counted here and nowhere else. LiteLLM's own price of a call is never taken over; a figure that the
provider itself reports is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider
from costspan_instrumentation.providers import audio
from costspan_instrumentation.providers.litellm import answers, media, whose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AZURE_SINCE = "2024-09-01"
_MOCKS = ("mock_response", "mock_tool_calls", "mock_timeout")


def _choose(endpoint: Endpoint, arguments: Mapping[str, Any], _: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """An answer that the application gives itself, for a test, is no call."""
    return None if any(arguments.get(mock) for mock in _MOCKS) else (endpoint, arguments)


def _ask(arguments: Mapping[str, Any], _host: str, _instance: Any) -> Mapping[str, Any] | None:
    """Asks for a stream's usage past LiteLLM, which then keeps it for `gathered`; OpenAI it asks by itself."""
    provider = whose.asked(arguments)[0]
    if provider not in {"azure", "deepseek"} or arguments.get("stream_options"):
        return None
    version = arguments.get("api_version") or os.environ.get("AZURE_API_VERSION", "")
    if provider == "azure" and version[:1].isdigit() and version < _AZURE_SINCE:
        return None
    return {"extra_body": {"stream_options": {"include_usage": True}, **(arguments.get("extra_body") or {})}}


def _endpoint(
    function: str,
    operation: str,
    read: Callable[[Any, Mapping[str, Any]], Attributes],
    *positional: str,
    content: tuple[str, ...] = (),
    **options: Any,
) -> Endpoint:
    """A function and its asynchronous twin; the prompt is in `content`."""
    endpoint = Endpoint(
        "litellm",
        function,
        operation,
        whose.request,
        answers.reader(read),
        async_method=f"a{function}",
        positional=positional,
        content=content,
        **options,
    )
    return replace(endpoint, choose=partial(_choose, endpoint))


_STREAMED: dict[str, Any] = {"chunk": answers.chunk, "gathered": answers.gathered, "ask": _ask}

LITELLM = Provider(
    name="litellm",
    requires="litellm>=1.100",
    base_url=lambda _: None,
    iterator="__next__",
    covers=True,
    records=True,
    endpoints=(
        _endpoint(
            "completion",
            semconv.CHAT,
            answers.completion,
            "model",
            "messages",
            content=("messages", "tools"),
            **_STREAMED,
        ),
        _endpoint(
            "text_completion",
            semconv.TEXT_COMPLETION,
            answers.completion,
            "prompt",
            "model",
            content=("prompt",),
            **_STREAMED,
        ),
        _endpoint(
            "responses",
            semconv.CHAT,
            answers.response,
            "input",
            "model",
            content=("input", "instructions", "tools"),
            chunk=answers.event,
        ),
        _endpoint("embedding", semconv.EMBEDDINGS, media.embeddings, "model", "input", content=("input",)),
        _endpoint("rerank", semconv.RERANK, media.ranked, "model", "query", "documents"),
        _endpoint("image_generation", semconv.IMAGE_GENERATION, media.images, "prompt", "model"),
        _endpoint("transcription", semconv.TRANSCRIPTION, media.heard, "model", "file"),
        _endpoint(
            "speech", semconv.SPEECH, lambda *_: {}, "model", "input", content=("input",), billed=audio.characters
        ),
    ),
)
