"""Azure AI Inference: chat and embeddings of the models of many makers, through the `azure-ai-inference` SDK."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, decoded, fields_of, get, known
from costspan_instrumentation.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Callable

_DEFAULTS = (
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "tools",
    "dimensions",
    "encoding_format",
)
"""What a client may have been given for all its calls."""


def _asked(arguments: Mapping[str, Any], client: Any) -> Mapping[str, Any]:
    """What a call sends: a body that the application made, or the arguments over the client's own."""
    if (body := arguments.get("body")) is not None:
        sent = body if isinstance(body, Mapping) else decoded(body)
        return sent if isinstance(sent, Mapping) else {}
    defaults = {name: get(client, f"_{name}") for name in _DEFAULTS}
    extras = arguments.get("model_extras") or get(client, "_model_extras") or {}
    return {**known(defaults), **known(arguments), **extras}


def _traced() -> bool:
    """Whether the SDK makes spans of its own."""
    tracing = sys.modules.get("azure.ai.inference.tracing")
    return get(tracing, "_inference_traces_enabled") is True and tracing.settings.tracing_implementation() is not None  # type: ignore[union-attr]


def _chat(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    asked = _asked(arguments, client)
    # Its span takes over a stream, unread by us, and tells the usage itself; beside an answer, it repeats ours.
    return None if asked.get("stream") is True and _traced() else (_COMPLETE, asked)


def _texts(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    return _EMBED, _asked(arguments, client)


def _images(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    asked = _asked(arguments, client)
    # The usage is one sum, so that it tells the price of an image only where there is nothing else.
    pictures = not any(get(one, "text") for one in asked.get("input") or ())
    return replace(_EMBED, response=_seen if pictures else _embedded, content=()), asked


def _told(source: Any) -> Any:
    """The JSON behind an SDK object, which hides what the SDK does not declare."""
    return fields_of(source).get("_data", source)


def _whole(answer: Any) -> dict[str, Any]:
    told = _told(answer)
    return {**told, "usage": _told(told.get("usage"))}


def _answered(answer: Any) -> Attributes:
    return compatible.response(_whole(answer))


def _chunk(chunk: Any, seen: Seen) -> None:
    compatible.chunk(_whole(chunk), seen)


def _embedded(answer: Any) -> Attributes:
    return compatible.embeddings_response(_whole(answer))


def _seen(answer: Any) -> Attributes:
    attributes = _embedded(answer)
    return attributes | known({semconv.IMAGE_INPUT_TOKENS: attributes.get(semconv.INPUT_TOKENS)})


_endpoint: Callable[..., Endpoint] = partial(
    Endpoint,
    "azure.ai.inference._patch",
    request=compatible.request,
    positional=("body",),
    moved_from=("azure.ai.inference.aio._patch",),
)
_COMPLETE = _endpoint(
    "ChatCompletionsClient.complete",
    semconv.CHAT,
    response=_answered,
    chunk=_chunk,
    content=("messages", "tools"),
)
_EMBED = _endpoint("EmbeddingsClient.embed", semconv.EMBEDDINGS, response=_embedded, content=("input",))

AZURE_AI = Provider(
    name="azure.ai.inference",
    requires="azure-ai-inference>=1.0.0b8",
    base_url=lambda client: client._config.endpoint,
    iterator="__next__",
    endpoints=(
        replace(_COMPLETE, choose=_chat),
        replace(_EMBED, choose=_texts),
        replace(_EMBED, method="ImageEmbeddingsClient.embed", choose=_images),
    ),
)
