"""Mistral: documents, transcriptions and speech, billed by pages, seconds and characters; and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, given, known, total
from costspan_instrumentation.providers.mistral import chat

if TYPE_CHECKING:
    from collections.abc import Mapping


def ocr_usage(usage: Any) -> Attributes:
    """`usage_info` of a document that was read.

    >>> ocr_usage({"pages_processed": 3, "doc_size_bytes": 18810})
    {'costspan.usage.pages': 3}
    """
    return known({semconv.PAGES: get(usage, "pages_processed")})


def ocr_response(answer: Any) -> Attributes:
    """A document; pages that were annotated too have a price of their own."""
    attributes = chat.identity(answer) | ocr_usage(get(answer, "usage_info"))
    images = (image for page in get(answer, "pages") or () for image in get(page, "images") or ())
    if get(answer, "document_annotation") or any(get(image, "image_annotation") for image in images):
        attributes[semconv.ANNOTATED_PAGES] = attributes.pop(semconv.PAGES, None)
    return known(attributes)


def transcription_chunk(event: Any, seen: Seen) -> None:
    """An event of a streamed transcription."""
    told = fields_of(event.__dict__["data"])
    if (usage := told.get("usage")) is not None:
        seen.attributes.update(chat.response(told))
        seen.final = bool(usage)
    else:
        seen.characters += chat.written(told.get("text"))


def transcription_ended(event: Any) -> bool:
    """Whether an event of a live session is the one that tells its usage."""
    return bool(get(event, "type") == "transcription.done")


def speech_request(arguments: Mapping[str, Any]) -> Attributes:
    """Arguments of speech."""
    stream = {semconv.REQUEST_STREAM: True} if arguments.get("stream") is True else {}
    return given(arguments, {"model": semconv.REQUEST_MODEL}) | stream


def speech_billed(arguments: Mapping[str, Any]) -> Attributes:
    """The characters of the text to speak."""
    return known({semconv.CHARACTERS: chat.written(arguments.get("input")) or None})


def speech_response(_: Any) -> Attributes:
    """Sound alone: the answer tells no usage."""
    return {}


def speech_chunk(_: Any, seen: Seen) -> None:
    """A piece of sound: there is nothing to wait for."""
    seen.final = True


_BATCHES = {"/v1/embeddings": semconv.EMBEDDINGS, "/v1/fim/completions": semconv.TEXT_COMPLETION}


def batch_ended(job: Any) -> bool:
    """Whether a job tells what its requests used: one whose answers come inline, not in a file."""
    return bool(get(job, "outputs"))


def no_request(_: Mapping[str, Any]) -> Attributes:
    """What comes later, of a job or a session, was asked for before."""
    return {}


def batch_response(job: Any) -> Attributes:
    """The sum of what the requests of a batch used."""
    attributes: Attributes = {}
    for output in get(job, "outputs"):
        usage = chat.chat_usage(get(get(get(output, "response"), "body"), "usage"))
        for key in usage.keys() - {semconv.SERVICE_TIER}:
            attributes[key] = total(attributes.get(key), usage[key])
    return attributes | known(
        {
            semconv.OPERATION: _BATCHES.get(get(job, "endpoint"), semconv.CHAT),
            semconv.REQUEST_MODEL: get(job, "model") or None,
            semconv.RESPONSE_ID: get(job, "id"),
            semconv.SERVICE_TIER: "batch",
        }
    )
