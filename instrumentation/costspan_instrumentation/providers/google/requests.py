"""What every request to Google has: settings, the service tier, and who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONFIG = {
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "seed": semconv.REQUEST_SEED,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
    "candidate_count": semconv.REQUEST_CHOICE_COUNT,
    "output_dimensionality": semconv.EMBEDDINGS_DIMENSION_COUNT,
}
_CAMEL = {
    "maxOutputTokens": "max_output_tokens",
    "topP": "top_p",
    "topK": "top_k",
    "candidateCount": "candidate_count",
    "stopSequences": "stop_sequences",
    "serviceTier": "service_tier",
    "outputDimensionality": "output_dimensionality",
}


def request(kwargs: Mapping[str, Any]) -> Attributes:
    """Model and settings of any request; `config` is an object of the SDK, or a dict in either spelling."""
    attributes: Attributes = {}
    if type(model := kwargs.get("model")) is str:
        attributes[semconv.REQUEST_MODEL] = model
    if (config := kwargs.get("config")) is None:
        return attributes
    for given, value in fields_of(config).items():
        name = _CAMEL.get(given, given)
        if name in _CONFIG and type(value) in {int, float}:
            # The SDK declares top_k as a float.
            attributes[_CONFIG[name]] = int(value) if name == "top_k" else value
        elif name == "stop_sequences" and type(value) is list:
            attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(value)
        elif name == "service_tier" and (tier := tier_of(value)) not in {None, "standard"}:
            attributes[semconv.SERVICE_TIER] = tier
    if attributes.get(semconv.REQUEST_CHOICE_COUNT) == 1:
        del attributes[semconv.REQUEST_CHOICE_COUNT]
    return attributes


def short_name(model: Any) -> str | None:
    """A model's name without the path that a resource gives it.

    >>> short_name("models/gemini-2.5-flash"), short_name(None)
    ('gemini-2.5-flash', None)
    """
    return model.rpartition("/")[2] if isinstance(model, str) else None


def tier_of(told: Any) -> str | None:
    """A `serviceTier` or a `trafficType` as a tier: ON_DEMAND is standard, ON_DEMAND_FLEX is flex."""
    if not isinstance(told, str) or (name := told.lower()).endswith("unspecified"):
        return None
    return name.removeprefix("on_demand").removeprefix("_") or "standard"


def base_url(instance: Any) -> object:
    """Where the client of a resource, or of a session, sends its requests."""
    client = getattr(instance, "_api_client", None)
    return client._http_options.base_url if client is not None else instance._client.base_url


def identify(instance: Any, _host: str) -> str | None:
    """The Gemini API or Vertex AI, which both may stand behind any host."""
    client = getattr(instance, "_api_client", None)
    if client is not None:
        vertex = client.vertexai
    else:
        # The interactions of version 2 have a client of their own.
        adapter = getattr(instance._client, "client_adapter", None)
        vertex = adapter is not None and adapter.is_vertex_ai()
    return "gcp.vertex_ai" if vertex else "gcp.gemini"
