"""Attributes of the GenAI semantic conventions -> what was asked of whom, and how much of it was used.

`read()` takes today's names and those of earlier versions, with counts that contain their parts
(`gen_ai.usage.input_tokens` holds the cached tokens too). What a call used beyond those names comes as
`costspan.usage.<meter>`. Spans that speak otherwise are put into these words first: see `dialects`.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing import METERS, Usage, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from costspan_pricing import Cost, PriceBook, RateCard

STATUS: Final = "costspan.cost.status"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
SERVICE_TIER: Final = "costspan.service_tier"
ABORTED: Final = "costspan.stream.aborted"
GEO: Final = "costspan.geo"
ESTIMATED: Final = "costspan.usage.estimated"
REPORTED_COST: Final = "costspan.usage.reported_cost"
ITERATIONS: Final = "costspan.usage.iterations"
BY_MODEL: Final = "costspan.usage.by_model"
INCONSISTENT: Final = "costspan.usage.inconsistent"
GUESSED: Final = "costspan.usage.guessed"
UNSAID: Final = "costspan.usage.unsaid"
"""Meters that the span would not tell of, whatever was used: never on a span, but what a translated one says."""
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

_AGGREGATES: Final = frozenset({"invoke_agent", "invoke_workflow"})

_INPUT: Final = "gen_ai.usage.input_tokens"
_OUTPUT: Final = "gen_ai.usage.output_tokens"
_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"

FIELDS: Final[dict[str, str]] = {
    _INPUT: "input",
    _OUTPUT: "output",
    _CACHE_READ: "cache_read",
    "gen_ai.usage.cache_write.input_tokens": "cache_write",
    _REASONING: "reasoning",
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
    "costspan.usage.output_video": "output_video",
}
"""Attribute -> the parameter of `Usage.from_inclusive` that it fills."""

OLDER: Final[dict[str, str]] = {
    "gen_ai.usage.prompt_tokens": "input",
    "gen_ai.usage.completion_tokens": "output",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write",
}
"""Spellings of earlier conventions: used where today's is absent, since some emitters send both."""

_ASIDE: Final = frozenset({ESTIMATED, REPORTED_COST, ITERATIONS, BY_MODEL, INCONSISTENT, GUESSED, UNSAID})
"""Attributes under `costspan.usage.` that are no meter."""

KIND: Final = (
    OPERATION, PROVIDER, _SYSTEM, REQUEST_MODEL, RESPONSE_MODEL, SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE, SERVICE_TIER,
    _RESPONSE_TIER, _REQUEST_TIER, GEO, ESTIMATED, UNSAID, ROLLUP, ABORTED,
)  # fmt: skip
"""Attributes that tell the kind of a call, as opposed to what it used."""

GEO_OF_HOST: Final = re.compile(
    r"([a-z0-9-]+)\.api\.openai\.com|([a-z0-9-]+)-aiplatform\.googleapis\.com|aiplatform\.([a-z0-9-]+)\.rep\.googleapis\.com"
    r"|api\.([a-z0-9-]+)\.mistral\.ai"
    r"|(?:.+\.)?bedrock[a-z-]*\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)"
)
"""Hosts whose name says which region they are in: one of the groups is the region."""
UNSAID_TIERS: Final = frozenset({"auto", "default"})
"""Service tiers that a request may ask for and that do not say which one serves it."""

_SHAPES_AT_MOST = 512
_KINDS_AT_MOST = 1024


