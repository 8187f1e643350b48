"""Hugging Face: chat, text generation and embeddings of `InferenceClient`.

Hugging Face passes a call on to one of many providers and bills what that one charges; such a price is named
`model:provider`, as the router takes it. A key that is not one of Hugging Face's own goes to the provider directly,
which is then the one that bills.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from costspan_instrumentation import semconv
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, get, given, known
from costspan_instrumentation.providers import compatible

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUTER = "https://router.huggingface.co"
_NAMES = {"fireworks-ai": "fireworks", "zai-org": "zai", "hf-inference": "huggingface"}
"""What Hugging Face calls a provider -> `gen_ai.provider.name`, where they differ."""


def _is_url(model: Any) -> bool:
    return isinstance(model, str) and model.startswith(("http://", "https://"))


def _served_by(client: Any) -> tuple[str | None, bool]:
    """The provider that the application has chosen, and whether the call goes there past Hugging Face."""
    named = get(client, "provider")
    server = named if isinstance(named, str) and named != "auto" else None
    return server, server is not None and not (client.token or "hf_").startswith("hf_")


def _base_url(client: Any) -> object:
    return client.model if _is_url(client.model) else None if _served_by(client)[1] else _ROUTER


def _choose(endpoint: Endpoint, arguments: Mapping[str, Any], client: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    """The call with its client, which may say what model is asked and who is to serve it."""
    return endpoint, {**arguments, "client": client}


def _request(arguments: Mapping[str, Any]) -> Attributes:
    attributes = compatible.request(arguments) | given(arguments, {"max_new_tokens": semconv.REQUEST_MAX_TOKENS})
    models = [model for model in (arguments.get("model"), arguments["client"].model) if model]
    model = next((model for model in models if not _is_url(model)), "")
    server, direct = _served_by(arguments["client"])
    if url := next(filter(_is_url, models), None):
        host = urlsplit(url).hostname or ""
        attributes |= {semconv.SERVER_ADDRESS: host, semconv.PROVIDER: provider_of(host) or "huggingface"}
    elif server and direct:
        attributes[semconv.PROVIDER] = _NAMES.get(server, server)
    elif server and model:
        model = f"{model}:{server}"
    attributes.pop(semconv.REQUEST_MODEL, None)
    return {**attributes, semconv.REQUEST_MODEL: model} if model else attributes


def _whole(answer: Any) -> Any:
    """An answer with all that came: the SDK's are dicts too, but as such they lack what it does not declare."""
    return getattr(answer, "__dict__", answer)


def _response(answer: Any) -> Attributes:
    return compatible.response(_whole(answer))


def _chunk(chunk: Any, seen: Seen) -> None:
    compatible.chunk(_whole(chunk), seen)


def _generated(answer: Any) -> Attributes:
    """Generated text; only one with its details tells counts, that of the prompt where its tokens were asked for."""
    details = get(answer, "details")
    prompt = get(details, "input_length") or len(get(details, "prefill") or ()) or None
    attributes = known({semconv.INPUT_TOKENS: prompt, semconv.OUTPUT_TOKENS: get(details, "generated_tokens")})
    if reason := get(details, "finish_reason"):
        attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
    return attributes


def _text(chunk: Any, seen: Seen) -> None:
    text = chunk if isinstance(chunk, str) else get(get(chunk, "token"), "text")
    seen.characters += len(text or "")
    if get(chunk, "details") is not None:
        seen.attributes.update(_generated(chunk))
        seen.final = semconv.INPUT_TOKENS in seen.attributes


_WHERE = (("_client", "InferenceClient"), ("_generated._async_client", "AsyncInferenceClient"))


def _endpoints(method: str, prompt: tuple[str, ...], *about: Any) -> tuple[Endpoint, ...]:
    """One method of both clients, which stand in modules of their own."""
    options: dict[str, Any] = {"content": prompt, "positional": prompt[:1]}
    endpoints = (Endpoint(f"huggingface_hub.inference.{m}", f"{c}.{method}", *about, **options) for m, c in _WHERE)
    return tuple(replace(endpoint, choose=partial(_choose, endpoint)) for endpoint in endpoints)


HUGGINGFACE = Provider(
    name="huggingface",
    requires="huggingface_hub>=0.28",
    base_url=_base_url,
    endpoints=(
        *_endpoints("chat_completion", ("messages", "tools"), semconv.CHAT, _request, _response, _chunk),
        *_endpoints("text_generation", ("prompt",), semconv.TEXT_COMPLETION, _request, _generated, _text),
        # Numbers alone come back: nothing tells what they cost.
        *_endpoints("feature_extraction", ("text",), semconv.EMBEDDINGS, _request, lambda _: {}),
    ),
)
