"""Anthropic: messages, plain and beta, and batches of them, of the Claude API and of the clients for the clouds."""

from __future__ import annotations

from typing import Any

from costspan_instrumentation.provider import NativeSpans, Provider
from costspan_instrumentation.providers.anthropic import batches, messages
from costspan_instrumentation.providers.anthropic.usage import messages_usage

__all__ = ["ANTHROPIC", "messages_usage"]


def _base_url(instance: Any) -> object:
    return instance._client._base_url


_CLIENTS = {
    "Bedrock": "aws.bedrock",
    "BedrockMantle": "aws.bedrock",
    "Vertex": "gcp.vertex_ai",
    # Anthropic's own service and prices, sold through a cloud.
    "Foundry": "anthropic",
    "AWS": "anthropic",
    "GoogleCloud": "anthropic",
}


def _identify(instance: Any, _host: str) -> str | None:
    """A client made for a cloud talks to that cloud, through whatever host; None lets the host tell."""
    names = (cls.__name__.removeprefix("Async").removeprefix("Anthropic") for cls in type(instance._client).__mro__)
    return next((_CLIENTS[name] for name in names if name in _CLIENTS), None)


_MESSAGES = ("anthropic.resources.messages.messages", "anthropic.resources.messages")
_BETA = (
    "anthropic.resources.beta.messages.messages",
    "anthropic.resources.beta.prompt_caching.messages",
    # These take over the functions of the classes above when they are imported.
    "anthropic.lib.bedrock._beta_messages",
    "anthropic.lib.vertex._beta_messages",
)

ANTHROPIC = Provider(
    name="anthropic",
    requires="anthropic>=0.40",
    base_url=_base_url,
    identify=_identify,
    native_spans=(NativeSpans("anthropic._base_client", "start_api_call_span"),),
    usage_formats={"anthropic.messages": messages_usage},
    endpoints=(*messages.endpoints(*_MESSAGES), *messages.endpoints(*_BETA), *batches.ENDPOINTS),
)
