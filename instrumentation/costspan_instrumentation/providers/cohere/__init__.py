"""Cohere, versions 1 and 2 of its API: chat, embeddings, reranking, and what else is billed. Tokenizing is free."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Provider
from costspan_instrumentation.providers.cohere.answers import (
    billed_usage,
    chat_chunk,
    request,
    response,
    stream_request,
    text_chunk,
)
from costspan_instrumentation.providers.cohere.batches import BATCHES

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLOUDS = {
    "BedrockClient": "aws.bedrock",
    "BedrockClientV2": "aws.bedrock",
    "SagemakerClient": "aws.sagemaker",
    "SagemakerClientV2": "aws.sagemaker",
    "OciClient": "oci",
    "OciClientV2": "oci",
}
"""Clients that name Cohere's own address and send their requests elsewhere."""


def _base_url(client: Any) -> object:
    if cloud := _CLOUDS.get(type(client).__name__):
        return cloud  # a name without a host: where the cloud is, the client does not tell
    wrapper = getattr(client, "_client_wrapper", None) or client._raw_client._client_wrapper
    return wrapper._base_url


def _identify(client: Any, _host: str) -> str | None:
    return _CLOUDS.get(type(client).__name__)


_V1, _V2 = "cohere.base_client", "cohere.v2.client"
_TEXTS = ("texts", "images", "inputs")
_EMBED = Endpoint(_V1, "BaseCohere.embed", semconv.EMBEDDINGS, request, response, content=_TEXTS)


def _no_batch(arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """`Client.embed` sends its texts in batches from threads of its own, and is the call that counts."""
    # By its name: a pool puts a thread on its list after the thread has begun.
    pool = getattr(getattr(client, "_executor", None), "_thread_name_prefix", None)
    return None if threading.current_thread().name.rpartition("_")[0] == pool else (_EMBED, arguments)


# module, class and method, operation, arguments that hold the prompt
_PLAIN = (
    (_V1, "BaseCohere.chat", semconv.CHAT, ("message", "chat_history", "preamble", "documents", "tools")),
    (_V1, "BaseCohere.generate", semconv.TEXT_COMPLETION, ("prompt",)),
    (_V1, "BaseCohere.summarize", semconv.TEXT_COMPLETION, ("text",)),
    (_V1, "BaseCohere.rerank", semconv.RERANK, ("query", "documents")),
    (_V1, "BaseCohere.classify", semconv.CLASSIFY, ("inputs", "examples")),
    ("cohere.client", "Client.embed", semconv.EMBEDDINGS, _TEXTS),
    (_V2, "V2Client.chat", semconv.CHAT, ("messages", "documents", "tools")),
    (_V2, "V2Client.embed", semconv.EMBEDDINGS, _TEXTS),
    (_V2, "V2Client.rerank", semconv.RERANK, ("query", "documents")),
    (_V2, "V2Client.parse", semconv.OCR, ()),
    ("cohere.audio.transcriptions.client", "TranscriptionsClient.create", semconv.TRANSCRIPTION, ()),
)
_STREAMED = (
    (_V1, "BaseCohere.chat_stream", semconv.CHAT, ("message", "chat_history", "preamble", "documents", "tools")),
    (_V1, "BaseCohere.generate_stream", semconv.TEXT_COMPLETION, ("prompt",)),
    (_V2, "V2Client.chat_stream", semconv.CHAT, ("messages", "documents", "tools")),
)
_RAW = {
    _V1: "cohere.raw_base_client",
    _V2: "cohere.v2.raw_client",
    "cohere.audio.transcriptions.client": "cohere.audio.transcriptions.raw_client",
}
"""Where newer SDKs have a class `Raw...` that sends what those of the module do: for `with_raw_response`, and for
clients made before this, whose `chat` is bound already."""

COHERE = Provider(
    name="cohere",
    requires="cohere>=5.5.8",
    base_url=_base_url,
    identify=_identify,
    usage_formats={"cohere.chat": billed_usage, "cohere.embed": billed_usage, "cohere.rerank": billed_usage},
    endpoints=(
        *(Endpoint(module, method, kind, request, response, content=text) for module, method, kind, text in _PLAIN),
        *(
            Endpoint(_RAW[module], f"Raw{method}", kind, request, response, content=text)
            for module, method, kind, text in _PLAIN
            if module in _RAW
        ),
        *(
            Endpoint(
                module,
                method,
                kind,
                stream_request,
                response,
                chat_chunk if module == _V2 else text_chunk,
                content=text,
            )
            for module, method, kind, text in _STREAMED
        ),
        replace(_EMBED, choose=_no_batch),
        *BATCHES,
    ),
)
