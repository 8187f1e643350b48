"""Converse, plain and streamed."""

from __future__ import annotations

import json
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, known

from .counts import converse_usage
from .requests import conversation_tier


def response(answer: Any) -> Attributes:
    """A whole answer, or an event at the end of a stream."""
    told = fields_of(answer)
    reason = told.get("stopReason")
    # A prompt router takes one of its models, which is the one that is billed.
    routed = get(get(told.get("trace"), "promptRouter"), "invokedModelId")
    return {
        **converse_usage(told.get("usage")),
        **known({semconv.RESPONSE_FINISH_REASONS: reason and (reason,), semconv.RESPONSE_MODEL: routed}),
        **conversation_tier(told),
    }


def chunk(message: Any, seen: Seen) -> None:
    """An event as it was sent: the SDK drops the fields that its version does not know."""
    kind = message.headers.get(":event-type")
    if kind == "contentBlockDelta":
        seen.characters += written(json.loads(message.payload).get("delta"))
    elif kind in {"messageStop", "metadata"}:
        seen.attributes.update(response(json.loads(message.payload)))
        seen.final = seen.final or kind == "metadata"


def written(delta: Any) -> int:
    """Characters of a piece of text or of reasoning, or of the input of a tool."""
    pieces = fields_of(delta).values()
    texts = (piece if type(piece) is str else get(piece, "text") or get(piece, "input") or "" for piece in pieces)
    return sum(map(len, texts))
