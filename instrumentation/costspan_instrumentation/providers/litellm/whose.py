"""Who is behind a call of LiteLLM: the provider, its host, its model, and what the provider itself says it costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.provider import Attributes, decoded, get, known, undeclared
from costspan_instrumentation.providers import compatible
from costspan_instrumentation.providers.openai.gateways import reported_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = {
    "anthropic_text": "anthropic",
    "azure": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "codestral": "mistral_ai",
    "cohere_chat": "cohere",
    "dashscope": "alibaba",
    "fireworks_ai": "fireworks",
    "gemini": "gcp.gemini",
    "hosted_vllm": "vllm",
    "jina_ai": "jina",
    "litellm_proxy": "litellm",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "ollama_chat": "ollama",
    "text-completion-codestral": "mistral_ai",
    "together_ai": "together",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "watsonx_text": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's name of a provider -> `gen_ai.provider.name`, where they differ."""

_ANY_HOST = {"openai", "custom_openai", "openai_like", "aiohttp_openai", "text-completion-openai"}
"""Names that mean OpenAI's protocol: who speaks it is for the host to tell."""

_TELL_THEIR_COST = {"openrouter", "perplexity", "xai"}
_PROXY_COST = "llm_provider-x-litellm-response-cost"
"""What a LiteLLM proxy sent in a header, as the SDK hands it on."""


def asked(arguments: Mapping[str, Any]) -> tuple[str, str]:
    """The provider (empty where LiteLLM is to find out) and the model of a call; a prefix of the model names one."""
    model, provider = str(arguments.get("model") or ""), str(arguments.get("custom_llm_provider") or "")
    prefix, slash, rest = model.partition("/")
    if slash and (prefix == provider or prefix in getattr(sys.modules.get("litellm"), "provider_list", ())):
        return prefix, rest
    return provider, model


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Request attributes: the model by the provider's own name for it."""
    provider, model = asked(arguments)
    where = _place(provider, arguments.get("api_base") or arguments.get("base_url"))
    return {**compatible.request(arguments), **known({semconv.REQUEST_MODEL: model or None}), **where}


def _place(provider: str, url: Any) -> Attributes:
    parts = urlsplit(str(url)) if url else None
    host = (parts.hostname if parts else None) or ""
    name = NAMES.get(provider, provider)
    if not provider or provider in _ANY_HOST:
        name = provider_of(host) or ("openai" if provider else "")
    port = parts.port if parts and parts.port not in {None, 80, 443} else None
    return known({semconv.PROVIDER: name or None, semconv.SERVER_ADDRESS: host or None, semconv.SERVER_PORT: port})


def hidden(answer: Any) -> Mapping[str, Any]:
    """What LiteLLM knows of an answer or a chunk beside its content."""
    found = getattr(answer, "_hidden_params", None)
    return found if isinstance(found, dict) else {}


def answered(aside: Mapping[str, Any], model: Any) -> Attributes:
    """Who answered, as LiteLLM found out; it may have put its own name of the provider before that of the model."""
    provider, model = aside.get("custom_llm_provider") or "", aside.get("provider_response_model") or model
    named = {semconv.RESPONSE_MODEL: model.removeprefix(f"{provider}/")} if isinstance(model, str) else {}
    return {**_place(provider, aside.get("api_base")), **named}


def from_cache(aside: Mapping[str, Any]) -> bool:
    """Whether nobody was asked, since LiteLLM had kept an earlier answer: it repeats the usage of that one."""
    return bool(aside.get("cache_hit"))


def cost(usage: Any, aside: Mapping[str, Any]) -> Attributes:
    """The provider's own figure. LiteLLM's, of its own price table, may stand in the same places: it is none."""
    if "upstream_usage_cost" in aside:
        return reported_cost({"cost": aside["upstream_usage_cost"]})
    told: Attributes = {}
    if aside.get("custom_llm_provider") in _TELL_THEIR_COST:
        told = reported_cost({"cost": get(usage, "cost")}) or reported_cost(undeclared(usage))
    sent = get(aside.get("additional_headers"), _PROXY_COST)
    return told or known({semconv.USAGE_REPORTED_COST: decoded(sent) if isinstance(sent, str) else sent})
