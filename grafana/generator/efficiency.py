"""*Efficiency*: where money could be saved: caching, service tiers, other models, failures and answers nobody read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    CALL_FILTER,
    COMPONENT,
    COST,
    DURATION,
    ESTIMATE,
    FEATURE,
    FILTER,
    GREEN,
    MODEL,
    NOT_BY_TEAM,
    ORANGE,
    PROVIDER,
    RATE,
    TIER,
    TOKENS,
    YELLOW,
    Column,
    bars,
    figure,
    gained,
    graph,
    increased,
    named,
    page,
    per_second,
    query,
    rows,
    stacked,
    top,
    variable,
)
from grafana.generator.overview import cache_hit_rate, cache_money

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models import dashboard as models

UID: Final = "costspan-efficiency"

_COST: Final = increased(f"{COST}{{{FILTER}}}")
_TOKENS: Final = f"{TOKENS}{{{FILTER}}}"
_SAVED: Final = f"costspan_cache_saved_USD_total{{{FILTER}}}"
_WASTED: Final = f"costspan_cost_wasted_USD_total{{{FILTER}}}"
_TIERED: Final = f"costspan_tier_cost_USD_total{{{FILTER}}}"
_PRICE: Final = "costspan_price_USD"
_BY_MODEL: Final = f"{PROVIDER}, {MODEL}, {COMPONENT}"
_AT_LIST: Final = "At list prices, for prompts below any context tier: an estimate."


def _price(by: str, filters: str) -> str:
    return f"max by ({by}) ({_PRICE}{{{filters}}})"


def _standard_less_batch() -> str:
    """Picks the models that have batch prices; USD by provider and model."""
    standard = _price(_BY_MODEL, f'{CALL_FILTER}, {TIER}="standard"')
    batch = _price(_BY_MODEL, f'{CALL_FILTER}, {TIER}="batch"')
    return f"sum by ({PROVIDER}, {MODEL}) ({increased(_TOKENS, _BY_MODEL)} / 1e6 * ({standard} - {batch}))"


def _top() -> list[Builder[models.Panel]]:
    cached = increased(f'{TOKENS}{{{FILTER}, {COMPONENT}="cache_read"}}')
    read = increased(f'{TOKENS}{{{FILTER}, {COMPONENT}=~"input|cache_read|cache_write"}}')
    failed = increased(f'{DURATION}_count{{{CALL_FILTER}, error_type!=""}}')
    every = increased(f"{DURATION}_count{{{CALL_FILTER}}}")
    premium = increased(f"costspan_cache_write_premium_USD_total{{{FILTER}}}")
    return [
        figure("Spend", f"Over the time range. {ESTIMATE}", units.Dollars, _COST, 4)
        .decimals(2)
        .no_value("nothing spent"),
        figure(
            "From cache",
            f"Share of all input tokens over the time range that were read from a provider's cache. {ESTIMATE}",
            units.PercentUnit,
            f"{cached} / ({read} > 0)",
            4,
        )
        .decimals(0)
        .no_value("no cached tokens"),
        figure(
            "Cache savings",
            f"Cached tokens at the input rate less what they cost, less the premium for writing them. {ESTIMATE}",
            units.Dollars,
            f"({increased(_SAVED)} or vector(0)) - ({premium} or vector(0))",
            4,
            colors=((None, ORANGE), (0, GREEN)),
        ).decimals(2),
        figure(
            "Wasted",
            "What calls cost over the time range that failed after using tokens, "
            f"or whose stream was not read to its end, as a share of all. {ESTIMATE}",
            units.PercentUnit,
            f"({gained(_WASTED)} or vector(0)) / ({_COST} > 0)",
            4,
            colors=((None, GREEN), (0.01, YELLOW), (0.05, ORANGE)),
        )
        .decimals(2)
        .no_value("nothing spent"),
        figure(
            "Failed calls",
            "Share of the calls over the time range that failed. "
            f"Most providers bill nothing for them. {NOT_BY_TEAM} {ESTIMATE}",
            units.PercentUnit,
            f"({failed} or vector(0)) / ({every} > 0)",
            4,
            colors=((None, GREEN), (0.01, YELLOW), (0.05, ORANGE)),
        )
        .decimals(2)
        .no_value("no calls"),
        figure(
            "At another tier",
            f"Share of the spend over the time range at a service tier such as batch, flex or priority. {ESTIMATE}",
            units.PercentUnit,
            f"({gained(_TIERED)} or vector(0)) / ({_COST} > 0)",
            4,
        )
        .decimals(1)
        .no_value("nothing spent"),
    ]


def _caching() -> list[Builder[models.Panel]]:
    def tokens(components: str) -> str:
        return increased(f'{TOKENS}{{{FILTER}, {COMPONENT}=~"{components}"}}', FEATURE)

    return [
        cache_hit_rate(MODEL, "model", 8),
        cache_money(6),
        rows(
            "Caching by feature",
            "Input tokens over the time range, the share read from the cache, and what reading them saved: "
            f"a feature with many tokens and a small share is where caching is worth looking at. {ESTIMATE}",
            {FEATURE: "Feature"},
            [
                Column("Input tokens", units.Short, named(tokens("input|cache_read|cache_write"), FEATURE), 1),
                Column(
                    "From cache",
                    units.PercentUnit,
                    named(
                        f"({tokens('cache_read')} or 0 * {tokens('input')}) / "
                        f"({tokens('input|cache_read|cache_write')} > 0)",
                        FEATURE,
                    ),
                    0,
                ),
                Column(
                    "Saved",
                    units.Dollars,
                    named(increased(_SAVED, FEATURE), FEATURE),
                    2,
                ),
            ],
            10,
            9,
            sort="Input tokens",
        ),
    ]


def _tiers() -> list[Builder[models.Panel]]:
    tiered = increased(_TIERED, TIER)
    rest = f'label_replace({_COST} - ({increased(_TIERED)} or vector(0)), "{TIER}", "standard", "", "")'
    return [
        bars(
            "Spend by service tier",
            f"Over the time range; standard is everything that names no other tier. {ESTIMATE}",
            units.Dollars,
            f"sort_desc({tiered} or {rest})",
            f"{{{{{TIER}}}}}",
            6,
        )
        .decimals(2)
        .no_value("nothing spent"),
        bars(
            "If it could have waited: batch",
            "What the tokens of the time range would have cost less at the batch prices of their models, "
            "if all of those calls could wait up to a day. "
            f"Upper bound: calls that were batched or flex already are in it too. {_AT_LIST} {ESTIMATE}",
            units.Dollars,
            top(8, f"{_standard_less_batch()} > 0"),
            f"{{{{{MODEL}}}}}",
            9,
            colors=((None, GREEN),),
        )
        .decimals(2)
        .no_value("no model in use has batch prices"),
        bars(
            "If $whatif had answered",
            "What each model's tokens of the time range would have cost "
            "at the prices of the model chosen above as What if, less what they cost at their own; negative is dearer. "
            f"Another model counts and answers in other numbers of tokens. {_AT_LIST} {ESTIMATE}",
            units.Dollars,
            f"sort_desc({_if_other()})",
            f"{{{{{MODEL}}}}}",
            9,
            below_zero=True,
            colors=((None, ORANGE), (0, GREEN)),
        )
        .decimals(2)
        .no_value("no price of that model here: only models that are called are in the list"),
    ]


def _if_other() -> str:
    """USD by model: its tokens at its own standard prices less the same tokens at those of $whatif."""
    own = _price(_BY_MODEL, f'{CALL_FILTER}, {TIER}="standard"')
    other = _price(COMPONENT, f'{MODEL}=~"$whatif", {TIER}="standard"')
    tokens = increased(_TOKENS, _BY_MODEL)
    return (
        f"sum by ({MODEL}) ({tokens} / 1e6 * {own}) - "
        f"sum by ({MODEL}) ({tokens} / 1e6 * on ({COMPONENT}) group_left () {other} and {own})"
    )


def _waste() -> list[Builder[models.Panel]]:
    failed = f'{DURATION}_count{{{CALL_FILTER}, error_type!=""}}'
    return [
        graph(
            "Wasted, per hour",
            "USD an hour of calls that failed after using tokens, "
            f"and of streams that the application stopped reading, by reason and model. {RATE}",
            units.Dollars,
            8,
            ["mean", "max"],
        )
        .decimals(4)
        .with_target(
            query(
                f"{per_second(_WASTED, f'{MODEL}, costspan_reason')} * 3600", f"{{{{{MODEL}}}}} {{{{costspan_reason}}}}"
            )
        )
        .no_value("nothing wasted"),
        stacked(
            graph(
                "Failed calls by error, per minute",
                "A retry that the application makes is a call of its own here; "
                f"those that an SDK makes by itself are inside one call and cannot be seen. {NOT_BY_TEAM} {RATE}",
                units.Short,
                8,
                ["mean", "max"],
            )
        )
        .with_target(query(f"{per_second(failed, 'error_type')} * 60", "{{error_type}}"))
        .no_value("no call failed"),
        stacked(
            graph(
                "Spend by component, per hour",
                "USD an hour of input, cache reads, cache writes, output and other (tools, searches): "
                f"what a shorter prompt or a shorter answer would act on. {RATE}",
                units.Dollars,
                8,
                ["mean", "max"],
            )
        )
        .decimals(2)
        .with_target(query(f"{per_second(f'{COST}{{{FILTER}}}', COMPONENT)} * 3600", f"{{{{{COMPONENT}}}}}")),
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Efficiency",
        "Where money could be saved: caching, service tiers, other models, failures, answers that nobody read.",
        [
            (None, _top()),
            ("Caching", _caching()),
            ("Tiers and what if", _tiers()),
            ("Waste", _waste()),
        ],
        more=[
            variable(
                "whatif",
                "What if",
                f'label_values({_PRICE}{{{TIER}="standard"}}, {MODEL})',
                "The model whose prices the tokens are counted at in the panel that begins with If.",
            )
        ],
    )
