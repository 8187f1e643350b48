"""Google: embeddings of the Gemini API and of Vertex AI."""

from __future__ import annotations

from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, get, known, total
from costspan_instrumentation.providers.google.answers import body_of
from costspan_instrumentation.providers.google.requests import request
from costspan_instrumentation.providers.google.usage import content_usage


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


def _response(answer: Any) -> Attributes:
    answer = body_of(answer)
    attributes = embeddings_usage(get(answer, "usageMetadata" if isinstance(answer, dict) else "usage_metadata"))
    if not attributes:
        texts = get(answer, "embeddings") or [get(text, "embeddings") for text in get(answer, "predictions") or ()]
        attributes = _text_by_text(get(text, "statistics") for text in texts)
    return attributes or _characters(get(answer, "metadata"))


def _characters(metadata: Any) -> Attributes:
    """What Vertex AI bills where it tells no tokens: beside tokens they would count the same text twice."""
    name = "billableCharacterCount" if isinstance(metadata, dict) else "billable_character_count"
    return known({semconv.CHARACTERS: get(metadata, name)})


_MODELS = "google.genai.models"
_TEXTS = ("contents", "content", "batch_contents")

# Older SDKs (1.30, 2.0) drop the usage that the Gemini API tells of embeddings: there it stays unknown.
EMBED = Endpoint(_MODELS, "Models._embed_content", semconv.EMBEDDINGS, request, _response, content=_TEXTS)
EMBED_ALONE = Endpoint(
    _MODELS,
    "Models.embed_content",
    semconv.EMBEDDINGS,
    request,
    _response,
    content=_TEXTS,
    unless="_embed_content",
)
