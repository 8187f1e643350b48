"""*Models & providers*: the models beside one another: what they cost, how fast and how reliable they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    BILLED,
    CALL_FILTER,
    CALLS,
    COMPONENT,
    COST,
    DURATION,
    ESTIMATE,
    FILTER,
    FIRST_CHUNK,
    GREEN,
    MODEL,
    NOT_BY_TEAM,
    PROVIDER,
    RATE,
    RED,
    TIER,
    TOKENS,
    YELLOW,
    Column,
    gained,
    graph,
    increased,
    page,
    per_second,
    quantile,
    query,
    rows,
    stacked,
)
from grafana.generator.overview import cache_hit_rate, error_rate

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models import dashboard as models

UID: Final = "costspan-models"

_BY: Final = f"{PROVIDER}, {MODEL}"
_LEGEND: Final = f"{{{{{MODEL}}}}}"
_BESIDE: Final = ("mean",)
"""Names of models are long: beside them there is room for one figure where the window is 1,000 pixels wide."""
_COST: Final = f"{COST}{{{FILTER}}}"
_TOKENS: Final = f"{TOKENS}{{{FILTER}}}"


def _quantile(q: float, histogram: str) -> str:
    buckets = increased(f"{histogram}_bucket{{{CALL_FILTER}}}", f"le, {_BY}")
    return f"histogram_quantile({q}, {buckets}) > 0"


def _comparison() -> list[Builder[models.Panel]]:
    cost = increased(_COST, _BY)
    failed = increased(f'{DURATION}_count{{{CALL_FILTER}, error_type!=""}}', _BY)
    every = increased(f"{DURATION}_count{{{CALL_FILTER}}}", _BY)
    cached = increased(f'{TOKENS}{{{FILTER}, {COMPONENT}="cache_read"}}', _BY)
    read = increased(f'{TOKENS}{{{FILTER}, {COMPONENT}=~"input|cache_read|cache_write"}}', _BY)
    return [
        rows(
            "Models compared",
            "Over the time range: calls with a cost and what they cost in all, "
            "a call, and a thousand tokens of input and output together; "
            "duration and time to the first chunk that 95 % of the calls stay under; "
            "share that failed; share of input tokens read from the cache. "
            f"Durations and errors: {NOT_BY_TEAM[0].lower()}{NOT_BY_TEAM[1:]} {ESTIMATE}",
            {PROVIDER: "Provider", MODEL: "Model"},
            [
                Column("Calls", units.Short, gained(BILLED, _BY), 0),
                Column("Cost", units.Dollars, cost, 2),
                Column("A call", units.Dollars, f"{cost} / ({increased(BILLED, _BY)} > 0)", 5),
                Column("1k tokens", units.Dollars, f"1000 * {cost} / ({increased(_TOKENS, _BY)} > 0)", 5),
                Column("p95", units.Seconds, _quantile(0.95, DURATION), 1),
                Column("First chunk, p95", units.Seconds, _quantile(0.95, FIRST_CHUNK), 1),
                Column(
                    "Failed",
                    units.PercentUnit,
                    f"({failed} or {every} * 0) / ({every} > 0)",
                    1,
                    (None, GREEN),
                    (0.01, YELLOW),
                    (0.05, RED),
                ),
                Column("From cache", units.PercentUnit, f"{cached} / ({read} > 0)", 0),
            ],
            24,
            11,
            sort="Cost",
        ),
    ]


def _cost() -> list[Builder[models.Panel]]:
    rate_of_cost, rate_of_calls = per_second(_COST, MODEL), per_second(BILLED, MODEL)
    return [
        graph(
            "Cost per call",
            f"What a call costs on average, by model; calls that have a cost. {RATE}",
            units.Dollars,
            12,
            _BESIDE,
            height=11,
        )
        .decimals(4)
        .with_target(query(f"{rate_of_cost} / ({rate_of_calls} > 0)", _LEGEND))
        .no_value("no calls"),
        graph(
            "Cost per 1,000 tokens",
            "What a thousand tokens cost on average, input and output together, by model: "
            f"it moves with the mix of the two, with caching, tiers and prices. {RATE}",
            units.Dollars,
            12,
            _BESIDE,
            height=11,
        )
        .decimals(5)
        .with_target(query(f"1000 * {rate_of_cost} / ({per_second(_TOKENS, MODEL)} > 0)", _LEGEND))
        .no_value("no calls"),
        stacked(
            graph(
                "Calls, per minute",
                f"Calls a minute, by model, priced or not. {RATE}",
                units.Short,
                12,
                _BESIDE,
                height=11,
            )
        ).with_target(query(f"{per_second(f'{CALLS}{{{FILTER}}}', MODEL)} * 60", _LEGEND)),
        stacked(
            graph(
                "Tokens, per minute",
                f"Tokens a minute by component; reasoning is part of the output. {RATE}",
                units.Short,
                12,
                ["mean", "max"],
                height=11,
            )
        ).with_target(query(f"{per_second(_TOKENS, COMPONENT)} * 60", f"{{{{{COMPONENT}}}}}")),
    ]


def _speed() -> list[Builder[models.Panel]]:
    seconds = per_second(f"{DURATION}_sum{{{CALL_FILTER}}}", MODEL)
    calls = per_second(f"{DURATION}_count{{{CALL_FILTER}}}", MODEL)
    used = f"gen_ai_client_token_usage_sum{{{CALL_FILTER}}}"
    counted = f'gen_ai_client_token_usage_count{{{CALL_FILTER}, gen_ai_token_type="input"}}'
    tokens_a_call = f"{per_second(used, MODEL)} / ({per_second(counted, MODEL)} > 0)"
    return [
        graph(
            "Latency, p95, by model",
            f"Duration of a call, a stream to its last chunk, that 95 % of the calls stay under. {NOT_BY_TEAM}",
            units.Seconds,
            8,
            ["mean", "lastNotNull"],
        ).with_target(query(f"{quantile(0.95, DURATION, MODEL)} > 0", _LEGEND)),
        graph(
            "Time to first chunk, p95, by model",
            f"Streamed calls: the time that 95 % of them have their first chunk in. {NOT_BY_TEAM}",
            units.Seconds,
            8,
            ["mean", "lastNotNull"],
        )
        .with_target(query(f"{quantile(0.95, FIRST_CHUNK, MODEL)} > 0", _LEGEND))
        .no_value("no streamed calls"),
        error_rate(MODEL, "model", 8),
        graph(
            "Seconds a call",
            f"Mean duration of a call, by model. {NOT_BY_TEAM}",
            units.Seconds,
            8,
            ["mean", "lastNotNull"],
        ).with_target(query(f"{seconds} / ({calls} > 0)", _LEGEND)),
        graph(
            "Tokens a call",
            f"Mean tokens of a call by model, input (cached ones included) and output together. {NOT_BY_TEAM}",
            units.Short,
            8,
            ["mean", "lastNotNull"],
        )
        .decimals(0)
        .with_target(query(tokens_a_call, _LEGEND)),
        cache_hit_rate(MODEL, "model", 8),
    ]


def _prices() -> list[Builder[models.Panel]]:
    def price(component: str) -> str:
        return f'max by ({_BY}, {TIER}) (costspan_price_USD{{{CALL_FILTER}, {COMPONENT}="{component}"}})'

    return [
        rows(
            "Price list",
            "What the price book of the running processes says today, in USD per million tokens, "
            "for prompts below any context tier, for the models in use and each service tier with prices of its own. "
            "Cache writes: those of the shortest lifetime. What calls really cost is above.",
            {PROVIDER: "Provider", MODEL: "Model", TIER: "Tier"},
            [
                Column("Input", units.Dollars, price("input"), 3),
                Column("Cache read", units.Dollars, price("cache_read"), 3),
                Column("Cache write", units.Dollars, price("cache_write"), 3),
                Column("Output", units.Dollars, price("output"), 3),
            ],
            24,
            11,
            sort="Model",
        ),
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Models & providers",
        "The models beside one another: "
        "cost per call and per 1,000 tokens, latency, time to first chunk, errors, tokens, prices.",
        [
            (None, _comparison()),
            ("Cost and use", _cost()),
            ("Speed and reliability", _speed()),
            ("Prices", _prices()),
        ],
    )
