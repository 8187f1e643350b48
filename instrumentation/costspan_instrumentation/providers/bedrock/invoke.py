"""InvokeModel, plain and streamed: answers in the form of whoever made the model."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, known

from .converse import written
from .counts import first, invoke_usage
from .requests import tier

if TYPE_CHECKING:
    from collections.abc import Mapping

_METRICS = "amazon-bedrock-invocationMetrics"
_REASONS = ("stop_reason", "stopReason", "finish_reason", "finishReason", "completionReason")
_TEXT = ("text", "thinking", "partial_json", "outputText", "generation", "content")
_COUNTS = (
    "prompt_token_count",
    "generation_token_count",
    "inputTextTokenCount",
    "totalOutputTextTokenCount",
    "results",
)
# Llama counts in every piece, and Claude in its first one: these come at the end alone.
_LAST = {"outputTokens", "completion_tokens", "totalOutputTextTokenCount", "outputTokenCount"}
_ANSWERS = ("choices", "outputs", "generations", "results", "completions")
_IMAGES = ("images", "artifacts")


def response(answer: Any) -> Attributes:
    """An answer whose body has been read, or the headers alone where it has not, or where it is a stream."""
    told = fields_of(answer)
    body, headers = fields_of(told.get("body")), get(told.get("ResponseMetadata"), "HTTPHeaders")
    images = first(body, _IMAGES)
    return {
        **invoke_usage({**fields_of(headers), **_counts(body)}),
        **known(
            {
                # One that was filtered out is none.
                semconv.IMAGES: len([image for image in images if image]) if type(images) is list else None,
                semconv.RESPONSE_ID: told_id if type(told_id := body.get("id")) is str and told_id else None,
                semconv.RESPONSE_FINISH_REASONS: _reasons(body),
            }
        ),
        **tier(told.get("performanceConfigLatency"), told.get("serviceTier")),
    }


def chunk(message: Any, seen: Seen) -> None:
    """An event, in which a piece of the model's native stream is wrapped."""
    if message.headers.get(":event-type") != "chunk":
        return
    piece = json.loads(base64.b64decode(json.loads(message.payload)["bytes"]))
    seen.characters += _written(piece)
    if reasons := _reasons(piece):
        seen.attributes[semconv.RESPONSE_FINISH_REASONS] = reasons
    if counts := _counts(piece):
        # What a later piece leaves out stands.
        seen.notes = {**(seen.notes or {}), **counts}
        seen.attributes.update(invoke_usage(seen.notes))
        seen.final = seen.final or not _LAST.isdisjoint(counts) or piece.get("type") == "message_delta"


def _counts(body: Mapping[str, Any]) -> dict[str, Any]:
    """Whatever counts in a native answer or a piece of one."""
    usage = first(body, ("usage",)) or get(first(body, ("message", "metadata")), "usage")
    told = {**fields_of(body.get(_METRICS)), **{name: body.get(name) for name in _COUNTS}, **fields_of(usage)}
    return {name: value for name, value in told.items() if value is not None}


def _written(piece: Mapping[str, Any]) -> int:
    """Characters of text in a piece of a stream."""
    if block := piece.get("contentBlockDelta"):
        return written(get(block, "delta"))
    answers = _answers(piece)
    parts = (piece, piece.get("delta"), *answers, *(first(answer, ("delta", "message")) for answer in answers))
    return sum(len(text) for part in parts if type(text := first(fields_of(part), _TEXT)) is str)


def _reasons(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    parts = (body, body.get("delta"), body.get("messageStop"), *_answers(body))
    told = (first(fields_of(part), _REASONS) for part in parts)
    # Jurassic tells a reason and its length.
    reasons = tuple(text for reason in told if type(text := get(reason, "reason") or reason) is str)
    return reasons or None


def _answers(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    answers = first(body, _ANSWERS)
    return [answer for answer in answers if type(answer) is dict] if type(answers) is list else []
