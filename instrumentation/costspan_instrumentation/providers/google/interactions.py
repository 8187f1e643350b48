"""Google: interactions, created, streamed, and fetched after they ran in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, fields_of, get, known
from costspan_instrumentation.providers.google.counts import grounding, interactions_usage, searches
from costspan_instrumentation.providers.google.requests import request, tier_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def _request(kwargs: Mapping[str, Any]) -> Attributes:
    asked = get(kwargs.get("request"), "body") or kwargs
    model, settings = get(asked, "model") or get(asked, "agent"), get(asked, "generation_config")
    level, previous = get(settings, "thinking_level"), get(asked, "previous_interaction_id")
    attributes = request({"model": model, "config": settings})
    if isinstance(level, str):
        attributes[semconv.REQUEST_REASONING_LEVEL] = level
    if isinstance(previous, str):
        attributes[semconv.REQUEST_PREVIOUS_RESPONSE_ID] = previous
    if get(asked, "stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    if (tier := tier_of(get(asked, "service_tier"))) not in {None, "standard"}:
        attributes[semconv.SERVICE_TIER] = tier
    return attributes


def _response(answer: Any) -> Attributes:
    status, usage = get(answer, "status"), get(answer, "usage")
    attributes = {
        semconv.RESPONSE_ID: get(answer, "id") or None,
        # An agent answers under its own name.
        semconv.RESPONSE_MODEL: get(answer, "model") or get(answer, "agent"),
        semconv.SERVICE_TIER: tier_of(get(answer, "service_tier")),
        semconv.RESPONSE_FINISH_REASONS: (status,) if isinstance(status, str) else None,
    }
    if status == "in_progress":
        return known(attributes)
    found = searches(get(answer, "steps") or ())
    return known(attributes) | interactions_usage(usage) | grounding(answer, *found)


def _chunk(event: Any, seen: Seen) -> None:
    told = fields_of(event)
    if (delta := told.get("delta")) is not None:
        # The arguments of a function come as text, those of a search whole.
        text = get(delta, "text") or get(delta, "arguments")
        if type(text) is str:
            seen.characters += len(text)
        else:
            seen.notes = tuple(map(sum, zip(seen.notes or (0, 0), searches((delta,)), strict=True)))
    elif (answer := told.get("interaction")) is not None:
        seen.attributes.update(_response(answer))
        if get(answer, "usage") is not None:
            if seen.notes:
                seen.attributes.update(grounding(answer, *seen.notes))
            seen.final = True


def _fetched(answer: Any) -> Attributes:
    """An interaction that ran in the background told no usage when it was made: it counts when it is fetched first."""
    attributes = {**_response(answer), semconv.OPERATION: semconv.GENERATE_CONTENT}
    return attributes | known({semconv.REQUEST_MODEL: attributes.get(semconv.RESPONSE_MODEL)})


def _fetched_chunk(event: Any, seen: Seen) -> None:
    if (answer := get(event, "interaction")) is not None:
        seen.attributes.update(_fetched(answer))
    seen.final = True


def _nothing(_: Any) -> Attributes:
    return {}


# Of version 3, these send one request each; the methods over them go on where an answer was too long.
_HOMES = (
    ("google.genai._gaos.interactions", "Interactions"),
    ("google.genai._interactions.resources.interactions", "InteractionsResource"),
)
ENDPOINTS = tuple(
    endpoint
    for module, owner in _HOMES
    for endpoint in (
        Endpoint(
            module,
            f"{owner}.create",
            semconv.GENERATE_CONTENT,
            _request,
            _response,
            _chunk,
            content=("input", "system_instruction", "tools"),
            kept=True,
        ),
        Endpoint(
            module,
            f"{owner}.get",
            semconv.FETCH_RESPONSE,
            _nothing,
            _fetched,
            _fetched_chunk,
            positional=("id",),
            fetch=True,
        ),
    )
)
