"""What every request and answer of OpenAI's protocol has; asking a stream for its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.provider import Attributes, fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCALARS = {str, int, float, bool}

_REQUEST = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_completion_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_output_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "seed": semconv.REQUEST_SEED,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
    "n": semconv.REQUEST_CHOICE_COUNT,
    "stop": semconv.REQUEST_STOP_SEQUENCES,
    "service_tier": semconv.OPENAI_REQUEST_SERVICE_TIER,
    "reasoning_effort": semconv.REQUEST_REASONING_LEVEL,
    "previous_response_id": semconv.REQUEST_PREVIOUS_RESPONSE_ID,
    "stream": semconv.REQUEST_STREAM,
    "dimensions": semconv.EMBEDDINGS_DIMENSION_COUNT,
    "encoding_format": semconv.REQUEST_ENCODING_FORMATS,
}
_SEQUENCES = {"stop", "encoding_format"}
_DEFAULTS = {"stream": False, "n": 1, "service_tier": "auto"}

# Hosts that take `stream_options.include_usage`; others may refuse a request that has it.
_TELLS_WHEN_ASKED = {"openai", "azure.ai.openai", "deepseek"}
_AZURE_SINCE = "2024-09-01"


def request(kwargs: Mapping[str, Any]) -> Attributes:
    """Request attributes of any endpoint; what is not a plain value (NOT_GIVEN) is left out."""
    attributes: Attributes = {}
    for name, value in kwargs.items():
        if name in _REQUEST:
            if type(value) in _SCALARS and (name not in _DEFAULTS or value != _DEFAULTS[name]):
                attributes[_REQUEST[name]] = (value,) if name in _SEQUENCES else value
            elif name in _SEQUENCES and type(value) is list:
                attributes[_REQUEST[name]] = tuple(item for item in value if type(item) is str)
    return attributes


def identity(answer: Any) -> Attributes:
    """Who answered, and in which service tier."""
    told = fields_of(answer)
    attributes: Attributes = {}
    for name, key in _IDENTITY:
        if value := told.get(name):
            attributes[key] = value
    # A server on one's own machine has no host that tells; Ollama signs its answers.
    if attributes.get(semconv.OPENAI_SYSTEM_FINGERPRINT) == "fp_ollama":
        attributes[semconv.PROVIDER] = "ollama"
    return attributes


_IDENTITY = (
    ("model", semconv.RESPONSE_MODEL),
    ("id", semconv.RESPONSE_ID),
    ("service_tier", semconv.OPENAI_RESPONSE_SERVICE_TIER),
    ("system_fingerprint", semconv.OPENAI_SYSTEM_FINGERPRINT),
)


def ask(kwargs: Mapping[str, Any], host: str, instance: Any) -> Mapping[str, Any] | None:
    """The arguments that make a stream tell its usage, where the host takes them and nobody asked."""
    options = kwargs.get("stream_options")
    options = options if isinstance(options, dict) else {}
    provider = provider_of(host)
    if options.get("include_usage") or provider not in _TELLS_WHEN_ASKED or wants_raw(kwargs):
        return None
    if provider == "azure.ai.openai":
        version = getattr(instance._client, "_api_version", None)
        if isinstance(version, str) and version[:1].isdigit() and version < _AZURE_SINCE:
            return None
    return {"stream_options": {**options, "include_usage": True}}


def wants_raw(kwargs: Mapping[str, Any]) -> bool:
    """Whether an SDK made by Stainless is asked for the raw response: of its stream no chunk can be hidden."""
    return "X-Stainless-Raw-Response" in (kwargs.get("extra_headers") or ())


def hides(chunk: Any, told: Mapping[str, Any]) -> bool:
    """The chunk that only our asking caused: usage and no choices. The others get no trace of the asking either."""
    if told["usage"] is not None:
        return not told["choices"]
    forget_asking(chunk)
    return False


def forget_asking(chunk: Any) -> None:
    """Asked for usage, OpenAI sends `usage: null` on every other chunk: to the application it was not sent."""
    # `model_fields_set` of pydantic 2 is this one, for three times as much; pydantic 1 has that of the SDK alone.
    given = getattr(chunk, "__pydantic_fields_set__", None)
    if given is None:
        given = chunk.model_fields_set
    given.discard("usage")


def base_url(instance: Any) -> object:
    """Where the client of a resource, or of a session, sends its requests."""
    client = getattr(instance, "_client", None)
    if client is None:
        return f"wss://{instance._connection.request.headers['Host']}"
    return getattr(client, "_base_url", None) or client.base_url
