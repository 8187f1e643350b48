"""AI21: chat; on Azure, Bedrock and Google Cloud too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Provider
from costspan_instrumentation.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Mapping


def _choose(arguments: Mapping[str, Any], _client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    """The call with its arguments by name: clients and versions differ in which of the first two is the model."""
    first = arguments.get("messages")
    if isinstance(first, str):
        arguments = {**arguments, "model": first, "messages": arguments.get("model")}
    return _CREATE, arguments


_CHAT = "ai21.clients.studio.resources.chat"
_CREATE = Endpoint(
    f"{_CHAT}.chat_completions",
    "ChatCompletions.create",
    semconv.CHAT,
    compatible.request,
    compatible.response,
    compatible.chunk,
    content=("messages", "documents", "tools"),
    positional=("messages", "model", "max_tokens", "temperature", "top_p", "stop", "n", "stream", "tools"),
    moved_from=(f"{_CHAT}.async_chat_completions",),
)

AI21 = Provider(
    name="ai21",
    requires="ai21>=2.16",
    base_url=lambda resource: resource._client._base_url,
    endpoints=(replace(_CREATE, choose=_choose),),
)
