"""LiteLLM: its functions, which call the SDKs and hosts of a hundred providers.

What they call is counted here and nowhere else. LiteLLM's own price of a call is never taken over; a figure that the
provider itself reports is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Provider
from costspan_instrumentation.providers import audio
from costspan_instrumentation.providers.litellm import answers, whose
from costspan_instrumentation.providers.openai import responses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costspan_instrumentation.provider import Attributes

_MOCKS = ("mock_response", "mock_tool_calls", "mock_timeout")


def _choose(endpoint: Endpoint, arguments: Mapping[str, Any], _: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """An answer that the application gives itself, for a test, is no call."""
    return None if any(arguments.get(mock) for mock in _MOCKS) else (endpoint, arguments)


def _ask(arguments: Mapping[str, Any], _host: str, _instance: Any) -> Mapping[str, Any] | None:
    """Asks for the usage of a stream past LiteLLM, which then tells it without a chunk more; of OpenAI it asks itself."""
    if whose.asked(arguments)[0] not in {"azure", "deepseek"} or arguments.get("stream_options"):
        return None
    body = arguments.get("extra_body") or {}
    return {"extra_body": {"stream_options": {"include_usage": True}, **body}}


def _endpoint(
    function: str,
    operation: str,
    read: Callable[[Any, Mapping[str, Any]], Attributes],
    *positional: str,
    **options: Any,
) -> Endpoint:
    return Endpoint(
        "litellm",
        function,
        operation,
        whose.request,
        answers.reader(read),
        async_method=f"a{function}",
        positional=positional,
        **options,
    )


_COMPLETE = _endpoint(
    "completion",
    semconv.CHAT,
    answers.completion,
    "model",
    "messages",
    chunk=answers.chunk,
    content=("messages", "tools"),
    ask=_ask,
)
