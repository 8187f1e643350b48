"""The open registry of billable quantities.

A meter names one thing that a provider bills: text tokens that went in, cached tokens that were read, seconds of audio,
web searches. Meters are disjoint: no token is counted under two of them. Whoever bills by something new registers it:

>>> register(Meter("gpu_megajoules", "megajoule", scale=1000, per=1)).component
'other'
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Component = Literal["input", "output", "cache_read", "cache_write", "other"]
"""How meters are grouped in reports: a meter belongs to exactly one component."""


class Meter(NamedTuple):
    """One billable quantity.

    ``scale`` is how many integer steps make one ``unit``: 1 for tokens, 1,000,000 for seconds, so that fractions of a
    second stay integers. ``per`` is how many units a rate is quoted for unless it says otherwise (prices of tokens are
    in USD per million). ``component`` is its group in reports.
    """

    id: str
    unit: str
    scale: int = 1
    per: int = 1_000_000
    component: Component = "other"


_MICRO: Final = 1_000_000

_METERS: dict[str, Meter] = {
    meter.id: meter
    for meter in (
        Meter("input", "token", component="input"),
        Meter("input_audio", "token", component="input"),
        Meter("input_image", "token", component="input"),
        Meter("input_video", "token", component="input"),
        Meter("cache_read", "token", component="cache_read"),
        Meter("cache_read_audio", "token", component="cache_read"),
        Meter("cache_read_image", "token", component="cache_read"),
        Meter("cache_read_video", "token", component="cache_read"),
        Meter("cache_write_5m", "token", component="cache_write"),
        Meter("cache_write_30m", "token", component="cache_write"),
        Meter("cache_write_1h", "token", component="cache_write"),
        Meter("cache_write_12h", "token", component="cache_write"),
        Meter("output", "token", component="output"),
        Meter("output_reasoning", "token", component="output"),
        Meter("output_audio", "token", component="output"),
        Meter("output_image", "token", component="output"),
        Meter("output_video", "token", component="output"),
        Meter("output_citation", "token", component="output"),
        Meter("cache_storage_token_hours", "token_hour", scale=_MICRO),
        Meter("characters", "character"),
        Meter("audio_seconds", "second", scale=_MICRO, per=3600),
        Meter("output_audio_seconds", "second", scale=_MICRO, per=3600),
        Meter("video_seconds", "second", scale=_MICRO, per=1),
        Meter("compute_seconds", "second", scale=_MICRO, per=3600),
        Meter("fine_tuning_tokens", "token"),
        Meter("images", "image", per=1),
        Meter("pixels", "pixel", per=1_000_000_000),
        Meter("pages", "page", per=1000),
        Meter("annotated_pages", "page", per=1000),
        Meter("requests", "request", per=1000),
        Meter("requests_medium_context", "request", per=1000),
        Meter("requests_high_context", "request", per=1000),
        Meter("messages", "message", per=1000),
        Meter("web_searches", "search", per=1000),
        Meter("social_searches", "search", per=1000),
        Meter("file_searches", "search", per=1000),
        Meter("rerank_searches", "search", per=1000),
        Meter("grounded_prompts", "prompt", per=1000),
        Meter("maps_prompts", "prompt", per=1000),
        Meter("code_executions", "execution", per=1000),
        Meter("containers", "session", per=1),
        Meter("container_hours", "hour", scale=_MICRO, per=1),
        Meter("storage_gb_months", "gigabyte_month", scale=_MICRO, per=1),
        Meter("bandwidth_gb", "gigabyte", scale=_MICRO, per=1),
    )
}

METERS: Final[Mapping[str, Meter]] = MappingProxyType(_METERS)
"""Every meter known so far, by its id. Grows through `register`."""

INPUT_SIDE: Final = frozenset(("input", "cache_read", "cache_write"))
"""The components whose tokens make up the prompt, and so decide the context tier."""


def register(meter: Meter) -> Meter:
    """Add a meter and return it; registering the same one again changes nothing.

    Raises ``ValueError`` if the id is taken by a different meter: recorded quantities would change their meaning.
    """
    known = _METERS.setdefault(meter.id, meter)
    if known != meter:
        raise ValueError(f"meter {meter.id!r} is already registered as {known!r}")
    return known
