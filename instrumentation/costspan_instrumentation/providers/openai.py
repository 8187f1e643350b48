"""OpenAI, Azure OpenAI and every host that speaks the OpenAI protocol: chat, responses, embeddings, completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.provider import (
    Attributes,
    Endpoint,
    Provider,
    Seen,
    fields_of,
    get,
    known,
    total,
    undeclared,
)

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


def _request(kwargs: Mapping[str, Any]) -> Attributes:
    """Request attributes of any endpoint; what is not a plain value (NOT_GIVEN) is left out."""
    attributes: Attributes = {}
    for name, value in kwargs.items():
        if name in _REQUEST:
            if type(value) in _SCALARS and (name not in _DEFAULTS or value != _DEFAULTS[name]):
                attributes[_REQUEST[name]] = (value,) if name in _SEQUENCES else value
            elif name in _SEQUENCES and type(value) is list:
                attributes[_REQUEST[name]] = tuple(item for item in value if type(item) is str)
    return attributes


def _chat_request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = _request(kwargs)
    attributes[semconv.OPENAI_API_TYPE] = "chat_completions"
    return attributes


def _responses_request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = _request(kwargs)
    attributes[semconv.OPENAI_API_TYPE] = "responses"
    if effort := get(kwargs.get("reasoning"), "effort"):
        attributes[semconv.REQUEST_REASONING_LEVEL] = effort
    if isinstance(conversation := kwargs.get("conversation"), str) or (conversation := get(conversation, "id")):
        attributes[semconv.CONVERSATION_ID] = conversation
    return attributes


def _retrieve_request(_: Mapping[str, Any]) -> Attributes:
    return {semconv.OPENAI_API_TYPE: "responses"}


# ------------------------------------------------------------------ usage


def chat_usage(usage: Any) -> Attributes:
    """`usage` of a chat completion: totals include cached and reasoning tokens, details are parts of them.

    >>> chat_usage({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}})
    {'gen_ai.usage.input_tokens': 9, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.cache_read.input_tokens': 8}
    """
    if usage is None:
        return {}
    told = _all_fields(usage)
    return _usage(
        usage,
        told.get("prompt_tokens"),
        told.get("completion_tokens"),
        told.get("prompt_tokens_details"),
        told.get("completion_tokens_details"),
    )


def responses_usage(usage: Any) -> Attributes:
    """`usage` of a response: as a chat completion's, under other names."""
    if usage is None:
        return {}
    told = _all_fields(usage)
    return _usage(
        usage,
        told.get("input_tokens"),
        told.get("output_tokens"),
        told.get("input_tokens_details"),
        told.get("output_tokens_details"),
    )


def embeddings_usage(usage: Any) -> Attributes:
    """`usage` of embeddings: input alone, whatever a server says of output."""
    return known({semconv.INPUT_TOKENS: fields_of(usage).get("prompt_tokens"), **reported_cost(undeclared(usage))})


def transcription_usage(usage: Any) -> Attributes:
    """`usage` of a transcription: tokens, or the seconds of audio."""
    seconds = get(usage, "audio_seconds")
    if seconds is None and get(usage, "type") == "duration":
        seconds = get(usage, "seconds")
    return known({semconv.AUDIO_SECONDS: seconds}) | responses_usage(usage)


def speech_usage(usage: Any) -> Attributes:
    """Characters of the text to speak."""
    return known({semconv.CHARACTERS: get(usage, "input_characters")})


def _all_fields(usage: Any) -> dict[str, Any]:
    """All fields of a usage; old SDKs declare fewer than hosts send."""
    unusual = undeclared(usage)
    return {**fields_of(usage), **unusual} if unusual else fields_of(usage)


def _usage(usage: Any, tokens_in: Any, tokens_out: Any, details_in: Any, details_out: Any) -> Attributes:
    attributes: Attributes = {}
    if tokens_in is not None:
        attributes[semconv.INPUT_TOKENS] = tokens_in
    if tokens_out is not None:
        attributes[semconv.OUTPUT_TOKENS] = tokens_out
    if details_in is not None and _parts(details_in, _INPUT_PARTS, attributes):
        writes = fields_of(details_in).get("cache_write_tokens_details")
        if writes is not None:
            _parts(writes, _WRITE_PARTS, attributes)
    if details_out is not None and _parts(details_out, _OUTPUT_PARTS, attributes):
        reasoning = attributes.get(semconv.REASONING_TOKENS)
        # Some hosts (xAI) count reasoning beside the completion; only the total tells.
        if reasoning and get(usage, "total_tokens") == total(tokens_in, tokens_out, reasoning):
            attributes[semconv.OUTPUT_TOKENS] = total(tokens_out, reasoning)
    if unusual := undeclared(usage):
        if semconv.CACHE_READ_TOKENS not in attributes and (cached := unusual.get("prompt_cache_hit_tokens")):
            attributes[semconv.CACHE_READ_TOKENS] = cached
        attributes.update(reported_cost(unusual))
    return attributes


_INPUT_PARTS = {
    "cached_tokens": semconv.CACHE_READ_TOKENS,
    "cache_write_tokens": semconv.CACHE_WRITE_TOKENS,
    "audio_tokens": semconv.AUDIO_INPUT_TOKENS,
    "image_tokens": semconv.IMAGE_INPUT_TOKENS,
}
_OUTPUT_PARTS = {
    "reasoning_tokens": semconv.REASONING_TOKENS,
    "audio_tokens": semconv.AUDIO_OUTPUT_TOKENS,
    "image_tokens": semconv.IMAGE_OUTPUT_TOKENS,
}
_WRITE_PARTS = {"ttl_30m_tokens": semconv.CACHE_WRITE_30M, "ttl_12h_tokens": semconv.CACHE_WRITE_12H}


def _parts(details: Any, parts: Mapping[str, str], attributes: Attributes) -> bool:
    """Adds the parts of a total that are not 0; False if there are none, as in most calls."""
    found = False
    for fields in (fields_of(details), getattr(details, "__pydantic_extra__", None)):
        if fields and any(fields.values()):
            found = True
            for name, count in fields.items():
                if count and name in parts:
                    attributes[parts[name]] = count
    return found


def reported_cost(usage: Mapping[str, Any]) -> Attributes:
    """The cost in USD that a gateway reports itself: OpenRouter's number, Perplexity's object, xAI's 10^-10 ticks.

    >>> reported_cost({"cost": {"total_cost": 0.006}}), reported_cost({"cost_in_usd_ticks": 15_000_000})
    ({'costspan.usage.reported_cost': 0.006}, {'costspan.usage.reported_cost': 0.0015})
    """
    cost = usage.get("cost")
    if cost is None:
        ticks = usage.get("cost_in_usd_ticks")
        return {semconv.USAGE_REPORTED_COST: ticks / 10**10} if isinstance(ticks, int) else {}
    if not isinstance(cost, int | float):
        cost = get(cost, "total_cost")
    return known({semconv.USAGE_REPORTED_COST: cost})


# ------------------------------------------------------------------ answers


def _identity(answer: Any) -> Attributes:
    told = fields_of(answer)
    attributes: Attributes = {}
    for name, key in _IDENTITY:
        if value := told.get(name):
            attributes[key] = value
    return attributes


_IDENTITY = (
    ("model", semconv.RESPONSE_MODEL),
    ("id", semconv.RESPONSE_ID),
    ("service_tier", semconv.OPENAI_RESPONSE_SERVICE_TIER),
    ("system_fingerprint", semconv.OPENAI_SYSTEM_FINGERPRINT),
)


def _chat_response(answer: Any) -> Attributes:
    attributes = _identity(answer)
    told = fields_of(answer)
    reasons = []
    for choice in told.get("choices") or ():
        if reason := fields_of(choice).get("finish_reason"):
            reasons.append(reason)  # noqa: PERF401  a comprehension is a call, and there is one choice
    if reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = tuple(reasons)
    usage = told.get("usage")
    if usage is None:
        usage = get(undeclared(answer).get("x_groq"), "usage")
    attributes.update(chat_usage(usage))
    return attributes


def _chat_chunk(chunk: Any, seen: Seen) -> None:
    usage = chunk.usage
    for choice in chunk.choices or ():
        if text := choice.delta.content:
            seen.characters += len(text)
        if choice.finish_reason:
            usage = usage or get(get(chunk, "x_groq"), "usage")
            _finished(choice, seen)
    if usage or not seen.started:
        _told(chunk, usage, seen)


def _completion_chunk(chunk: Any, seen: Seen) -> None:
    for choice in chunk.choices or ():
        if choice.text:
            seen.characters += len(choice.text)
        if choice.finish_reason:
            _finished(choice, seen)
    usage = chunk.usage
    if usage or not seen.started:
        _told(chunk, usage, seen)


def _finished(choice: Any, seen: Seen) -> None:
    reasons = seen.attributes.get(semconv.RESPONSE_FINISH_REASONS, ())
    seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (*reasons, choice.finish_reason)


def _told(chunk: Any, usage: Any, seen: Seen) -> None:
    attributes = seen.attributes
    attributes.update(_identity(chunk))
    # Azure's first chunk has no model: the next one is asked too.
    seen.started = semconv.RESPONSE_MODEL in attributes
    if usage:
        attributes.update(chat_usage(usage))
        seen.final = True


def _responses_response(answer: Any) -> Attributes:
    attributes = _identity(answer)
    reason = get(get(answer, "incomplete_details"), "reason") or get(answer, "status")
    if reason:
        attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
    attributes.update(responses_usage(get(answer, "usage")))
    searches = sum(
        1
        for item in get(answer, "output") or ()
        if get(item, "type") == "web_search_call" and get(get(item, "action"), "type") in {None, "search"}
    )
    if searches:
        attributes[semconv.WEB_SEARCHES] = searches
    return attributes


def _responses_chunk(event: Any, seen: Seen) -> None:
    data = fields_of(event)
    answer = data.get("response")
    if answer is None:
        if type(delta := data.get("delta")) is str:
            seen.characters += len(delta)
    elif get(answer, "usage") is not None:
        seen.attributes.update(_responses_response(answer))
        seen.final = True
    elif semconv.RESPONSE_MODEL not in seen.attributes:
        seen.attributes.update(_identity(answer))


def _retrieve_response(answer: Any) -> Attributes:
    """A background response told no usage when it was made, so it is told here; any other was counted then."""
    attributes = _responses_response(answer)
    if get(answer, "background") is not True:
        attributes.pop(semconv.INPUT_TOKENS, None)
    attributes[semconv.OPERATION] = semconv.CHAT
    if model := get(answer, "model"):
        attributes[semconv.REQUEST_MODEL] = model
    return attributes


def _retrieve_chunk(event: Any, seen: Seen) -> None:
    answer = get(event, "response")
    if answer is not None and get(answer, "usage") is not None:
        seen.attributes.update(_retrieve_response(answer))
    seen.final = True


def _embeddings_response(answer: Any) -> Attributes:
    told = fields_of(answer)
    return known({semconv.RESPONSE_MODEL: told.get("model"), **embeddings_usage(told.get("usage"))})


# ------------------------------------------------------------------ asking a stream for its usage


def _ask(kwargs: Mapping[str, Any], host: str, instance: Any) -> Mapping[str, Any] | None:
    options = kwargs.get("stream_options")
    options = options if isinstance(options, dict) else {}
    provider = provider_of(host)
    if options.get("include_usage") or provider not in _TELLS_WHEN_ASKED:
        return None
    if provider == "azure.ai.openai":
        version = getattr(instance._client, "_api_version", None)
        if isinstance(version, str) and version[:1].isdigit() and version < _AZURE_SINCE:
            return None
    return {"stream_options": {**options, "include_usage": True}}


def _hide(chunk: Any) -> bool:
    """The chunk that only our asking caused: usage and no choices. The others get no trace of the asking either."""
    if fields_of(chunk).get("usage") is not None:
        return not fields_of(chunk).get("choices")
    given = getattr(chunk, "model_fields_set", None)
    if given is not None:
        given.discard("usage")
    return False


def _base_url(instance: Any) -> object:
    client = instance._client
    return getattr(client, "_base_url", None) or client.base_url


_CHAT = "openai.resources.chat.completions.completions"
_CHAT_BEFORE = ("openai.resources.chat.completions",)
_BETA_CHAT = "openai.resources.beta.chat.completions"
_RESPONSES = "openai.resources.responses.responses"

OPENAI = Provider(
    name="openai",
    requires="openai>=1.40",
    base_url=_base_url,
    endpoints=(
        Endpoint(
            _CHAT,
            "Completions.create",
            semconv.CHAT,
            _chat_request,
            _chat_response,
            _chat_chunk,
            content=("messages", "tools"),
            ask=_ask,
            hide=_hide,
            moved_from=_CHAT_BEFORE,
        ),
        Endpoint(
            _CHAT,
            "Completions.parse",
            semconv.CHAT,
            _chat_request,
            _chat_response,
            content=("messages", "tools"),
            moved_from=(_BETA_CHAT,),
        ),
        *(
            Endpoint(
                _RESPONSES,
                method,
                semconv.CHAT,
                _responses_request,
                _responses_response,
                _responses_chunk,
                content=("input", "instructions", "tools"),
                kept=True,
            )
            for method in ("Responses.create", "Responses.parse")
        ),
        Endpoint(
            _RESPONSES,
            "Responses.compact",
            semconv.CHAT,
            _responses_request,
            _responses_response,
            content=("input", "instructions"),
        ),
        Endpoint(
            _RESPONSES,
            "Responses.retrieve",
            semconv.FETCH_RESPONSE,
            _retrieve_request,
            _retrieve_response,
            _retrieve_chunk,
            positional=("response_id",),
            fetch=True,
        ),
        Endpoint(
            "openai.resources.embeddings",
            "Embeddings.create",
            semconv.EMBEDDINGS,
            _request,
            _embeddings_response,
            content=("input",),
        ),
        Endpoint(
            "openai.resources.completions",
            "Completions.create",
            semconv.TEXT_COMPLETION,
            _request,
            _chat_response,
            _completion_chunk,
            content=("prompt", "suffix"),
            ask=_ask,
            hide=_hide,
        ),
    ),
    usage_formats={
        "openai.chat": chat_usage,
        "openai.responses": responses_usage,
        "openai.embeddings": embeddings_usage,
        "openai.transcription": transcription_usage,
        "openai.speech": speech_usage,
    },
)
