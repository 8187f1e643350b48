"""What an application asks for: the model, its settings under whatever names it wants, the guardrail and the tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of, get, known

from .counts import first

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = {
    semconv.REQUEST_MAX_TOKENS: (
        "maxTokens",
        "max_tokens",
        "max_new_tokens",
        "max_gen_len",
        "maxTokenCount",
        "max_completion_tokens",
        "max_tokens_to_sample",
    ),
    semconv.REQUEST_TEMPERATURE: ("temperature",),
    semconv.REQUEST_TOP_P: ("topP", "top_p", "p"),
    semconv.REQUEST_TOP_K: ("topK", "top_k", "k"),
    semconv.REQUEST_STOP_SEQUENCES: ("stopSequences", "stop_sequences", "stop"),
}
_NESTED = ("inferenceConfig", "textGenerationConfig")


def converse(kwargs: Mapping[str, Any]) -> Attributes:
    """A conversation."""
    guardrail = get(kwargs.get("guardrailConfig"), "guardrailIdentifier")
    return {
        **known({semconv.REQUEST_MODEL: kwargs.get("modelId"), semconv.AWS_BEDROCK_GUARDRAIL_ID: guardrail}),
        **_settings(
            {**fields_of(kwargs.get("additionalModelRequestFields")), **fields_of(kwargs.get("inferenceConfig"))}
        ),
        **conversation_tier(kwargs),
    }


def converse_stream(kwargs: Mapping[str, Any]) -> Attributes:
    """A streamed conversation."""
    return {**converse(kwargs), semconv.REQUEST_STREAM: True}


def invoke(kwargs: Mapping[str, Any]) -> Attributes:
    """A request in the form of whoever made the model; `body` is what its JSON says."""
    model, body = kwargs.get("modelId") or "", fields_of(kwargs.get("body"))
    quality = get(body.get("imageGenerationConfig"), "quality")
    return {
        semconv.OPERATION: _operation(model, body),
        semconv.REQUEST_MODEL: model,
        **known({semconv.AWS_BEDROCK_GUARDRAIL_ID: kwargs.get("guardrailIdentifier")}),
        **_settings({**body, **fields_of(first(body, _NESTED))}),
        # Better images are a tier of their own in the price list.
        **tier(kwargs.get("performanceConfigLatency"), kwargs.get("serviceTier") or quality),
    }


def invoke_stream(kwargs: Mapping[str, Any]) -> Attributes:
    """A streamed one."""
    return {**invoke(kwargs), semconv.REQUEST_STREAM: True}


def start(kwargs: Mapping[str, Any]) -> Attributes:
    """Work in the background."""
    return known({semconv.REQUEST_MODEL: kwargs.get("modelId")})


def rerank(kwargs: Mapping[str, Any]) -> Attributes:
    """Sources to be ranked."""
    config = get(kwargs.get("rerankingConfiguration"), "bedrockRerankingConfiguration")
    return known({semconv.REQUEST_MODEL: get(get(config, "modelConfiguration"), "modelArn")})


def conversation_tier(told: Mapping[str, Any]) -> Attributes:
    """The tier that a conversation asks for, or was served in."""
    return tier(get(told.get("performanceConfig"), "latency"), get(told.get("serviceTier"), "type"))


def tier(latency: Any, service: Any) -> Attributes:
    """The price list has a column for faster machines beside those of the service tiers."""
    return known({semconv.SERVICE_TIER: latency if latency == "optimized" else service or latency})


def _settings(told: Mapping[str, Any]) -> Attributes:
    attributes: Attributes = {}
    for key, names in _SETTINGS.items():
        value = first(told, names)
        if type(value) is list:
            attributes[key] = tuple(value)
        elif type(value) in {int, float}:
            attributes[key] = value
    return attributes


def _operation(model: str, body: Mapping[str, Any]) -> str:
    if "embed" in model:
        return semconv.EMBEDDINGS
    if "rerank" in model:
        return semconv.RERANK
    if "imageGenerationConfig" in body or "stability." in model:
        return semconv.GENERATE_CONTENT
    return semconv.CHAT if "messages" in body or "message" in body else semconv.TEXT_COMPLETION
