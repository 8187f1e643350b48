"""Google Gen AI: content and embeddings of the Gemini API and of Vertex AI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, fields_of, get, total

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


def _request(kwargs: Mapping[str, Any]) -> Attributes:
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
        elif name == "service_tier" and (tier := _tier(value)) not in {None, "standard"}:
            attributes[semconv.SERVICE_TIER] = tier
    if attributes.get(semconv.REQUEST_CHOICE_COUNT) == 1:
        del attributes[semconv.REQUEST_CHOICE_COUNT]
    return attributes


def _stream_request(kwargs: Mapping[str, Any]) -> Attributes:
    return {**_request(kwargs), semconv.REQUEST_STREAM: True}


def _tier(told: Any) -> str | None:
    """A `serviceTier` or a `trafficType` as a tier: ON_DEMAND is standard, ON_DEMAND_FLEX is flex."""
    if not isinstance(told, str) or (name := told.lower()).endswith("unspecified"):
        return None
    return name.removeprefix("on_demand").removeprefix("_") or "standard"


# ------------------------------------------------------------------ usage

# The fields that are read, in the SDK's spelling and on the wire.
_SDK = (
    "prompt_token_count",
    "tool_use_prompt_token_count",
    "candidates_token_count",
    "thoughts_token_count",
    "cached_content_token_count",
    ("prompt_tokens_details", "tool_use_prompt_tokens_details"),
    "candidates_tokens_details",
    "cache_tokens_details",
    ("service_tier", "traffic_type"),
    "token_count",
)
_WIRE = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    # The embeddings of the Gemini API spell it without an s.
    ("promptTokensDetails", "toolUsePromptTokensDetails", "promptTokenDetails"),
    "candidatesTokensDetails",
    "cacheTokensDetails",
    ("serviceTier", "trafficType"),
    "tokenCount",
)
_INPUT = {"AUDIO": semconv.AUDIO_INPUT_TOKENS, "IMAGE": semconv.IMAGE_INPUT_TOKENS, "VIDEO": semconv.INPUT_VIDEO}
_OUTPUT = {"AUDIO": semconv.AUDIO_OUTPUT_TOKENS, "IMAGE": semconv.IMAGE_OUTPUT_TOKENS}
_CACHE = {
    "AUDIO": semconv.AUDIO_CACHE_READ_TOKENS,
    "IMAGE": semconv.IMAGE_CACHE_READ_TOKENS,
    "VIDEO": semconv.CACHE_READ_VIDEO,
}


def content_usage(usage: Any) -> Attributes:
    """`usageMetadata` of generated content: tool prompts are added to the input, thoughts to the output.

    >>> content_usage({"promptTokenCount": 9, "toolUsePromptTokenCount": 4, "thoughtsTokenCount": 2})
    {'gen_ai.usage.input_tokens': 13, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.reasoning.output_tokens': 2}
    """
    if usage is None:
        return {}
    fields = fields_of(usage)
    on_wire = isinstance(usage, dict) and "prompt_token_count" not in usage
    prompt, tools, candidates, thoughts, cached, ins, outs, cache, tiers, count = _WIRE if on_wire else _SDK
    attributes: Attributes = {}
    if (tokens := total(fields.get(prompt), fields.get(tools))) is not None:
        attributes[semconv.INPUT_TOKENS] = tokens
    reasoning = fields.get(thoughts)
    if (tokens := total(fields.get(candidates), reasoning)) is not None:
        attributes[semconv.OUTPUT_TOKENS] = tokens
    if reasoning:
        attributes[semconv.REASONING_TOKENS] = reasoning
    if tokens := fields.get(cached):
        attributes[semconv.CACHE_READ_TOKENS] = tokens
    for names, keys in ((ins, _INPUT), ((outs,), _OUTPUT), ((cache,), _CACHE)):
        for name in names:
            for part in fields.get(name) or ():
                if (key := keys.get(get(part, "modality"))) and (tokens := get(part, count)):
                    attributes[key] = total(attributes.get(key), tokens)
    for name in tiers:
        if tier := _tier(fields.get(name)):
            attributes[semconv.SERVICE_TIER] = tier
    if prompts := fields.get("grounded_prompts"):
        attributes[semconv.GROUNDED_PROMPTS] = prompts
    return attributes


def embeddings_usage(usage: Any) -> Attributes:
    """Usage of embeddings: input alone. Vertex AI counts it text by text.

    >>> embeddings_usage({"predictions": [{"statistics": {"token_count": 5}}, {"statistics": {"token_count": 6}}]})
    {'gen_ai.usage.input_tokens': 11}
    """
    if predictions := get(usage, "predictions"):
        return _text_by_text(get(prediction, "statistics") for prediction in predictions)
    attributes = content_usage(usage)
    attributes.pop(semconv.OUTPUT_TOKENS, None)
    return attributes


def _text_by_text(statistics: Any) -> Attributes:
    counts = [get(one, "token_count") for one in statistics]
    # The SDK declares them as floats.
    tokens = total(*(int(n) if type(n) is float and n.is_integer() else n for n in counts))
    return {} if tokens is None else {semconv.INPUT_TOKENS: tokens}


# ------------------------------------------------------------------ answers


def _body(answer: Any) -> Any:
    """The answer; of one that the application wants as raw HTTP, its JSON."""
    raw = get(get(answer, "sdk_http_response"), "body")
    return json.loads(raw) if type(raw) is str else answer


def _response(answer: Any) -> Attributes:
    tier = _served_tier(answer)
    answer = _body(answer)
    attributes = content_usage(get(answer, "usageMetadata" if isinstance(answer, dict) else "usage_metadata"))
    if tier:
        attributes[semconv.SERVICE_TIER] = tier
    _identity(answer, attributes)
    candidates = get(answer, "candidates") or ()
    reasons = tuple(str(getattr(r, "value", r)) for c in candidates if (r := _finish_reason(c)))
    if reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = reasons
    _grounding(candidates, attributes)
    return attributes


def _served_tier(answer: Any) -> str | None:
    """The Gemini API names the tier in a header; the SDK keeps its case as the HTTP library has it."""
    headers = get(get(answer, "sdk_http_response"), "headers")
    if not headers:
        return None
    return _tier(headers.get("x-gemini-service-tier") or headers.get("X-Gemini-Service-Tier"))


def _identity(answer: Any, attributes: Attributes) -> None:
    wire = isinstance(answer, dict)
    if model := get(answer, "modelVersion" if wire else "model_version"):
        attributes[semconv.RESPONSE_MODEL] = model
    if response_id := get(answer, "responseId" if wire else "response_id"):
        attributes[semconv.RESPONSE_ID] = response_id


def _finish_reason(candidate: Any) -> Any:
    return get(candidate, "finishReason" if isinstance(candidate, dict) else "finish_reason")


def _grounding(candidates: Any, attributes: Attributes) -> None:
    """Google Search: Gemini 2 and before bill the prompt that was grounded, later models each search."""
    queries: set[str] = set()
    for candidate in candidates:
        wire = isinstance(candidate, dict)
        if found := get(candidate, "groundingMetadata" if wire else "grounding_metadata"):
            queries.update(get(found, "webSearchQueries" if wire else "web_search_queries") or ())
            queries.update(get(found, "imageSearchQueries" if wire else "image_search_queries") or ())
    queries.discard("")
    if queries:
        model = attributes.get(semconv.RESPONSE_MODEL, "")
        by_prompt = not model or "gemini-1" in model or "gemini-2" in model
        attributes[semconv.GROUNDED_PROMPTS if by_prompt else semconv.WEB_SEARCHES] = 1 if by_prompt else len(queries)


def _chunk(chunk: Any, seen: Seen) -> None:
    """Counts are cumulative: the first and the last chunk are read whole, of those between only the output."""
    # A raw chunk declares no fields, and is read whole too.
    fields = chunk.__dict__ if seen.started else None
    if fields is None or not (candidates := fields["candidates"]) or len(candidates) > 1:
        _whole_chunk(chunk, seen)
        return
    candidate = candidates[0].__dict__
    if candidate["finish_reason"] is not None or candidate["grounding_metadata"] is not None:
        _whole_chunk(chunk, seen)
        return
    if (usage := fields["usage_metadata"]) is not None:
        counts = usage.__dict__
        if tokens := (counts["candidates_token_count"] or 0) + (counts["thoughts_token_count"] or 0):
            seen.attributes[semconv.OUTPUT_TOKENS] = tokens
            return
    seen.characters += _text_length(candidates[0])


def _whole_chunk(chunk: Any, seen: Seen) -> None:
    seen.attributes.update(_response(chunk))
    candidates = get(chunk, "candidates") or ()
    seen.characters += sum(_text_length(candidate) for candidate in candidates)
    ends = not candidates or any(_finish_reason(candidate) for candidate in candidates)
    seen.final = ends and semconv.INPUT_TOKENS in seen.attributes
    seen.started = not isinstance(chunk, dict) and semconv.RESPONSE_MODEL in seen.attributes


def _text_length(candidate: Any) -> int:
    return sum(len(get(part, "text") or "") for part in get(get(candidate, "content"), "parts") or ())


def _embeddings_response(answer: Any) -> Attributes:
    answer = _body(answer)
    attributes = embeddings_usage(get(answer, "usageMetadata" if isinstance(answer, dict) else "usage_metadata"))
    if not attributes:
        texts = get(answer, "embeddings") or [get(text, "embeddings") for text in get(answer, "predictions") or ()]
        attributes = _text_by_text(get(text, "statistics") for text in texts)
    return attributes


# ------------------------------------------------------------------ the table


def _base_url(instance: Any) -> object:
    return instance._api_client._http_options.base_url


def _identify(instance: Any, _host: str) -> str | None:
    return "gcp.vertex_ai" if instance._api_client.vertexai else "gcp.gemini"


_MODELS = "google.genai.models"
_CONTENTS = ("contents", "config")
_TEXTS = ("contents", "content", "batch_contents")

# The public methods may call a model several times (automatic function calling, continuation); these do it once.
# Older SDKs (1.30, 2.0) drop the usage that the Gemini API tells of embeddings: there it stays unknown.
_ENDPOINTS = (
    Endpoint(_MODELS, "Models._generate_content", semconv.GENERATE_CONTENT, _request, _response, content=_CONTENTS),
    Endpoint(
        _MODELS,
        "Models._generate_content_stream",
        semconv.GENERATE_CONTENT,
        _stream_request,
        _response,
        _chunk,
        content=_CONTENTS,
    ),
    Endpoint(_MODELS, "Models._embed_content", semconv.EMBEDDINGS, _request, _embeddings_response, content=_TEXTS),
    Endpoint(
        _MODELS,
        "Models.embed_content",
        semconv.EMBEDDINGS,
        _request,
        _embeddings_response,
        content=_TEXTS,
        unless="_embed_content",
    ),
)

GOOGLE = Provider(
    name="gcp.gemini",
    requires="google-genai>=1.30",
    endpoints=_ENDPOINTS,
    base_url=_base_url,
    identify=_identify,
    usage_formats={"google.generate_content": content_usage, "google.embed_content": embeddings_usage},
)
