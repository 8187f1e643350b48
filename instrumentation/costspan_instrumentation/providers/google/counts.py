"""What an interaction counts: tokens, and searches of the web and the map."""

from __future__ import annotations

from typing import Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, get, known, total
from costspan_instrumentation.providers.google.answers import searched
from costspan_instrumentation.providers.google.usage import CACHE, INPUT, OUTPUT, add_modalities


def interactions_usage(usage: Any) -> Attributes:
    """`usage` of an interaction: prompts of tools are added to the input, thoughts to the output.

    >>> interactions_usage({"total_input_tokens": 9, "total_tool_use_tokens": 4, "total_output_tokens": 2})
    {'gen_ai.usage.input_tokens': 13, 'gen_ai.usage.output_tokens': 2}
    """
    thoughts = get(usage, "total_thought_tokens")
    if thoughts is None:
        # So it was called at first.
        thoughts = get(usage, "total_reasoning_tokens")
    parts = {semconv.REASONING_TOKENS: thoughts, semconv.CACHE_READ_TOKENS: get(usage, "total_cached_tokens")}
    attributes = known(
        {
            semconv.INPUT_TOKENS: total(get(usage, "total_input_tokens"), get(usage, "total_tool_use_tokens")),
            semconv.OUTPUT_TOKENS: total(get(usage, "total_output_tokens"), thoughts),
        }
    ) | {key: count for key, count in parts.items() if count}
    for name, keys in _MODALITIES.items():
        add_modalities(get(usage, f"{name}_tokens_by_modality"), keys, "tokens", attributes)
    return attributes


_MODALITIES = {"input": INPUT, "tool_use": INPUT, "output": OUTPUT, "cached": CACHE}


def searches(steps: Any) -> tuple[int, int]:
    """The queries to the web and to the map in these steps."""
    web = maps = 0
    for step in steps:
        if (kind := get(step, "type")) in {"google_search_call", "google_maps_call"}:
            queries = len(get(get(step, "arguments"), "queries") or ())
            web, maps = (web + queries, maps) if kind == "google_search_call" else (web, maps + queries)
    return web, maps


def grounding(answer: Any, web: int, maps: int) -> Attributes:
    """What was searched: as the usage counts it, else as the steps show it."""
    for tool in get(get(answer, "usage"), "grounding_tool_count") or ():
        kind, count = get(tool, "type"), get(tool, "count") or 0
        web, maps = (count if kind == "google_search" else web), (count if kind == "google_maps" else maps)
    return searched(get(answer, "model"), web, maps)
