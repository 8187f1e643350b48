"""*Budgets*: what each has spent, holds and will spend, when it runs out, and what it said to calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    BLUE,
    BUDGET,
    BY_BUDGET,
    ESTIMATE,
    GREEN,
    JOB_FILTER,
    LEDGER,
    ORANGE,
    PERIOD,
    RED,
    USED,
    YELLOW,
    Column,
    all_or_some,
    bars,
    figure,
    gained,
    graph,
    override,
    page,
    per_second,
    query,
    rows,
    stacked,
    steps,
    variable,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

UID: Final = "costspan-budgets"

_FILTER: Final = f'{JOB_FILTER}, {BUDGET}=~"$budget"'
_LEGEND: Final = f"{{{{{BUDGET}}}}} · {{{{{PERIOD}}}}}"
_NAME: Final = f"{{{{{BUDGET}}}}}"
_PACE: Final = "6h"

DECISIONS: Final = {
    "allowed": GREEN,
    "warned": YELLOW,
    "downgraded": BLUE,
    "bypassed": ORANGE,
    "refused": RED,
}


def _of(gauge: str) -> str:
    """A gauge of the ledger, which every process that shares the budget reports."""
    return f"max by ({BY_BUDGET}) (costspan_budget_{gauge}{{{_FILTER}}})"


def _over_time(gauge: str) -> str:
    """The same for a graph: one line a budget, whichever its period was."""
    return f"max by ({BUDGET}) (costspan_budget_{gauge}{{{_FILTER}}})"


def _pace() -> str:
    """USD per second that a budget spends now: the slope of the last hours within its present period."""
    return f"clamp_min(max by ({BY_BUDGET}) (deriv(costspan_budget_spent_USD{{{_FILTER}}}[{_PACE}])), 0)"


def _forecast() -> str:
    left = f"clamp_min({_of('period_end_seconds')} - time(), 0)"
    return f"({_of('spent_USD')} + {_pace()} * {left}) / ({_of('limit_USD')} > 0)"


def _top() -> list[Builder[models.Panel]]:
    used, limit = _of("utilization_ratio"), _of("limit_USD")
    refused = gained(f'costspan_budget_decisions_total{{{_FILTER}, decision="refused"}}')
    return [
        figure("Budgets", f"Budgets that report now. {LEDGER}", units.Short, f"count({limit})", 4).no_value(
            "no budget configured"
        ),
        figure(
            "At or over their limit",
            f"Budgets that are used up. {LEDGER}",
            units.Short,
            f"count({used} >= 1) or vector(0)",
            5,
            colors=((None, GREEN), (1, RED)),
        ),
        figure(
            "Will be over",
            f"Budgets that will pass their limit before their period ends, at the pace of the last {_PACE}, or have. "
            f"{LEDGER}",
            units.Short,
            f"count({_forecast()} > 1) or vector(0)",
            5,
            colors=((None, GREEN), (1, ORANGE)),
        ),
        figure(
            "Refused",
            f"Calls over the time range that a budget refused. {ESTIMATE}",
            units.Short,
            f"{refused} or vector(0)",
            5,
            colors=((None, GREEN), (1, ORANGE)),
        ).decimals(0),
        figure(
            "Held",
            f"Reserved by calls under way, over all budgets. {LEDGER}",
            units.Dollars,
            f"sum({_of('held_USD')})",
            5,
        ).no_value("nothing"),
        rows(
            "Every budget",
            "Limit, spent, held by calls under way, what remains, the used share, "
            f"the forecast share at the period's end and the time until the limit at the pace of the last {_PACE}, "
            f"and the time left of the period. A budget that spends nothing now has no time to its limit. {LEDGER}",
            {BUDGET: "Budget", PERIOD: "Period"},
            [
                Column("Limit", units.Dollars, limit),
                Column("Spent", units.Dollars, _of("spent_USD")),
                Column("Held", units.Dollars, _of("held_USD")),
                Column("Remaining", units.Dollars, _of("remaining_USD")),
                Column("Used", units.PercentUnit, used, 1, *USED),
                Column(
                    "Forecast", units.PercentUnit, _forecast(), 0, (None, GREEN), (0.9, YELLOW), (1, ORANGE), (1.2, RED)
                ),
                Column("Runs out in", units.Seconds, f"({_of('remaining_USD')} / ({_pace()} > 0)) < 366 * 86400", 1),
                Column("Period ends in", units.Seconds, f"{_of('period_end_seconds')} - time() > 0", 1),
            ],
            24,
            9,
            sort="Used",
        ),
    ]


def _course() -> list[Builder[models.Panel]]:
    return [
        graph(
            "Used share",
            f"Spent share of each budget; a calendar budget begins anew with each period. {LEDGER}",
            units.PercentUnit,
            12,
            ["max", "lastNotNull"],
        )
        .with_target(query(_over_time("utilization_ratio"), _NAME))
        .thresholds(steps((None, "transparent"), (1, RED)))
        .no_value("no budget configured"),
        graph(
            "Burn, per hour",
            "How fast each budget is being spent: the slope of its spent amount over an hour, as the ledger has it.",
            units.Dollars,
            12,
            ["mean", "max"],
        )
        .decimals(2)
        .with_target(
            query(
                f"clamp_min(max by ({BUDGET}) (deriv(costspan_budget_spent_USD{{{_FILTER}}}[1h])), 0) * 3600",
                _NAME,
            )
        )
        .no_value("no budget configured"),
        graph(
            "Spent and limit",
            f"Spent in each period, and dashed its limit, which may change. {LEDGER}",
            units.Dollars,
            12,
            ["lastNotNull"],
        )
        .decimals(2)
        .with_target(query(_over_time("spent_USD"), _NAME, ref="A"))
        .with_target(query(_over_time("limit_USD"), f"{_NAME} limit", ref="B"))
        .override_by_regexp(
            "/ limit$/",
            [
                models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 8]}),
                models.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                models.DynamicConfigValue(
                    id_val="custom.hideFrom", value={"legend": True, "tooltip": False, "viz": False}
                ),
            ],
        )
        .no_value("no budget configured"),
        graph(
            "Held by calls under way",
            "Reserved for calls that have not ended. Holds that stay are calls that never came back: "
            f"they are charged at their estimate when they expire. {LEDGER}",
            units.Dollars,
            12,
            ["max", "lastNotNull"],
        )
        .with_target(query(_over_time("held_USD"), _NAME))
        .no_value("no budget configured"),
    ]


def _said() -> list[Builder[models.Panel]]:
    decisions = stacked(
        graph(
            "Decisions, per minute",
            "What budgets said to calls: "
            "allowed, warned (let through above the limit), downgraded (another model was called), "
            "bypassed (a critical call passed), refused. An estimate with rate().",
            units.Short,
            8,
            ["mean", "max"],
        )
    ).with_target(
        query(f"{per_second(f'costspan_budget_decisions_total{{{_FILTER}}}', 'decision')} * 60", "{{decision}}")
    )
    for decision, color in DECISIONS.items():
        decisions.override_by_name(*override(decision, color))
    return [
        decisions.no_value("no budget configured"),
        bars(
            "Events",
            f"What budgets told over the time range: thresholds, limits, fast burning, spikes. {ESTIMATE}",
            units.Short,
            f"sort_desc({gained(f'costspan_budget_events_total{{{_FILTER}}}', f'{BUDGET}, type')} >= 1)",
            f"{{{{{BUDGET}}}}} · {{{{type}}}}",
            8,
        )
        .decimals(0)
        .no_value("none"),
        bars(
            "Never settled",
            "Part of what is spent: estimates of calls that never told what they cost, "
            f"because their process died or the answer was lost. {LEDGER}",
            units.Dollars,
            f"sort_desc({_of('unsettled_USD')})",
            _LEGEND,
            8,
            colors=((None, BLUE),),
        ).no_value("nothing"),
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Budgets",
        "Every budget: spent, held, remaining, burn, forecast, time to its limit, and what it said to calls.",
        [(None, _top()), ("Course", _course()), ("Decisions and events", _said())],
        by_call=False,
        more=[
            all_or_some(
                variable(
                    "budget",
                    "Budget",
                    f"label_values(costspan_budget_limit_USD{{{JOB_FILTER}}}, {BUDGET})",
                    "Name of the budget.",
                )
            )
        ],
    )
