"""Groq: chat, compound systems, embeddings, and audio both ways."""

from __future__ import annotations

import json
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, get, known, total
from costspan_instrumentation.providers import audio, compatible


def _breakdown(breakdown: Any, attributes: Attributes) -> None:
    """Adds what each model of a compound system used, where that adds up to the whole; in some streams it does not."""
    shares = [
        (get(share, "model"), compatible.usage_of(get(share, "usage"))) for share in get(breakdown, "models") or ()
    ]
    counts = (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS)
    if shares and all(total(*(told.get(key) for _, told in shares)) == attributes.get(key) for key in counts):
        attributes[semconv.USAGE_BY_MODEL] = json.dumps([{"model": model, **told} for model, told in shares])


def _searches(message: Any) -> set[Any]:
    """The web searches that a compound system has made, by their number."""
    tools = get(message, "executed_tools") or ()
    return {get(tool, "index") for tool in tools if get(tool, "type") == "search"}


def _response(answer: Any) -> Attributes:
    attributes = compatible.response(answer)
    _breakdown(get(answer, "usage_breakdown"), attributes)
    searches = sum(len(_searches(get(choice, "message"))) for choice in get(answer, "choices") or ())
    return attributes | known({semconv.WEB_SEARCHES: searches or None})


def _chunk(chunk: Any, seen: Seen) -> None:
    compatible.chunk(chunk, seen)
    # A search comes when it begins and again when it has found something.
    if searched := {index for choice in get(chunk, "choices") or () for index in _searches(get(choice, "delta"))}:
        seen.notes = {*(seen.notes or ()), *searched}
        seen.attributes[semconv.WEB_SEARCHES] = len(seen.notes)
    if seen.final:
        _breakdown(get(get(chunk, "x_groq"), "usage_breakdown"), seen.attributes)


GROQ = Provider(
    name="groq",
    requires="groq>=0.9",
    base_url=lambda resource: resource._client.base_url,
    endpoints=(
        Endpoint(
            "groq.resources.chat.completions",
            "Completions.create",
            semconv.CHAT,
            compatible.request,
            _response,
            _chunk,
            content=("messages", "tools"),
        ),
        Endpoint(
            "groq.resources.embeddings",
            "Embeddings.create",
            semconv.EMBEDDINGS,
            compatible.request,
            compatible.embeddings_response,
            content=("input",),
        ),
        *(
            Endpoint(module, method, semconv.TRANSCRIPTION, compatible.request, audio.heard)
            for module, method in (
                ("groq.resources.audio.transcriptions", "Transcriptions.create"),
                ("groq.resources.audio.translations", "Translations.create"),
            )
        ),
        Endpoint(
            "groq.resources.audio.speech",
            "Speech.create",
            semconv.SPEECH,
            compatible.request,
            audio.spoken,
            audio.sound,
            billed=audio.characters,
            content=("input",),
        ),
    ),
)
