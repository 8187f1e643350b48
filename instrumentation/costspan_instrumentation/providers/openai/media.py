"""OpenAI: images, speech, transcriptions, videos, moderations and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, fields_of, get, known
from costspan_instrumentation.providers.openai.requests import identity, request
from costspan_instrumentation.providers.openai.usage import embeddings_usage, responses_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def images_usage(usage: Any) -> Attributes:
    """`usage` of an image: its output is tokens of the image, unless the details say otherwise."""
    attributes = responses_usage(usage)
    output = attributes.get(semconv.OUTPUT_TOKENS)
    if output is not None and get(usage, "output_tokens_details") is None:
        attributes[semconv.IMAGE_OUTPUT_TOKENS] = output
    return attributes


def transcription_usage(usage: Any) -> Attributes:
    """`usage` of a transcription: tokens, or the seconds of audio."""
    seconds = get(usage, "audio_seconds")
    if seconds is None and get(usage, "type") == "duration":
        seconds = get(usage, "seconds")
    attributes = known({semconv.AUDIO_SECONDS: seconds}) | responses_usage(usage)
    # Transcriptions and sessions name the details of their input in the singular.
    audio = get(get(usage, "input_token_details"), "audio_tokens")
    return {**attributes, semconv.AUDIO_INPUT_TOKENS: audio} if audio else attributes


def speech_usage(usage: Any) -> Attributes:
    """Characters of the text to speak."""
    return known({semconv.CHARACTERS: get(usage, "input_characters")})


def _embeddings(answer: Any) -> Attributes:
    told = fields_of(answer)
    return known({semconv.RESPONSE_MODEL: told.get("model"), **embeddings_usage(told.get("usage"))})


def _images(answer: Any) -> Attributes:
    usage = get(answer, "usage")
    # Older models tell no tokens: they are sold by the image.
    made = len(get(answer, "data") or ()) or None
    return known({semconv.IMAGES: made}) if usage is None else images_usage(usage)


def _image_chunk(event: Any, seen: Seen) -> None:
    if (usage := get(event, "usage")) is not None:
        seen.attributes.update(images_usage(usage))
        seen.final = True


def _transcription(answer: Any) -> Attributes:
    usage = get(answer, "usage")
    if usage is None:
        # `verbose_json` of earlier versions; plain text and subtitles tell nothing.
        return known({semconv.AUDIO_SECONDS: get(answer, "duration")})
    return transcription_usage(usage)


def _transcription_chunk(event: Any, seen: Seen) -> None:
    seen.characters += len(get(event, "delta") or "")
    if (usage := get(event, "usage")) is not None:
        seen.attributes.update(transcription_usage(usage))
        seen.final = True


def _spoken(arguments: Mapping[str, Any]) -> Attributes:
    text = arguments.get("input")
    return {semconv.CHARACTERS: len(text)} if isinstance(text, str) else {}


def _video(job: Any) -> Attributes:
    seconds = get(job, "seconds")
    return known(
        {
            semconv.RESPONSE_ID: get(job, "id"),
            semconv.RESPONSE_MODEL: get(job, "model"),
            semconv.VIDEO_SECONDS: float(seconds) if seconds else None,
        }
    )


_AUDIO = "openai.resources.audio"

EMBED = Endpoint(
    "openai.resources.embeddings", "Embeddings.create", semconv.EMBEDDINGS, request, _embeddings, content=("input",)
)
ENDPOINTS = (
    EMBED,
    *(
        Endpoint(
            "openai.resources.images", f"Images.{method}", semconv.IMAGE_GENERATION, request, _images, _image_chunk
        )
        for method in ("generate", "edit", "create_variation")
    ),
    *(
        Endpoint(module, method, semconv.TRANSCRIPTION, request, _transcription, _transcription_chunk)
        for module, method in (
            (f"{_AUDIO}.transcriptions", "Transcriptions.create"),
            (f"{_AUDIO}.translations", "Translations.create"),
        )
    ),
    Endpoint(f"{_AUDIO}.speech", "Speech.create", semconv.SPEECH, request, lambda _: {}, billed=_spoken),
    Endpoint("openai.resources.videos", "Videos.create", semconv.VIDEO_GENERATION, request, _video),
    Endpoint(
        "openai.resources.moderations",
        "Moderations.create",
        semconv.MODERATION,
        request,
        identity,
        billed=lambda _: {semconv.REQUESTS: 1},
    ),
)
