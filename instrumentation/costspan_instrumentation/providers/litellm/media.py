"""What LiteLLM tells of calls that do not write text: embeddings, documents in order, images and speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, get, known, total
from costspan_instrumentation.providers import compatible
from costspan_instrumentation.providers.openai import images_usage, transcription_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def embeddings(answer: Any, _aside: Mapping[str, Any]) -> Attributes:
    """Embeddings."""
    return compatible.embeddings_response(answer)


def ranked(answer: Any, _aside: Mapping[str, Any]) -> Attributes:
    """Documents in order, billed by the search or by the token."""
    billed, meta = get(get(answer, "meta"), "billed_units"), get(answer, "meta")
    tokens = get(billed, "total_tokens") or get(get(meta, "tokens"), "input_tokens")
    return known({semconv.RERANK_SEARCHES: get(billed, "search_units"), semconv.INPUT_TOKENS: tokens})


def images(answer: Any, _aside: Mapping[str, Any]) -> Attributes:
    """Images, billed by the token or by the piece."""
    usage = get(answer, "usage")
    if total(get(usage, "input_tokens"), get(usage, "output_tokens")):
        return images_usage(usage)
    return known({semconv.IMAGES: len(get(answer, "data") or ()) or None})


def heard(answer: Any, _aside: Mapping[str, Any]) -> Attributes:
    """A transcription, billed by the token or by the second."""
    usage = get(answer, "usage")
    return transcription_usage(usage) if usage else known({semconv.AUDIO_SECONDS: get(answer, "duration")})