class Kind:
    """What calls to one model have in common: everything a span says but the amounts. Shared, never changed."""

    __slots__ = (
        "aborted", "billed", "error_type", "estimated", "geo", "newest", "operation", "provider", "request_model",
        "response_model", "server_address", "server_port", "tier", "unsaid",
    )  # fmt: skip

    newest: tuple[PriceBook, int, RateCard, tuple[dict[str, Any], dict[str, Any]]] | None
    """What `enrich` remembers: of which book and since when (unix ns) its newest card holds, the card, and the span
    attributes of its prices without and with cache reads, to be filled in."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.newest = None
        get = attributes.get
        provider = get(PROVIDER)
        self.provider: Final[str | None] = _text(get(_SYSTEM) if provider is None else provider)
        self.operation: Final[str] = _text(get(OPERATION)) or "chat"
        self.billed: Final = self.operation not in NOT_BILLED and get(ROLLUP) is not True
        self.request_model: Final = _text(get(REQUEST_MODEL))
        self.response_model: Final = _text(get(RESPONSE_MODEL))
        self.server_address: Final = _text(get(SERVER_ADDRESS))
        self.server_port: Final[int | None] = get(SERVER_PORT)
        self.error_type: Final = _text(get(ERROR_TYPE))
        self.aborted: Final = get(ABORTED) is True
        """A stream that the application stopped reading before the provider had told what it used."""
        self.estimated = get(ESTIMATED) is True
        """The usage is an estimate: the provider never said, or whoever made the span left out what the price needs."""
        self.unsaid: Final[tuple[str, ...]] = () if self.estimated else tuple(get(UNSAID) or ())
        """Meters that make it one where the model has a price of its own for them."""
        tier = get(SERVICE_TIER)
        if tier is None:
            tier = get(_RESPONSE_TIER)
            if tier is None:
                tier = get(_REQUEST_TIER)
                if tier in UNSAID_TIERS:
                    tier = None
        self.tier: Final = _text(tier)
        """Service tier that was served, or the one asked for where the answer does not say."""
        geo = get(GEO)
        self.geo: Final = _text(_geo_of(self.server_address or "") if geo is None else geo)


def _geo_of(host: str) -> str | None:
    """The region that a host is in, where its name says so and the price may depend on it."""
    found = GEO_OF_HOST.fullmatch(host)
    return None if found is None else next(filter(None, found.groups()))


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


class Reading:
    """What one span says of one call. Counts are inclusive totals; None where the span does not say."""

    __slots__ = (
        "guessed", "input_tokens", "kind", "output_tokens", "parts", "problem", "reported_cost", "tokens", "usage",
    )  # fmt: skip

    kind: Kind
    usage: Usage | None
    """None: the span reports no usage, or one that cannot be (then `problem` says why)."""
    problem: str | None
    parts: Sequence[tuple[str | None, Usage]]
    """Usage of models inside the same call, in addition to `usage`: (model, usage)."""
    input_tokens: int | None
    output_tokens: int | None
    tokens: Mapping[str, int]
    """Tokens by component, each token under one of them; those of `parts` too."""
    reported_cost: Any
    """USD, as the provider itself reported it."""
    guessed: bool
    """Whether what the counts contain, or whose model it is, was concluded from them and not said."""


class Plain:
    """A `Reading` of a call of text alone whose counts agree, and its price once `assess` has quoted one.

    Nearly every call is one, so reading and price are one object, which holds just what those calls need. `plain` are
    the prompt, the cache reads in it, the output and the reasoning in it; `quote` are picodollars: total, input, cache
    reads, output, saved by cache reads.
    """

    __slots__ = ("card", "kind", "output_tokens", "plain", "quote")

    kind: Kind
    plain: tuple[int, int, int, int]
    output_tokens: int | None
    card: RateCard
    quote: tuple[int, int, int, int, int]
    problem: Final = None
    guessed: Final = False
    reported_cost: Final = None
    parts: Final = ()
    write_premium: Final = 0

    @property
    def reading(self) -> Plain:
        """Itself: what was read is what was priced."""
        return self

    @property
    def input_tokens(self) -> int:
        """The prompt."""
        return self.plain[0]

    @property
    def usage(self) -> Usage:
        """The counts as pricing takes them in the general case."""
        prompt, cached, output, reasoning = self.plain
        return Usage.from_inclusive(input=prompt, cache_read=cached, output=output, reasoning=reasoning)

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens by component."""
        prompt, cached, output, _ = self.plain
        return {"input": prompt - cached, "cache_read": cached, "output": output}

    @property
    def total(self) -> int:
        """Picodollars."""
        return self.quote[0]

    @property
    def saved(self) -> int:
        """Picodollars that cache reads saved."""
        return self.quote[4]

    @property
    def status(self) -> str:
        """`priced`, or `estimated` where the usage is."""
        return "estimated" if self.kind.estimated else "priced"

    @property
    def components(self) -> Mapping[str, int]:
        """Picodollars by component."""
        _, sent, read, received, _ = self.quote
        parts = {"input": sent, "cache_read": read, "output": received}
        return {component: pico for component, pico in parts.items() if pico}

    @property
    def cost(self) -> Cost:
        """The cost with its lines."""
        return self.card.cost(self.usage)


