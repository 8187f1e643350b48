"""Mistral: chat, agents, conversations, code, embeddings, documents, audio; on Azure and Google Cloud too."""

from __future__ import annotations

from functools import partial
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, NativeSpans, Provider
from costspan_instrumentation.providers.mistral import chat, conversations, media, responses


def _base_url(resource: Any) -> object:
    """Of a live session, which is no resource, the address is not known."""
    return resource.sdk_configuration.get_server_details()[0] if resource is not None else None


def _methods(module: str, *methods: str, **fields: Any) -> tuple[Endpoint, ...]:
    """Endpoints that differ in their method alone. Before version 2, modules were one level up."""
    homes = (f"mistralai.{module}", *(f"mistralai{sdk}.{module}" for sdk in _CLOUDS))
    return tuple(
        Endpoint(
            f"mistralai.client.{module}",
            method,
            moved_from=homes,
            async_method=f"{method.rpartition('.')[2]}_async",
            **fields,
        )
        for method in methods
    )


_CLOUDS = (".azure.client", ".gcp.client", "_azure", "_gcp")

_complete = partial(_methods, request=chat.request, response=chat.response)
_stream = partial(_methods, request=chat.stream_request, response=chat.response)
_embed = partial(_methods, request=chat.request, response=chat.embeddings_response)
_MESSAGES, _CODE = ("messages", "tools"), ("prompt", "suffix")
_agent = partial(_methods, "agents", response=conversations.agent_response, operation=semconv.CHAT, content=_MESSAGES)
_turn = partial(_methods, "conversations", response=conversations.response, operation=semconv.CHAT, content=("inputs",))
_job = partial(
    _methods,
    request=media.no_request,
    response=media.batch_response,
    event=media.batch_ended,
    operation=semconv.FETCH_RESPONSE,
    fetch=True,
)
_TURNS = ("Conversations.start", "Conversations.append", "Conversations.restart")

MISTRAL = Provider(
    name="mistral_ai",
    requires="mistralai>=1.0.3",
    base_url=_base_url,
    iterator="generator",
    # Older versions make spans wherever there is a tracer provider, newer ones if they are told to.
    native_spans=tuple(
        NativeSpans(module, "get_traced_request_and_span", {"tracing_enabled": False})
        for module in ("mistralai.client._hooks.tracing", "mistralai._hooks.tracing")
    ),
    usage_formats={"mistral.chat": chat.chat_usage, "mistral.ocr": media.ocr_usage},
    endpoints=(
        *_complete("chat", "Chat.complete", operation=semconv.CHAT, content=_MESSAGES),
        *_stream("chat", "Chat.stream", operation=semconv.CHAT, content=_MESSAGES, chunk=chat.chunk),
        *_complete("fim", "Fim.complete", operation=semconv.TEXT_COMPLETION, content=_CODE),
        *_stream("fim", "Fim.stream", operation=semconv.TEXT_COMPLETION, content=_CODE, chunk=chat.chunk),
        *_agent("Agents.complete", request=chat.request),
        *_agent("Agents.stream", request=chat.stream_request, chunk=conversations.agent_chunk),
        *_embed("embeddings", "Embeddings.create", operation=semconv.EMBEDDINGS, content=("inputs",)),
        *_embed("classifiers", "Classifiers.moderate", operation=semconv.MODERATION, content=("inputs",)),
        *_embed("classifiers", "Classifiers.moderate_chat", operation=semconv.MODERATION, content=("inputs",)),
        *_embed("classifiers", "Classifiers.classify", operation=semconv.CLASSIFY, content=("inputs",)),
        *_embed("classifiers", "Classifiers.classify_chat", operation=semconv.CLASSIFY, content=("inputs",)),
        *_turn(*_TURNS, request=conversations.request),
        *_turn(*(f"{turn}_stream" for turn in _TURNS), request=conversations.stream_request, chunk=conversations.chunk),
        *_methods(
            "responses",
            "Responses.create",
            operation=semconv.CHAT,
            request=responses.request,
            response=responses.response,
            chunk=responses.chunk,
            content=("input", "instructions", "tools"),
        ),
        *_methods("ocr", "Ocr.process", operation=semconv.OCR, request=chat.request, response=media.ocr_response),
        *_complete("transcriptions", "Transcriptions.complete", operation=semconv.TRANSCRIPTION),
        *_stream(
            "transcriptions",
            "Transcriptions.stream",
            operation=semconv.TRANSCRIPTION,
            chunk=media.transcription_chunk,
        ),
        *_methods(
            "speech",
            "Speech.complete",
            operation=semconv.SPEECH,
            request=media.speech_request,
            response=media.speech_response,
            chunk=media.speech_chunk,
            billed=media.speech_billed,
        ),
        *_job("jobs", "Jobs.get"),
        *_job("mistral_jobs", "MistralJobs.get"),
        # A live session parses each event that comes.
        Endpoint(
            "mistralai.extra.realtime.connection",
            "parse_realtime_event",
            semconv.TRANSCRIPTION,
            media.no_request,
            chat.response,
            event=media.transcription_ended,
        ),
    ),
)
