"""OpenRouter by its own SDK: chat, embeddings, reranking, images, and audio both ways, each with its cost in USD."""

from __future__ import annotations

from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, fields_of, get, known
from costspan_instrumentation.providers import audio, compatible
from costspan_instrumentation.providers.openai.gateways import reported_cost
from costspan_instrumentation.providers.openai.usage import embeddings_usage, responses_usage


def _told(usage: Any) -> dict[str, Any]:
    """A usage as it was sent: the SDK fills what was not with an object of its own."""
    sent = getattr(usage, "model_fields_set", None)
    if sent is None:
        return fields_of(usage)
    fields = {name: value for name, value in fields_of(usage).items() if name in sent}
    return {name: _told(value) if hasattr(value, "model_fields_set") else value for name, value in fields.items()}


def rerank_usage(usage: Any) -> Attributes:
    """`usage` of scores: searches or tokens, by what the model's host bills, and the cost.

    >>> rerank_usage({"search_units": 1, "cost": 0.001})
    {'costspan.usage.rerank_searches': 1, 'costspan.usage.reported_cost': 0.001}
    """
    told = _told(usage)
    counts = {semconv.INPUT_TOKENS: told.get("total_tokens"), semconv.RERANK_SEARCHES: told.get("search_units")}
    return known(counts) | reported_cost(told)


def _chat(answer: Any) -> Attributes:
    return {**compatible.response({**fields_of(answer), "usage": None}), **_usage(answer)}


def _usage(answer: Any) -> Attributes:
    usage = get(answer, "usage")
    return compatible.usage_of(_told(usage)) if usage else {}


def _chunk(chunk: Any, seen: Seen) -> None:
    usage = get(chunk, "usage")
    compatible.chunk({**fields_of(chunk), "usage": _told(usage) if usage else None}, seen)


def _embeddings(answer: Any) -> Attributes:
    return {**compatible.identity(answer), **embeddings_usage(_told(get(answer, "usage")))}


def _ranked(answer: Any) -> Attributes:
    return {**compatible.identity(answer), **rerank_usage(get(answer, "usage"))}


def _images(answer: Any) -> Attributes:
    return _usage(answer) or known({semconv.IMAGES: len(get(answer, "data") or ()) or None})


def _image_chunk(event: Any, seen: Seen) -> None:
    # Pictures cannot be counted by their characters.
    seen.final = True
    seen.attributes.update(_usage(event))


def _heard(answer: Any) -> Attributes:
    usage = _told(get(answer, "usage"))
    return known({semconv.AUDIO_SECONDS: usage.get("seconds")}) | responses_usage(usage)


def _endpoint(method: str, module: str, operation: str, response: Any, *content: str, **options: Any) -> Endpoint:
    name = f"{method.rpartition('.')[2]}_async"
    return Endpoint(
        f"openrouter.{module}",
        method,
        operation,
        compatible.request,
        response,
        content=content,
        async_method=name,
        **options,
    )


OPENROUTER = Provider(
    name="openrouter",
    requires="openrouter>=1.3",
    base_url=lambda resource: resource.sdk_configuration.get_server_details()[0],
    iterator="generator",
    usage_formats={"openrouter.rerank": rerank_usage},
    endpoints=(
        _endpoint("Chat.send", "chat", semconv.CHAT, _chat, "messages", "tools", chunk=_chunk),
        _endpoint("Embeddings.generate", "embeddings", semconv.EMBEDDINGS, _embeddings, "input"),
        _endpoint("Rerank.rerank", "rerank", semconv.RERANK, _ranked, "query", "documents"),
        _endpoint("Images.generate", "images", semconv.IMAGE_GENERATION, _images, "prompt", chunk=_image_chunk),
        _endpoint("STT.create_transcription", "stt", semconv.TRANSCRIPTION, _heard),
        _endpoint("STT.create_transcription_multipart", "stt", semconv.TRANSCRIPTION, _heard),
        _endpoint("TTS.create_speech", "tts", semconv.SPEECH, audio.spoken, "input", billed=audio.characters),
    ),
)
