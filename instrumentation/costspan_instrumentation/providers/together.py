"""Together: chat, completions, embeddings, reranking, images, and audio both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, get, known
from costspan_instrumentation.providers import audio, compatible


def _ranked(answer: Any) -> Attributes:
    return known({semconv.RESPONSE_MODEL: get(answer, "model"), **compatible.usage_of(get(answer, "usage"))})


def _images(answer: Any) -> Attributes:
    images = get(answer, "data")
    return known({semconv.RESPONSE_MODEL: get(answer, "model"), semconv.IMAGES: len(images) if images else None})


def _endpoint(method: str, operation: str, response: Any, *content: str, **options: Any) -> Endpoint:
    return Endpoint("", method, operation, compatible.request, response, content=content, **options)


_CREATE = "create"
_METHODS = (
    # Module, the class of version 1 of the SDK and that of versions 2 and 3, and what its method does.
    (
        "chat.completions",
        ("ChatCompletions", "CompletionsResource"),
        _endpoint(_CREATE, semconv.CHAT, compatible.response, "messages", "tools", chunk=compatible.chunk),
    ),
    (
        "completions",
        ("Completions", "CompletionsResource"),
        _endpoint(_CREATE, semconv.TEXT_COMPLETION, compatible.response, "prompt", chunk=compatible.chunk),
    ),
    (
        "embeddings",
        ("Embeddings", "EmbeddingsResource"),
        _endpoint(_CREATE, semconv.EMBEDDINGS, compatible.embeddings_response, "input"),
    ),
    ("rerank", ("Rerank", "RerankResource"), _endpoint(_CREATE, semconv.RERANK, _ranked, "query", "documents")),
    ("images", ("Images", "ImagesResource"), _endpoint("generate", semconv.IMAGE_GENERATION, _images, "prompt")),
    (
        "audio.speech",
        ("Speech", "SpeechResource"),
        _endpoint(_CREATE, semconv.SPEECH, audio.spoken, "input", chunk=audio.sound, billed=audio.characters),
    ),
    (
        "audio.transcriptions",
        ("Transcriptions", "TranscriptionsResource"),
        _endpoint(_CREATE, semconv.TRANSCRIPTION, audio.heard),
    ),
    (
        "audio.translations",
        ("Translations", "TranslationsResource"),
        _endpoint(_CREATE, semconv.TRANSCRIPTION, audio.heard),
    ),
)

TOGETHER = Provider(
    name="together",
    requires="together>=1.2",
    base_url=lambda resource: resource._client.base_url,
    endpoints=tuple(
        replace(endpoint, module=f"together.resources.{module}", method=f"{owner}.{endpoint.method}")
        for module, owners, endpoint in _METHODS
        for owner in owners
    ),
)
