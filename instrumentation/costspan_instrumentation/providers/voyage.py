"""Voyage: embeddings of text, of chunks in their context and of images, and reranking."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, get, given, known, total

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST = {"model": semconv.REQUEST_MODEL, "output_dimension": semconv.EMBEDDINGS_DIMENSION_COUNT}
_DEFAULT_MODEL = "voyage-2"
"""What the SDK asks for where no model is named, in every version."""


def _request(arguments: Mapping[str, Any]) -> Attributes:
    return given(arguments, _REQUEST)


def _text_request(arguments: Mapping[str, Any]) -> Attributes:
    return {semconv.REQUEST_MODEL: _DEFAULT_MODEL, **_request(arguments)}


def embeddings_usage(usage: Any) -> Attributes:
    """`usage` of an answer, or a result of the SDK, which has the same counts.

    Images and videos are billed by the pixel and text by the token; the total would count pixels as tokens too.

    >>> embeddings_usage({"text_tokens": 5, "image_pixels": 2_000_000, "total_tokens": 3576})
    {'gen_ai.usage.input_tokens': 5, 'costspan.usage.pixels': 2000000}
    """
    pixels = total(get(usage, "image_pixels"), get(usage, "video_pixels"))
    tokens = get(usage, "text_tokens" if pixels else "total_tokens")
    return known({semconv.INPUT_TOKENS: tokens, semconv.PIXELS: pixels or None})


def _body(answer: Any) -> Attributes:
    return known({semconv.RESPONSE_MODEL: get(answer, "model"), **embeddings_usage(get(answer, "usage"))})


def _hosted(arguments: Mapping[str, Any], _client: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """Newer SDKs run some models in the process itself: that is no call."""
    local = getattr(sys.modules.get("voyageai.local.model_registry"), "SUPPORTED_MODELS", ())
    return None if arguments.get("model") in local else (_TEXT, arguments)


def _base_url(client: Any) -> object:
    params = get(client, "_params")
    return params.get("base_url") if params else None


_CLIENT = "voyageai.client"
_ASYNC = ("voyageai.client_async",)
_TEXT = Endpoint(
    _CLIENT,
    "Client.embed",
    semconv.EMBEDDINGS,
    _text_request,
    embeddings_usage,
    content=("texts",),
    positional=("texts", "model"),
    moved_from=_ASYNC,
)

VOYAGE = Provider(
    name="voyage",
    requires="voyageai>=0.2.4",
    base_url=_base_url,
    usage_formats={"voyage.embeddings": embeddings_usage},
    endpoints=(
        replace(_TEXT, choose=_hosted),
        *(
            Endpoint(
                _CLIENT,
                method,
                semconv.EMBEDDINGS,
                _request,
                embeddings_usage,
                content=("inputs",),
                positional=("inputs", "model"),
                moved_from=_ASYNC,
            )
            for method in ("Client.contextualized_embed", "Client.multimodal_embed")
        ),
        Endpoint(
            _CLIENT,
            "Client.rerank",
            semconv.RERANK,
            _request,
            embeddings_usage,
            content=("query", "documents"),
            positional=("query", "documents", "model"),
            moved_from=_ASYNC,
        ),
        # The functions of the package that need no client: `voyageai.get_embeddings`.
        Endpoint(
            "voyageai.api_resources.embedding",
            "Embedding.create",
            semconv.EMBEDDINGS,
            _text_request,
            _body,
            content=("input",),
            async_method="acreate",
        ),
    ),
)
