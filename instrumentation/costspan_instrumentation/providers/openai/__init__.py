"""OpenAI, Azure OpenAI and every host that speaks the OpenAI protocol, through the `openai` SDK."""

from __future__ import annotations

from costspan_instrumentation.provider import Provider
from costspan_instrumentation.providers.openai import assistants, chat, media, responses, sessions
from costspan_instrumentation.providers.openai.gateways import reported_cost
from costspan_instrumentation.providers.openai.media import images_usage, speech_usage, transcription_usage
from costspan_instrumentation.providers.openai.requests import base_url
from costspan_instrumentation.providers.openai.usage import chat_usage, embeddings_usage, responses_usage

__all__ = [
    "OPENAI",
    "chat_usage",
    "embeddings_usage",
    "images_usage",
    "reported_cost",
    "responses_usage",
    "speech_usage",
    "transcription_usage",
]

OPENAI = Provider(
    name="openai",
    requires="openai>=1.40",
    base_url=base_url,
    endpoints=(
        chat.CREATE,
        chat.PARSE,
        chat.COMPLETE,
        responses.CREATE,
        responses.PARSE,
        responses.COMPACT,
        responses.RETRIEVE,
        responses.SOCKET,
        *media.ENDPOINTS,
        *sessions.ENDPOINTS,
        *assistants.ENDPOINTS,
    ),
    usage_formats={
        "openai.chat": chat_usage,
        "openai.responses": responses_usage,
        "openai.embeddings": embeddings_usage,
        "openai.images": images_usage,
        "openai.transcription": transcription_usage,
        "openai.speech": speech_usage,
    },
)
