"""Google: generated content, whole and streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, get
from costspan_instrumentation.providers.google.answers import body_of, grounding, identity, served_tier
from costspan_instrumentation.providers.google.requests import request
from costspan_instrumentation.providers.google.usage import content_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def _stream_request(kwargs: Mapping[str, Any]) -> Attributes:
    return {**request(kwargs), semconv.REQUEST_STREAM: True}


def response(answer: Any) -> Attributes:
    """Usage, identity and searches of a generated answer."""
    tier = served_tier(answer)
    answer = body_of(answer)
    attributes = content_usage(get(answer, "usageMetadata" if isinstance(answer, dict) else "usage_metadata"))
    if tier:
        attributes[semconv.SERVICE_TIER] = tier
    identity(answer, attributes)
    candidates = get(answer, "candidates") or ()
    reasons = tuple(str(getattr(r, "value", r)) for c in candidates if (r := _finish_reason(c)))
    if reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = reasons
    grounding(candidates, attributes)
    return attributes


def _finish_reason(candidate: Any) -> Any:
    return get(candidate, "finishReason" if isinstance(candidate, dict) else "finish_reason")


def _chunk(chunk: Any, seen: Seen) -> None:
    """Counts are cumulative: the first and the last chunk are read whole, of those between only the output."""
    # A raw chunk declares no fields, and is read whole too.
    fields = chunk.__dict__ if seen.started else None
    if fields is None or not (candidates := fields["candidates"]) or len(candidates) > 1:
        _whole_chunk(chunk, seen)
        return
    candidate = candidates[0].__dict__
    if candidate["finish_reason"] is not None or candidate["grounding_metadata"] is not None:
        _whole_chunk(chunk, seen)
        return
    if (usage := fields["usage_metadata"]) is not None:
        counts = usage.__dict__
        if tokens := (counts["candidates_token_count"] or 0) + (counts["thoughts_token_count"] or 0):
            seen.attributes[semconv.OUTPUT_TOKENS] = tokens
            return
    seen.characters += text_length(candidates[0])


def _whole_chunk(chunk: Any, seen: Seen) -> None:
    seen.attributes.update(response(chunk))
    candidates = get(chunk, "candidates") or ()
    seen.characters += sum(text_length(candidate) for candidate in candidates)
    ends = not candidates or any(_finish_reason(candidate) for candidate in candidates)
    seen.final = ends and semconv.INPUT_TOKENS in seen.attributes
    seen.started = not isinstance(chunk, dict) and semconv.RESPONSE_MODEL in seen.attributes


def text_length(candidate: Any) -> int:
    """Characters that a candidate says."""
    return sum(len(get(part, "text") or "") for part in get(get(candidate, "content"), "parts") or ())


_MODELS = "google.genai.models"
_CONTENT = ("contents", "config")

# The public methods may call a model several times (automatic function calling, continuation); these do it once.
GENERATE = Endpoint(_MODELS, "Models._generate_content", semconv.GENERATE_CONTENT, request, response, content=_CONTENT)
STREAM = Endpoint(
    _MODELS,
    "Models._generate_content_stream",
    semconv.GENERATE_CONTENT,
    _stream_request,
    response,
    _chunk,
    content=_CONTENT,
)
