"""IBM watsonx: chats, generated text, embeddings and reranking, of models, of deployments and through the gateway."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Provider, fields_of, get

from . import answers

if TYPE_CHECKING:
    from collections.abc import Mapping


def _choose(endpoint: Endpoint, arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    """The call with what its client knows: the model, and the settings where the call has none of its own."""
    settings = fields_of(arguments.get("params") or get(client, "params") or get(client, "_chat_params"))
    if arguments.get("async_mode"):
        endpoint = replace(endpoint, chunk=answers.one_of_many)
    return endpoint, {**settings, **arguments, "model": get(client, "model_id") or get(client, "_model")}


def _endpoint(module: str, method: str, operation: str, response: Any, *content: str, **options: Any) -> Endpoint:
    request = answers.stream_request if "chunk" in options else answers.request
    options = {"async_method": f"a{method.partition('.')[2]}", "positional": (*content, "params"), **options}
    endpoint = Endpoint(f"ibm_watsonx_ai.{module}", method, operation, request, response, content=content, **options)
    return replace(endpoint, choose=partial(_choose, endpoint))


_MODELS, _GATEWAY = "foundation_models.inference.model_inference", "gateway.gateway_inference"
_CHAT = {"positional": ("messages", "params", "tools")}
_GUARDS = ("guardrails", "guardrails_hap_params", "guardrails_pii_params")

WATSONX = Provider(
    name="ibm.watsonx.ai",
    requires="ibm-watsonx-ai>=1.4",
    base_url=lambda resource: resource._client.credentials.url,
    usage_formats={"watsonx.generate": answers.usage_of},
    endpoints=(
        _endpoint(_MODELS, "ModelInference.chat", semconv.CHAT, answers.chat, "messages", "tools", **_CHAT),
        _endpoint(
            _MODELS,
            "ModelInference.chat_stream",
            semconv.CHAT,
            answers.chat,
            "messages",
            "tools",
            chunk=answers.chat_chunk,
            **_CHAT,
        ),
        # `generate_text` calls it.
        _endpoint(
            _MODELS,
            "ModelInference.generate",
            semconv.TEXT_COMPLETION,
            answers.generated,
            "prompt",
            positional=("prompt", "params", *_GUARDS, "concurrency_limit", "async_mode"),
        ),
        _endpoint(
            _MODELS,
            "ModelInference.generate_text_stream",
            semconv.TEXT_COMPLETION,
            answers.generated,
            "prompt",
            chunk=answers.text_chunk,
            async_method="agenerate_stream",
        ),
        _endpoint(
            "foundation_models.embeddings.embeddings",
            "Embeddings.generate",
            semconv.EMBEDDINGS,
            answers.read,
            "inputs",
        ),
        _endpoint(
            "foundation_models.rerank.rerank", "Rerank.generate", semconv.RERANK, answers.read, "query", "inputs"
        ),
        *(
            _endpoint(_GATEWAY, f"GatewayInference.{method}", operation, answers.chat, *content, **options)
            for method, operation, content in (
                ("chat", semconv.CHAT, ("messages", "tools")),
                ("generate", semconv.TEXT_COMPLETION, ("prompt",)),
            )
            for method, options in ((method, {}), (f"{method}_stream", {"chunk": answers.chat_chunk}))
        ),
    ),
)
