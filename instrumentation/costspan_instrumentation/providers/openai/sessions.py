"""OpenAI: batches when they are done, realtime sessions, and requests that name a path themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, get, known
from costspan_instrumentation.providers.openai import chat, media, responses
from costspan_instrumentation.providers.openai.media import transcription_usage
from costspan_instrumentation.providers.openai.usage import responses_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

# ------------------------------------------------------------------ batches


def _batch(job: Any) -> Attributes:
    """A batch that is done: its sum is told here, and counts the first time that somebody looks."""
    usage, model = get(job, "usage"), get(job, "model")
    attributes = known({semconv.RESPONSE_ID: get(job, "id"), semconv.REQUEST_MODEL: model})
    if get(job, "status") not in {"completed", "expired", "cancelled"} or not get(usage, "total_tokens"):
        return attributes
    embedded = "embeddings" in (get(job, "endpoint") or "")
    operation = semconv.EMBEDDINGS if embedded else semconv.CHAT
    told = {semconv.OPERATION: operation, semconv.RESPONSE_MODEL: model, semconv.SERVICE_TIER: "batch"}
    return {**attributes, **known(told), **responses_usage(usage)}


# ------------------------------------------------------------------ realtime


def _is_done(event: Any) -> bool:
    return get(event, "type") == "response.done" and get(get(event, "response"), "usage") is not None


def _session(arguments: Mapping[str, Any]) -> Attributes:
    """The model of a session stands in the address of its socket."""
    path = getattr(getattr(arguments["self"]._connection, "request", None), "path", "")
    asked = parse_qs(urlsplit(path).query)
    models = asked.get("model") or asked.get("deployment")
    return {semconv.REQUEST_MODEL: models[0]} if models else {}


def _done(event: Any) -> Attributes:
    answer = get(event, "response")
    usage = get(answer, "usage")
    details, made = get(usage, "input_token_details"), get(usage, "output_token_details")
    cached = get(details, "cached_tokens_details")
    status = get(answer, "status")
    parts = {
        semconv.CACHE_READ_TOKENS: get(details, "cached_tokens"),
        semconv.IMAGE_INPUT_TOKENS: get(details, "image_tokens"),
        semconv.AUDIO_CACHE_READ_TOKENS: get(cached, "audio_tokens"),
        semconv.IMAGE_CACHE_READ_TOKENS: get(cached, "image_tokens"),
        semconv.AUDIO_OUTPUT_TOKENS: get(made, "audio_tokens"),
        semconv.RESPONSE_ID: get(answer, "id"),
    }
    attributes = {**transcription_usage(usage), **{key: value for key, value in parts.items() if value}}
    return {**attributes, semconv.RESPONSE_FINISH_REASONS: (status,)} if status else attributes


# ------------------------------------------------------------------ any path

_PATHS = {
    "/chat/completions": chat.CREATE,
    "/completions": chat.COMPLETE,
    "/responses": responses.CREATE,
    "/responses/compact": responses.COMPACT,
    "/embeddings": media.EMBED,
}


def _by_path(arguments: Mapping[str, Any], _client: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """What `client.post("/chat/completions", ...)` calls; other requests are none of ours."""
    endpoint, body = _PATHS.get(arguments.get("path", "")), arguments.get("body")
    return (endpoint, body) if endpoint is not None and isinstance(body, dict) else None


def _nothing(_: Any) -> Attributes:
    return {}


_REALTIME = "openai.resources.realtime.realtime"

ENDPOINTS = (
    Endpoint(
        "openai.resources.batches",
        "Batches.retrieve",
        semconv.FETCH_RESPONSE,
        _nothing,
        _batch,
        positional=("batch_id",),
        fetch=True,
    ),
    Endpoint(
        _REALTIME,
        "RealtimeConnection.parse_event",
        semconv.CHAT,
        _session,
        _done,
        moved_from=("openai.resources.beta.realtime.realtime",),
        event=_is_done,
    ),
    *(
        Endpoint(
            "openai._base_client",
            f"{client}.post",
            semconv.CHAT,
            _nothing,
            _nothing,
            positional=("path",),
            choose=_by_path,
        )
        for client in ("SyncAPIClient", "AsyncAPIClient")
    ),
)
