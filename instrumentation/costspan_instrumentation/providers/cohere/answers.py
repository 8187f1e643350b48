"""What Cohere tells of a call: the same billed units in every API, of versions 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, given, known, total

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "model": semconv.REQUEST_MODEL,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "p": semconv.REQUEST_TOP_P,
    "k": semconv.REQUEST_TOP_K,
    "seed": semconv.REQUEST_SEED,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
    "stop_sequences": semconv.REQUEST_STOP_SEQUENCES,
    "num_generations": semconv.REQUEST_CHOICE_COUNT,
    "conversation_id": semconv.CONVERSATION_ID,
    "output_dimension": semconv.EMBEDDINGS_DIMENSION_COUNT,
    "embedding_types": semconv.REQUEST_ENCODING_FORMATS,
}


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Request attributes of any method."""
    return given(arguments, _REQUEST)


def stream_request(arguments: Mapping[str, Any]) -> Attributes:
    """Those of a method that streams."""
    return {**request(arguments), semconv.REQUEST_STREAM: True}


def billed_usage(usage: Any) -> Attributes:
    """`usage` of a chat, `meta` of the other answers, or the billed units in them.

    Billed are fewer tokens than the model reads: the prompt that Cohere adds is free, and the cached tokens are those
    of the longer prompt. They count where an answer tells nothing of its bill.

    >>> billed_usage({"billed_units": {"input_tokens": 12.0}, "tokens": {"input_tokens": 614.0}, "cached_tokens": 480})
    {'gen_ai.usage.input_tokens': 12}
    """
    units, tokens, cached = get(usage, "billed_units"), get(usage, "tokens"), None
    if units is None:
        units = usage if tokens is None else tokens
        cached = get(usage, "cached_tokens")
    # The SDK declares every count as a float.
    images = total(get(units, "image_tokens"))
    return known(
        {
            semconv.INPUT_TOKENS: total(get(units, "input_tokens"), images),
            semconv.OUTPUT_TOKENS: total(get(units, "output_tokens")),
            semconv.IMAGE_INPUT_TOKENS: images or None,
            semconv.REASONING_TOKENS: total(get(tokens, "reasoning_tokens")) or None,
            semconv.CACHE_READ_TOKENS: total(cached) or None,
            semconv.RERANK_SEARCHES: total(get(units, "search_units")),
            semconv.CLASSIFICATIONS: total(get(units, "classifications")),
            semconv.IMAGES: total(get(units, "images")) or None,
            semconv.PAGES: total(get(units, "pages")),
        }
    )


def response(answer: Any) -> Attributes:
    """The answer of any method; of `with_raw_response`, what it wraps."""
    answer = fields_of(answer).get("_data", answer)
    reasons = (get(answer, "finish_reason"), *(get(one, "finish_reason") for one in get(answer, "generations") or ()))
    usage = get(answer, "usage")
    return known(
        {
            semconv.RESPONSE_ID: get(answer, "id") or get(answer, "generation_id"),
            semconv.RESPONSE_FINISH_REASONS: tuple(reason for reason in reasons if reason) or None,
            **billed_usage(get(answer, "meta") if usage is None else usage),
        }
    )


def chat_chunk(event: Any, seen: Seen) -> None:
    """An event of a chat, version 2."""
    told = event.__dict__
    kind, delta = told.get("type"), told.get("delta")
    if kind == "content-delta":
        content = delta.__dict__["message"].__dict__["content"].__dict__
        seen.characters += len(content.get("text") or content.get("thinking") or "")
    elif kind == "message-end":
        seen.attributes.update(response(delta))
        seen.final = get(delta, "usage") is not None
    elif kind == "message-start":
        seen.attributes.update(known({semconv.RESPONSE_ID: told.get("id")}))
    else:
        message = get(delta, "message")
        arguments = get(get(get(message, "tool_calls"), "function"), "arguments")
        seen.characters += len(arguments or get(message, "tool_plan") or "")


def text_chunk(event: Any, seen: Seen) -> None:
    """An event of a chat, version 1, or of generated text: the last one holds the whole answer."""
    told = event.__dict__
    if (answer := told.get("response")) is not None:
        reason = told.get("finish_reason")
        reasons = {semconv.RESPONSE_FINISH_REASONS: (reason,)} if reason else {}
        seen.attributes.update(reasons | response(answer))
        seen.final = semconv.INPUT_TOKENS in seen.attributes
    else:
        seen.characters += len(told.get("text") or "")