class _Plan:
    """Where things are in spans that have the same attributes. Worked out once for such a shape, not once a call."""

    __slots__ = ("aside", "billed", "counts", "extra", "fields", "kind", "kind_keys", "kinds", "layout")

    def __init__(self, shape: tuple[str, ...]) -> None:
        present = frozenset(shape)
        self.kind_keys = tuple(key for key in KIND if key in present)
        # There is at least one of these keys, or the shape would have no plan.
        self.kind = getter(self.kind_keys)
        self.kinds: dict[tuple[Any, ...], Kind] = {}
        self.billed: dict[tuple[Any, ...], Kind] = {}
        counted = [(key, field) for key, field in FIELDS.items() if key in present]
        named = {field for _, field in counted}
        # Some emitters send both spellings: today's wins.
        counted += [(key, field) for key, field in OLDER.items() if key in present and field not in named]
        self.fields = tuple(field for _, field in counted)
        self.counts = getter([key for key, _ in counted])
        self.extra = {
            key: key[len(_METER_PREFIX) :]
            for key in shape
            if key.startswith(_METER_PREFIX) and key not in _ASIDE and key not in FIELDS
        }
        self.aside = not present.isdisjoint((REPORTED_COST, ITERATIONS, BY_MODEL, GUESSED))
        ordinary = not self.extra and not self.aside and all(key in FIELDS for key, _ in counted)
        self.layout = _LAYOUTS.get(self.fields, 0) if ordinary and STATUS not in present else 0


