"""What answers of Google have in common: raw HTTP, the served tier, who answered, and what was searched."""

from __future__ import annotations

import json
from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, get
from costspan_instrumentation.providers.google.requests import tier_of


def body_of(answer: Any) -> Any:
    """The answer; of one that the application wants as raw HTTP, its JSON."""
    raw = get(get(answer, "sdk_http_response"), "body")
    return json.loads(raw) if type(raw) is str else answer


def served_tier(answer: Any) -> str | None:
    """The Gemini API names the tier in a header; the SDK keeps its case as the HTTP library has it."""
    headers = get(get(answer, "sdk_http_response"), "headers")
    if not headers:
        return None
    return tier_of(headers.get("x-gemini-service-tier") or headers.get("X-Gemini-Service-Tier"))


def identity(answer: Any, attributes: Attributes) -> None:
    """Adds the model and the id of the answer."""
    wire = isinstance(answer, dict)
    if model := get(answer, "modelVersion" if wire else "model_version"):
        attributes[semconv.RESPONSE_MODEL] = model
    if response_id := get(answer, "responseId" if wire else "response_id"):
        attributes[semconv.RESPONSE_ID] = response_id


_SDK = ("grounding_chunks", "grounding_metadata", "web_search_queries", "image_search_queries")
_WIRE = ("groundingChunks", "groundingMetadata", "webSearchQueries", "imageSearchQueries")


def grounding(candidates: Any, attributes: Attributes) -> None:
    """Adds what the candidates were grounded in: searches of the web, and the map."""
    queries: set[str] = set()
    maps = False
    for candidate in candidates:
        names = _WIRE if isinstance(candidate, dict) else _SDK
        if found := get(candidate, names[1]):
            for name in names[2:]:
                queries.update(get(found, name) or ())
            maps = maps or any(get(chunk, "maps") for chunk in get(found, names[0]) or ())
    queries.discard("")
    attributes |= searched(attributes.get(semconv.RESPONSE_MODEL), len(queries), int(maps))


def searched(model: str | None, web: int, maps: int) -> Attributes:
    """Searches of the web and the map: Gemini 2 and before bill the prompt that was grounded, later models each.

    >>> searched("gemini-2.5-pro", 3, 0), searched("gemini-3-pro-preview", 3, 0)
    ({'costspan.usage.grounded_prompts': 1}, {'costspan.usage.web_searches': 3})
    """
    by_prompt = not model or "gemini-1" in model or "gemini-2" in model
    attributes: Attributes = {}
    if web:
        attributes[semconv.GROUNDED_PROMPTS if by_prompt else semconv.WEB_SEARCHES] = 1 if by_prompt else web
    if maps:
        attributes[semconv.MAPS_PROMPTS] = 1 if by_prompt else maps
    return attributes
