"""Google: live sessions, and contents that are kept in a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, get, known
from costspan_instrumentation.providers.google.answers import grounding
from costspan_instrumentation.providers.google.requests import request, short_name
from costspan_instrumentation.providers.google.usage import live_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

# ------------------------------------------------------------------ live sessions


def _is_billed(message: Any) -> bool:
    """Each answer of the model brings its usage once: at the end of its turn, or with the tools that it calls."""
    return get(message, "usage_metadata") is not None


def _turn(message: Any) -> Attributes:
    content = get(message, "server_content")
    attributes = live_usage(get(message, "usage_metadata"))
    if content is not None:
        grounding((content,), attributes)
    return attributes


def _nothing(_: Any) -> Attributes:
    return {}


# ------------------------------------------------------------------ cached contents


def _cache_request(kwargs: Mapping[str, Any]) -> Attributes:
    return known({semconv.REQUEST_MODEL: short_name(kwargs.get("model"))})


def _cached(answer: Any) -> Attributes:
    """What the content costs if it stays until it expires: an estimate, since it may go sooner, or be kept longer."""
    created, expires = get(answer, "create_time"), get(answer, "expire_time")
    tokens = get(get(answer, "usage_metadata"), "total_token_count")
    attributes = known(
        {semconv.RESPONSE_ID: get(answer, "name"), semconv.RESPONSE_MODEL: short_name(get(answer, "model"))}
    )
    if created is None or expires is None or not tokens:
        return attributes
    hours = (expires - created).total_seconds() / 3600
    return {**attributes, semconv.CACHE_STORAGE: round(tokens * hours, 6), semconv.USAGE_ESTIMATED: True}


_LIVE = "google.genai.live"

ENDPOINTS = (
    Endpoint(_LIVE, "AsyncLive.connect", semconv.GENERATE_CONTENT, _nothing, _nothing, opens=True),
    Endpoint(_LIVE, "AsyncSession._receive", semconv.GENERATE_CONTENT, request, _turn, event=_is_billed),
    Endpoint("google.genai.caches", "Caches.create", semconv.CREATE_CACHE, _cache_request, _cached),
)