def getter(keys: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """The values under `keys`, as a tuple even if it is one or none."""
    if not keys:
        return lambda _: ()
    if len(keys) == 1:
        (only,) = keys
        return lambda attributes: (attributes[only],)
    return itemgetter(*keys)


_plans: dict[tuple[str, ...], _Plan | None] = {}


def _plan(shape: tuple[str, ...]) -> _Plan | None:
    """The plan for a shape; None if such a span is no GenAI call. Kept, unless the shapes never end."""
    plan = None
    if any(key in shape for key in (OPERATION, PROVIDER, _SYSTEM, REQUEST_MODEL)):
        plan = _Plan(shape)
    if len(_plans) >= _SHAPES_AT_MOST:
        _plans.clear()
    _plans[shape] = plan
    return plan


def read(attributes: Mapping[str, Any], *, aggregate: bool = False) -> Reading | Plain | None:
    """The call that a span describes; None if it describes none that is billed.

    `aggregate`: the usage of an agent or a workflow counts too, since no span tells of the calls it is the sum of.
    """
    counts = plain_counts(attributes)
    if counts is not None:
        plain = Plain()
        plain.kind, sent, cached, received, reasoned = counts
        plain.plain = sent, cached, received, reasoned
        plain.output_tokens = received if _OUTPUT in attributes else None
        return plain
    shape = tuple(attributes)
    try:
        plan = _plans[shape]
    except KeyError:
        plan = _plan(shape)
        if plan is not None and plan.layout:
            # What the shape holds is known now, and the kind of call with the next line.
            _kind(plan, attributes)
            return read(attributes, aggregate=aggregate)
    if plan is None:
        return None
    kind = _kind(plan, attributes)
    if not kind.billed and not (aggregate and kind.operation in _AGGREGATES and plan.fields):
        return None
    reading = Reading()
    reading.kind = kind
    reading.problem = reading.reported_cost = None
    reading.guessed = False
    reading.parts = ()
    _read_usage(reading, plan, attributes)
    return reading


def kind_of(attributes: Mapping[str, Any]) -> Kind | None:
    """What kind of call a request is; None if it is none that is billed."""
    shape = tuple(attributes)
    plan = _plans[shape] if shape in _plans else _plan(shape)
    kind = None if plan is None else _kind(plan, attributes)
    return kind if kind is not None and kind.billed else None


def plain_counts(attributes: Mapping[str, Any]) -> tuple[Kind, int, int, int, int] | None:
    """What a billed call of text alone says: its kind; prompt, cache reads, output and reasoning.

    None for every other call, for counts that do not agree, and for a kind of call or a shape of span at first sight.
    """
    plan = _plans.get(tuple(attributes))
    if plan is None:
        return None
    layout = plan.layout
    if not layout:
        return None
    try:
        kind = plan.billed[plan.kind(attributes)]
    except (KeyError, TypeError):
        return None
    # By type and not by instance: True is an int, and no count.
    if layout == 3:
        sent, received, cached = plan.counts(attributes)
        if (
            type(sent) is int
            and type(received) is int
            and type(cached) is int
            and 0 <= cached <= sent
            and received >= 0
        ):
            return kind, sent, cached, received, 0
        return None
    cached = reasoned = received = 0
    if layout == 2:
        sent, received = plan.counts(attributes)
    elif layout == 4:
        sent, received, cached, reasoned = plan.counts(attributes)
    elif layout == 5:
        sent, received, reasoned = plan.counts(attributes)
    else:
        (sent,) = plan.counts(attributes)
    if (
        type(sent) is int
        and type(received) is int
        and type(cached) is int
        and type(reasoned) is int
        and 0 <= cached <= sent
        and 0 <= reasoned <= received
    ):
        return kind, sent, cached, received, reasoned
    return None


_LAYOUTS: Final = {
    ("input",): 1,
    ("input", "output"): 2,
    ("input", "output", "cache_read"): 3,
    ("input", "output", "cache_read", "reasoning"): 4,
    ("input", "output", "reasoning"): 5,
}
"""What nearly every call reports, under today's names: the counts of such a plan, by their order."""


def _kind(plan: _Plan, attributes: Mapping[str, Any]) -> Kind:
    values = plan.kind(attributes)
    try:
        return plan.kinds[values]
    except (KeyError, TypeError):
        return _new_kind(plan, values)


def _read_usage(reading: Reading, plan: _Plan, attributes: Mapping[str, Any]) -> None:
    """Whatever a span may say about usage, and whatever dress the numbers are in."""
    counts: dict[str, Any] = {}
    reading.tokens = {}
    reading.usage = reading.input_tokens = reading.output_tokens = None
    try:
        if plan.aside:
            reading.reported_cost = attributes.get(REPORTED_COST)
            reading.guessed = attributes.get(GUESSED) is True
        if plan.fields:
            counts = dict(zip(plan.fields, plan.counts(attributes), strict=True))
        if plan.extra:
            counts["extra"] = {meter: attributes[key] for key, meter in plan.extra.items()}
        usage = usage_of(counts) if counts else None
        parts = _parts(ITERATIONS, attributes[ITERATIONS]) if ITERATIONS in attributes else []
        if BY_MODEL in attributes:
            # The totals, shared out: each token is its model's, and what is no token (a search) the call's own.
            parts += _parts(BY_MODEL, attributes[BY_MODEL])
            usage = usage_of({"extra": counts["extra"]}) if "extra" in counts else None
        reading.tokens = _by_component(*((usage,) if usage is not None else ()), *(part for _, part in parts))
        reading.usage = usage
        reading.parts = parts
        reading.input_tokens = counts.get("input")
        reading.output_tokens = counts.get("output")
    except UsageError as error:
        reading.problem = str(error)


def _by_component(*usages: Usage) -> dict[str, int]:
    tokens: dict[str, int] = {}
    for usage in usages:
        for meter, quantity in usage.quantities.items():
            known = METERS.get(meter)
            if known is not None and known.unit == "token":
                tokens[known.component] = tokens.get(known.component, 0) + quantity
    return tokens


def _new_kind(plan: _Plan, values: tuple[Any, ...]) -> Kind:
    kind = Kind(dict(zip(plan.kind_keys, values, strict=True)))
    if len(plan.kinds) >= _KINDS_AT_MOST:
        plan.kinds.clear()
        plan.billed.clear()
    with suppress(TypeError):  # a value that is a list: such a span is read, and not remembered
        plan.kinds[values] = kind
        if kind.billed:
            plan.billed[values] = kind
    return kind


def usage_of(counts: dict[str, Any]) -> Usage:
    """`Usage.from_inclusive` of counts that may be numbers in another dress ("12", 12.0); `counts` is put right."""
    try:
        return Usage.from_inclusive(**counts)
    except UsageError:
        extra = counts.get("extra")
        for field, value in counts.items():
            if field != "extra":
                counts[field] = number(value)
        if extra is not None:
            counts["extra"] = {meter: number(value) for meter, value in extra.items()}
        return Usage.from_inclusive(**counts)


def number(value: Any) -> Any:
    """A count that may be in another dress (12.0, "12") as an integer; the raw value else, for `Usage` to refuse."""
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("-").isdecimal() else float(value)
        except ValueError:
            return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _parts(name: str, written: Any) -> list[tuple[str | None, Usage]]:
    """The usages by model that the attribute `name` lists, as JSON or as what that says."""
    parts: list[tuple[str | None, Usage]] = []
    try:
        for part in json.loads(written) if isinstance(written, str) else written:
            counts = {field: part[key] for key, field in (OLDER | FIELDS).items() if key in part}
            extra = {
                key[len(_METER_PREFIX) :]: value
                for key, value in part.items()
                if key.startswith(_METER_PREFIX) and key not in _ASIDE and key not in FIELDS
            }
            parts.append((part.get("model"), usage_of({**counts, "extra": extra})))
    except UsageError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{name} is not a list of usages: {error}") from error
    return parts
