"""Span attributes -> what was asked of whom, and how much of it was used.

Whoever made the span, `read()` gives the same `Reading`: the names of the GenAI semantic conventions, today's spelling
and those of earlier versions, with counts that contain their parts (`gen_ai.usage.input_tokens` holds the cached tokens
too). What a call used beyond those names comes as `costspan.usage.<meter>`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing import Usage, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STATUS: Final = "costspan.cost.status"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
SERVICE_TIER: Final = "costspan.service_tier"
GEO: Final = "costspan.geo"
ESTIMATED: Final = "costspan.usage.estimated"
REPORTED_COST: Final = "costspan.usage.reported_cost"
ITERATIONS: Final = "costspan.usage.iterations"
INCONSISTENT: Final = "costspan.usage.inconsistent"
ROLLUP: Final = "costspan.rollup"

_SYSTEM = "gen_ai.system"
_REQUEST_TIER = "openai.request.service_tier"
_RESPONSE_TIER = "openai.response.service_tier"
_METER_PREFIX = "costspan.usage."

NOT_BILLED: Final = frozenset({
    # An agent, a workflow or a tool repeats what its model calls report; a fetched response was billed when made.
    "invoke_agent", "invoke_workflow", "create_agent", "execute_tool", "agent_step", "agent_call", "tool_call", "plan",
    "fetch_response", "create_memory", "create_memory_store", "delete_memory", "delete_memory_store", "search_memory",
    "update_memory", "upsert_memory",
})  # fmt: skip
"""Operations whose spans carry no bill of their own."""

_FIELDS: Final[dict[str, str]] = {
    "gen_ai.usage.input_tokens": "input",
    "gen_ai.usage.output_tokens": "output",
    "gen_ai.usage.cache_read.input_tokens": "cache_read",
    "gen_ai.usage.cache_write.input_tokens": "cache_write",
    "gen_ai.usage.reasoning.output_tokens": "reasoning",
    "gen_ai.usage.audio.input_tokens": "input_audio",
    "gen_ai.usage.image.input_tokens": "input_image",
    "gen_ai.usage.audio.output_tokens": "output_audio",
    "gen_ai.usage.image.output_tokens": "output_image",
    "gen_ai.usage.audio.cache_read.input_tokens": "cache_read_audio",
    "gen_ai.usage.image.cache_read.input_tokens": "cache_read_image",
    "costspan.usage.cache_write_5m": "cache_write_5m",
    "costspan.usage.cache_write_30m": "cache_write_30m",
    "costspan.usage.cache_write_1h": "cache_write_1h",
    "costspan.usage.cache_write_12h": "cache_write_12h",
    "costspan.usage.input_video": "input_video",
    "costspan.usage.cache_read_video": "cache_read_video",
}
"""Attribute -> the parameter of `Usage.from_inclusive` that it fills."""

_OLDER: Final[dict[str, str]] = {
    "gen_ai.usage.prompt_tokens": "input",
    "gen_ai.usage.completion_tokens": "output",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write",
}
"""Spellings of earlier conventions: used where today's is absent, since some emitters send both."""

_IGNORED = {ESTIMATED, REPORTED_COST, ITERATIONS, INCONSISTENT}
_LEARNT_AT_MOST = 4096

_GEO_OF_HOST: Final = {"eu.api.openai.com": "eu", "us.api.openai.com": "us"}
_UNSAID_TIERS: Final = frozenset({"auto", "default"})


class Reading:
    """What one span says of one call. Counts are inclusive totals; None where the span does not say."""

    __slots__ = (
        "error_type", "estimated", "geo", "input_tokens", "operation", "output_tokens", "parts", "problem", "provider",
        "reported_cost", "request_model", "response_model", "server_address", "server_port", "tier", "usage",
    )  # fmt: skip

    operation: str
    provider: str | None
    request_model: str | None
    response_model: str | None
    server_address: str | None
    server_port: int | None
    error_type: str | None
    tier: str | None
    """Service tier that was served, or asked for where the answer does not say."""
    geo: str | None
    usage: Usage | None
    """None: the span reports no usage, or one that cannot be (then `problem` says why)."""
    problem: str | None
    parts: Sequence[tuple[str | None, Usage]]
    """Usage of other models inside the same call, in addition to `usage`: (model, usage)."""
    input_tokens: int | None
    output_tokens: int | None
    reported_cost: float | None
    """USD, as the provider itself reported it."""
    estimated: bool


