"""Ollama: chat, completions and embeddings, of clients and of the module's own functions.

The durations that a server tells are not passed on: where hardware is paid by the hour, the call's own duration counts,
as it does for every other server that one runs oneself, and a price by the token must not miss one by the second.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, fields_of, get, given, known
from costspan_instrumentation.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLOUD = "cloud"
"""The service tier of what runs on Ollama's own servers, which is not free."""

_REQUEST = {
    "model": semconv.REQUEST_MODEL,
    "stream": semconv.REQUEST_STREAM,
    "dimensions": semconv.EMBEDDINGS_DIMENSION_COUNT,
}
_OPTIONS = {
    "num_predict": semconv.REQUEST_MAX_TOKENS,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "top_k": semconv.REQUEST_TOP_K,
    "seed": semconv.REQUEST_SEED,
    "stop": semconv.REQUEST_STOP_SEQUENCES,
    "frequency_penalty": semconv.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": semconv.REQUEST_PRESENCE_PENALTY,
}


def _request(arguments: Mapping[str, Any]) -> Attributes:
    attributes = given(arguments, _REQUEST) | given(fields_of(arguments.get("options")), _OPTIONS)
    if attributes.get(semconv.REQUEST_STREAM) is False:
        del attributes[semconv.REQUEST_STREAM]
    # A local server passes models of this name on.
    if str(attributes.get(semconv.REQUEST_MODEL)).endswith(("-cloud", ":cloud")):
        attributes[semconv.SERVICE_TIER] = _CLOUD
    return attributes


def _cloud_request(arguments: Mapping[str, Any]) -> Attributes:
    return {**_request(arguments), semconv.SERVICE_TIER: _CLOUD}


def chat_usage(usage: Any) -> Attributes:
    """The counts of an answer; the prompt's is missing where the server still had the whole prompt in memory.

    >>> chat_usage({"prompt_eval_count": 17, "eval_count": 63, "total_duration": 3_722_518_334})
    {'gen_ai.usage.input_tokens': 17, 'gen_ai.usage.output_tokens': 63}
    """
    return known(
        {semconv.INPUT_TOKENS: get(usage, "prompt_eval_count"), semconv.OUTPUT_TOKENS: get(usage, "eval_count")}
    )


def _response(answer: Any) -> Attributes:
    attributes = known({semconv.RESPONSE_MODEL: get(answer, "model"), **chat_usage(answer)})
    if reason := get(answer, "done_reason"):
        attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
    return attributes


def _chunk(chunk: Any, seen: Seen) -> None:
    message = get(chunk, "message")
    texts = (get(chunk, "response"), get(chunk, "thinking"), get(message, "thinking"))
    seen.characters += compatible.written(message) + sum(len(text) for text in texts if text)
    if get(chunk, "done") or not seen.started:
        seen.attributes.update(_response(chunk))
        seen.started = True
        seen.final = bool(get(chunk, "done"))


def _endpoint(method: str, operation: str, *positional: str, **options: Any) -> Endpoint:
    local = Endpoint(
        "ollama._client",
        f"Client.{method}",
        operation,
        _request,
        _response,
        content=positional[1:],
        positional=positional,
        rebound_in=("ollama",),
        **options,
    )
    cloud = replace(local, request=_cloud_request)

    def choose(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
        return cloud if client._client.base_url.host.endswith("ollama.com") else local, arguments

    return replace(local, choose=choose)


OLLAMA = Provider(
    name="ollama",
    requires="ollama>=0.4",
    base_url=lambda client: client._client.base_url,
    usage_formats={"ollama.chat": chat_usage},
    endpoints=(
        _endpoint("chat", semconv.CHAT, "model", "messages", chunk=_chunk),
        _endpoint("generate", semconv.TEXT_COMPLETION, "model", "prompt", "suffix", chunk=_chunk),
        _endpoint("embed", semconv.EMBEDDINGS, "model", "input"),
        _endpoint("embeddings", semconv.EMBEDDINGS, "model", "prompt"),
    ),
)
