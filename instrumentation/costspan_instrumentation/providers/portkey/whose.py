"""Who is behind a call through Portkey: its own names, the client's headers, the call's model, the answer's headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import EXACT, SUFFIXES
from costspan_instrumentation.provider import Attributes, decoded, get, known

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = {
    "azure-ai": "azure.ai.inference",
    "azure-openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "dashscope": "alibaba",
    "fireworks-ai": "fireworks",
    "google": "gcp.gemini",
    "mistral-ai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "novita-ai": "novita",
    "perplexity-ai": "perplexity",
    "together-ai": "together",
    "vertex-ai": "gcp.vertex_ai",
    "workers-ai": "cloudflare",
    "x-ai": "x_ai",
    "z-ai": "zai",
    "zhipu": "zhipuai",
}
"""Portkey's name of a provider -> `gen_ai.provider.name`, where they differ."""

_KNOWN = {*NAMES.values(), *EXACT.values(), *(name for _, name in SUFFIXES)}
_PROVIDER, _CONFIG, _CACHE = "x-portkey-provider", "x-portkey-config", "x-portkey-cache-status"


def named(name: Any) -> str | None:
    """The provider of this name. One with an `@` was made up by somebody, who may have said what it is.

    >>> named("azure-openai"), named("@openai"), named("@team-one"), named(None)
    ('azure.ai.openai', 'openai', None, None)
    """
    if not isinstance(name, str) or not name:
        return None
    provider = NAMES.get(name.removeprefix("@"), name.removeprefix("@"))
    return provider if provider in _KNOWN or not name.startswith("@") else None


def client(resource: Any) -> Any:
    """The client of the copy of OpenAI's SDK, which Portkey's own client has in it."""
    return getattr(resource._client, "openai_client", resource._client)


def identify(resource: Any, _host: str) -> str | None:
    """The provider of all calls of a client."""
    headers = _lowered(client(resource)._custom_headers)
    config = decoded(sent := headers.get(_CONFIG))
    # A configuration that the gateway keeps, or that names several providers, leaves it open.
    if sent and (not isinstance(config, dict) or "targets" in config):
        return None
    return named(get(config, "provider") or headers.get(_PROVIDER))


def asked(arguments: Mapping[str, Any]) -> Attributes:
    """What one call says of its provider and model, as `@anthropic/claude-opus-4` does."""
    slug, _, model = str(arguments.get("model") or "").partition("/")
    if slug.startswith("@"):
        return known({semconv.PROVIDER: named(slug), semconv.REQUEST_MODEL: model})
    return known({semconv.PROVIDER: named(_lowered(arguments.get("extra_headers")).get(_PROVIDER))})


def _lowered(headers: Any) -> dict[str, Any]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def answered(answer: Any) -> Attributes:
    """The provider that the gateway says it has taken, in a header or, where the answer is not OpenAI's, in it."""
    return known({semconv.PROVIDER: named(_headers(answer).get(_PROVIDER) or get(answer, "provider"))})


def from_cache(answer: Any) -> bool:
    """Whether no provider was asked, since the gateway had kept an earlier answer: it repeats the usage of that one."""
    return str(_headers(answer).get(_CACHE)).endswith("HIT")


def _headers(answer: Any) -> Any:
    return getattr(answer, "_headers", None) or {}
