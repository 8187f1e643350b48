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


def grounding(candidates: Any, attributes: Attributes) -> None:
    """Google Search: Gemini 2 and before bill the prompt that was grounded, later models each search."""
    queries: set[str] = set()
    for candidate in candidates:
        wire = isinstance(candidate, dict)
        if found := get(candidate, "groundingMetadata" if wire else "grounding_metadata"):
            queries.update(get(found, "webSearchQueries" if wire else "web_search_queries") or ())
            queries.update(get(found, "imageSearchQueries" if wire else "image_search_queries") or ())
    queries.discard("")
    if queries:
        model = attributes.get(semconv.RESPONSE_MODEL, "")
        by_prompt = not model or "gemini-1" in model or "gemini-2" in model
        attributes[semconv.GROUNDED_PROMPTS if by_prompt else semconv.WEB_SEARCHES] = 1 if by_prompt else len(queries)
