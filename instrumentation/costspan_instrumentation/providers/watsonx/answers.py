"""What watsonx tells of a call: chats in OpenAI's form, everything else with counts under names of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, get, given, known, total
from costspan_instrumentation.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {
    "max_new_tokens": semconv.REQUEST_MAX_TOKENS,
    "random_seed": semconv.REQUEST_SEED,
    "stop_sequences": semconv.REQUEST_STOP_SEQUENCES,
}
_COUNTS = {"input_token_count": semconv.INPUT_TOKENS, "generated_token_count": semconv.OUTPUT_TOKENS}
_RUNNING = "not_finished"


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Request attributes of any method, its settings among the arguments."""
    return compatible.request(arguments) | given(arguments, _REQUEST)


def stream_request(arguments: Mapping[str, Any]) -> Attributes:
    """Those of a method that streams."""
    return {**request(arguments), semconv.REQUEST_STREAM: True}


def usage_of(counted: Any) -> Attributes:
    """A result of generated text, or a whole answer of embeddings or reranking.

    >>> usage_of({"generated_text": "2", "generated_token_count": 2, "input_token_count": 7})
    {'gen_ai.usage.input_tokens': 7, 'gen_ai.usage.output_tokens': 2}
    """
    return known({key: get(counted, name) for name, key in _COUNTS.items()})


def _model(answer: Any) -> Attributes:
    return known({semconv.RESPONSE_MODEL: get(answer, "model_id")})


def chat(answer: Any) -> Attributes:
    """A chat, or a completion of the gateway."""
    return {**_model(answer), **compatible.response(answer)}


def chat_chunk(chunk: Any, seen: Seen) -> None:
    """A chunk of one."""
    seen.attributes.update(_model(chunk))
    compatible.chunk(chunk, seen)


def read(answer: Any) -> Attributes:
    """Embeddings, or scores."""
    return {**_model(answer), **usage_of(answer)}


def generated(answer: Any) -> Attributes:
    """An answer, or those to a list of prompts."""
    attributes: Attributes = {}
    for one in answer if isinstance(answer, list) else [answer]:
        _add(one, attributes)
    return attributes


def one_of_many(answer: Any, seen: Seen) -> None:
    """One of the answers to a list of prompts, when they are handed out as they come."""
    _add(answer, seen.attributes)
    seen.final = True


def _add(answer: Any, attributes: Attributes) -> None:
    """Adds what an answer tells to what the ones before it have told."""
    attributes |= _model(answer)
    for result in get(answer, "results") or ():
        for key, count in usage_of(result).items():
            attributes[key] = total(attributes.get(key), count)
        if reason := get(result, "stop_reason"):
            reasons = attributes.get(semconv.RESPONSE_FINISH_REASONS, ())
            attributes[semconv.RESPONSE_FINISH_REASONS] = (*reasons, reason)


def text_chunk(chunk: Any, seen: Seen) -> None:
    """A piece of text: bare, or in an answer whose count of the output grows from piece to piece."""
    if isinstance(chunk, str):
        seen.characters += len(chunk)
        return
    seen.attributes |= _model(chunk)
    for result in get(chunk, "results") or ():
        seen.characters += len(get(result, "generated_text") or "")
        # Only the first piece counts the input; in the others it is 0.
        seen.attributes |= {key: count for key, count in usage_of(result).items() if count}
        if (reason := get(result, "stop_reason") or _RUNNING) != _RUNNING:
            seen.attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
            seen.final = semconv.INPUT_TOKENS in seen.attributes