def read(
    attributes: Mapping[str, Any],
    scope_name: str = "",  # noqa: ARG001  the scope decides the dialect as soon as there is more than one
    scope_version: str = "",  # noqa: ARG001
    resource: Mapping[str, Any] | None = None,  # noqa: ARG001
) -> Reading | None:
    """The call that a span describes; None if it describes none that is billed.

    `attributes` are the span's; `scope_name` and `scope_version` name the library that made it, `resource` the service.
    """
    get = attributes.get
    provider = get(PROVIDER)
    if provider is None:
        provider = get(_SYSTEM)
    operation = get(OPERATION)
    if operation is None:
        if provider is None and REQUEST_MODEL not in attributes:
            return None
        operation = "chat"
    elif operation in NOT_BILLED:
        return None

    reading = Reading()
    reading.operation = operation
    reading.provider = provider
    reading.request_model = get(REQUEST_MODEL)
    reading.response_model = get(RESPONSE_MODEL)
    address = reading.server_address = get(SERVER_ADDRESS)
    reading.server_port = get(SERVER_PORT)
    reading.error_type = get(ERROR_TYPE)
    reading.estimated = get(ESTIMATED) is True
    reading.reported_cost = get(REPORTED_COST)
    tier = get(SERVICE_TIER)
    if tier is None:
        tier = get(_RESPONSE_TIER)
        if tier is None:
            tier = get(_REQUEST_TIER)
            if tier in _UNSAID_TIERS:
                tier = None
    reading.tier = tier
    geo = get(GEO)
    if geo is None and address is not None:
        geo = _GEO_OF_HOST.get(address)
    reading.geo = geo

    reading.parts = ()
    try:
        counts, extra = _counts(attributes)
        reading.input_tokens = counts.get("input")
        reading.output_tokens = counts.get("output")
        if extra is not None:
            reading.usage = Usage.from_inclusive(**counts, extra=extra)
        elif counts:
            reading.usage = Usage.from_inclusive(**counts)
        else:
            reading.usage = None
        if ITERATIONS in attributes:
            reading.parts = _parts(attributes[ITERATIONS])
        reading.problem = None
    except UsageError as error:
        reading.usage = reading.input_tokens = reading.output_tokens = None
        reading.problem = str(error)
    return reading


def _counts(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    counts: dict[str, Any] = {}
    extra: dict[str, Any] | None = None
    older: dict[str, Any] | None = None
    ignored = _IGNORED
    fields = _FIELDS
    for key in attributes:
        if key in ignored:
            continue
        value = attributes[key]
        if key in fields:
            counts[fields[key]] = value if type(value) is int else _number(value)
        elif key in _OLDER:
            older = older or {}
            older[_OLDER[key]] = _number(value)
        elif key.startswith(_METER_PREFIX):
            extra = extra or {}
            extra[key[len(_METER_PREFIX) :]] = _number(value)
        elif len(ignored) < _LEARNT_AT_MOST:
            ignored.add(key)
    if older is not None:
        counts = older | counts
    return counts, extra


def _number(value: Any) -> Any:
    """An integer where the value is one in another dress (12.0, "12"); the raw value else, for `Usage` to refuse."""
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("-").isdecimal() else float(value)
        except ValueError:
            return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _parts(iterations: Any) -> list[tuple[str | None, Usage]]:
    parts: list[tuple[str | None, Usage]] = []
    try:
        listed = json.loads(iterations) if isinstance(iterations, str) else iterations
        for part in listed:
            model = part.get("model")
            counts, extra = _counts({key: value for key, value in part.items() if key != "model"})
            parts.append((model, Usage.from_inclusive(**counts, extra=extra or {})))
    except UsageError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{ITERATIONS} is not a list of usages: {error}") from error
    return parts
