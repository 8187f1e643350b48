"""*Features, teams & tasks*: who spends, and how much of it is nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    BILLED,
    CALLS,
    COST,
    ESTIMATE,
    EXACT,
    FEATURE,
    FILTER,
    GREEN,
    ORANGE,
    RATE,
    TASK,
    TEAM,
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
    spend_by,
    spent,
    stacked,
    top,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import bargauge
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models import dashboard as models

UID: Final = "costspan-allocation"

_COST: Final = f"{COST}{{{FILTER}}}"


def _nobodys(label: str, what: str) -> Builder[models.Panel]:
    none = spent("", more=f', {label}=""')
    return (
        figure(
            f"No {what}",
            f"Share of the spend over the time range that costspan.track({what}=...) named no {what} for. {EXACT}",
            units.PercentUnit,
            f"({none} or vector(0)) / ({spent('')} > 0)",
            4,
            colors=((None, GREEN), (0.05, YELLOW), (0.25, ORANGE)),
        )
        .decimals(1)
        .no_value("nothing spent")
    )


def _top() -> list[Builder[models.Panel]]:
    return [
        figure("Spend", f"Over the time range. {EXACT}", units.Dollars, spent(""), 4)
        .decimals(2)
        .no_value("nothing spent"),
        figure(
            "Calls",
            f"Model calls over the time range, priced or not. {ESTIMATE}",
            units.Short,
            gained(f"{CALLS}{{{FILTER}}}"),
            4,
        )
        .decimals(1)
        .no_value("no calls"),
        figure(
            "Cost per call",
            f"Over the time range, of calls that have a cost. {ESTIMATE}",
            units.Dollars,
            f"{increased(_COST)} / ({increased(BILLED)} > 0)",
            4,
        )
        .decimals(4)
        .no_value("no calls"),
        _nobodys(TEAM, "team"),
        _nobodys(FEATURE, "feature"),
        _nobodys(TASK, "task"),
    ]


def _allocation() -> list[Builder[models.Panel]]:
    by = f"{TEAM}, {FEATURE}, {TASK}"
    a_call = f"{increased(_COST, by)} / ({increased(BILLED, by)} > 0)"
    return [
        spend_by("By team", "Cost by the team that costspan.track(team=...) named", TEAM, 8),
        spend_by("By feature", "Cost by the feature that costspan.track(feature=...) named", FEATURE, 8),
        spend_by("By task", "Cost by the task that costspan.track(task=...) named", TASK, 8),
        rows(
            "Top spenders",
            "The 20 highest of team, feature and task together, over the time range: cost and share of all. "
            f"{EXACT} Calls that have a cost and what one costs are estimates with increase().",
            {TEAM: "Team", FEATURE: "Feature", TASK: "Task"},
            [
                Column("Cost", units.Dollars, top(20, named(spent(by), TEAM, FEATURE, TASK)), 2),
                Column(
                    "Share",
                    units.PercentUnit,
                    named(f"({spent(by)}) / on () group_left () ({spent('')} > 0)", TEAM, FEATURE, TASK),
                    1,
                ),
                Column("Calls", units.Short, named(gained(BILLED, by), TEAM, FEATURE, TASK), 0),
                Column("A call", units.Dollars, named(a_call, TEAM, FEATURE, TASK), 5),
            ],
            24,
            11,
            sort="Cost",
        ),
    ]


def _course() -> list[Builder[models.Panel]]:
    def per_hour(title: str, label: str) -> Builder[models.Panel]:
        return (
            stacked(graph(title, f"USD an hour. {RATE}", units.Dollars, 12))
            .decimals(2)
            .with_target(query(named(f"{per_second(_COST, label)} * 3600", label), f"{{{{{label}}}}}"))
        )

    def a_call(title: str, label: str) -> Builder[models.Panel]:
        cost, billed = per_second(_COST, label), per_second(BILLED, label)
        return (
            graph(title, f"What a call costs on average; calls that have a cost. {RATE}", units.Dollars, 12)
            .decimals(4)
            .with_target(query(named(f"{cost} / ({billed} > 0)", label), f"{{{{{label}}}}}"))
        )

    return [
        per_hour("Spend by team, per hour", TEAM),
        per_hour("Spend by feature, per hour", FEATURE),
        a_call("Cost per call by feature", FEATURE),
        a_call("Cost per call by task", TASK),
    ]


def _people() -> list[Builder[models.Panel]]:
    def of(title: str, label: str, attribute: str) -> bargauge.Panel:
        named_cost = f'{COST}{{{FILTER}, {label}!=""}}'
        return (
            bars(
                title,
                f"The ten highest over the time range. Needs the label {label}: "
                f"add {attribute} to COSTSPAN_DIMENSIONS (and COSTSPAN_USER_KEY to hash user ids), "
                f"mind the number of values it may have. {ESTIMATE}",
                units.Dollars,
                top(10, increased(named_cost, label)),
                f"{{{{{label}}}}}",
                12,
                10,
            )
            .decimals(2)
            .no_value(f"Not a label here: add {attribute} to COSTSPAN_DIMENSIONS")
        )

    return [of("Top users", "user_id", "user.id"), of("Top sessions", "session_id", "session.id")]


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Features, teams & tasks",
        "Who spends: by team, feature, task, user and session; what is nobody's; what a request costs.",
        [
            (None, _top()),
            ("Allocation", _allocation()),
            ("Course", _course()),
            ("Users and sessions", _people()),
        ],
    )
