"""*Overview*: what is spent, against what budget, by whom, and whether the figures are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    BUDGET,
    BY_BUDGET,
    CALL_FILTER,
    CALLS,
    COMPONENT,
    COST,
    DURATION,
    ESTIMATE,
    EXACT,
    FEATURE,
    FILTER,
    FIRST_CHUNK,
    GREEN,
    JOB_FILTER,
    LEDGER,
    MODEL,
    NOT_BY_TEAM,
    ORANGE,
    PERIOD,
    PROVIDER,
    RATE,
    RED,
    STATUS,
    STATUS_COLORS,
    TEAM,
    TOKENS,
    UNPRICED,
    USED,
    YELLOW,
    Column,
    bars,
    columns,
    figure,
    figures,
    filter_link,
    gained,
    graph,
    increased,
    named,
    override,
    page,
    per_second,
    quantile,
    query,
    rows,
    spend_by,
    spent,
    stacked,
    to_date,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import stat, timeseries
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models import dashboard as models

UID: Final = "costspan-overview"

_DAYS_GONE: Final = "(vector(1) * (day_of_month() - 1) + hour() / 24 + minute() / 1440)"
_DAYS_OF_RULES: Final = "scalar(clamp_max(count_over_time(costspan:rules:running[7d]) / 1440, 7))"


def projected() -> str:
    """The month to date, and the pace of the last seven days (or as many as there are) for the rest of the month."""
    pace = f"sum(sum_over_time(costspan:cost_USD:delta1m{{{FILTER}}}[7d])) / {_DAYS_OF_RULES}"
    rest = f"scalar(days_in_month() - {_DAYS_GONE})"
    by_the_counter = f"{increased(f'{COST}{{{FILTER}}}')} * scalar(days_in_month()) * 86400 / $__range_s"
    return f"({to_date('costspan:cost_USD:month_to_date')} + {pace} * {rest}) or {by_the_counter}"


def _to_date(title: str, since: str, description: str, record: str) -> stat.Panel:
    return (
        figure(title, f"{description} {EXACT}", units.Dollars, to_date(record), 4)
        .time_from(since)
        .hide_time_override(True)
        .decimals(2)
        .no_value("nothing yet")
    )


def _top() -> list[Builder[models.Panel]]:
    unpriced = gained(f'{CALLS}{{{FILTER}, {STATUS}=~"{UNPRICED}"}}')
    with_usage = gained(f'{CALLS}{{{FILTER}, {STATUS}!="no_usage"}}')
    refused = gained(f'costspan_budget_decisions_total{{{JOB_FILTER}, decision="refused"}}')
    of_budget = f"max by ({BY_BUDGET})"
    spent_share = f"{of_budget} (costspan_budget_spent_USD{{{JOB_FILTER}}})"
    limit = f"({of_budget} (costspan_budget_limit_USD{{{JOB_FILTER}}}) > 0)"
    end = f"{of_budget} (costspan_budget_period_end_seconds{{{JOB_FILTER}}})"
    start = f"{of_budget} (costspan_budget_period_start_seconds{{{JOB_FILTER}}})"
    elapsed = f"clamp_min((time() - {start}) / ({end} - {start}), 0.02)"
    return [
        _to_date("Spend today", "now/d", "Since midnight UTC, as the budgets count.", "costspan:cost_USD:today"),
        _to_date("This week", "now/w", "Since Monday, midnight UTC.", "costspan:cost_USD:week_to_date"),
        _to_date(
            "Month to date",
            "now/M",
            "Since the first of the month, midnight UTC, as the budgets count.",
            "costspan:cost_USD:month_to_date",
        ),
        figure(
            "Projected",
            "The month to date, and for the rest of the month the pace of the last seven days (UTC). "
            "A straight line, and so an estimate, not a promise: a launch or a holiday is not in it. "
            "Without the recording rules: the pace of the time range.",
            units.Dollars,
            projected(),
            4,
        )
        .decimals(2)
        .no_value("nothing yet"),
        figure(
            "Unpriced",
            "Share of the calls over the time range whose cost is not fully known: "
            "model or provider not in the price book, a meter without a rate, or a usage that cannot be. "
            f"Their money is missing from every figure here. {ESTIMATE}",
            units.PercentUnit,
            f"({unpriced} or vector(0)) / ({with_usage} > 0)",
            4,
            colors=((None, GREEN), (0.0001, ORANGE), (0.05, RED)),
        )
        .decimals(2)
        .no_value("no calls"),
        figure(
            "Refused",
            "Calls over the time range that a budget with the policy block refused. "
            f"Such a budget stops short of its limit, so it may refuse below 100 %. Filtered by job alone. {ESTIMATE}",
            units.Short,
            f"{refused} or vector(0)",
            4,
            colors=((None, GREEN), (1, ORANGE)),
        )
        .decimals(0)
        .no_value("none"),
        bars(
            "Budgets: used",
            f"Spent share of each budget in its present period. {LEDGER}",
            units.PercentUnit,
            f"sort_desc({of_budget} (costspan_budget_utilization_ratio{{{JOB_FILTER}}}))",
            f"{{{{{BUDGET}}}}} · {{{{{PERIOD}}}}}",
            12,
            8,
            colors=USED,
        )
        .max(1)
        .decimals(0)
        .show_unfilled(True)
        .data_links([filter_link("costspan-budgets", "Show this budget", "budget", BUDGET)])
        .no_value("no budget configured"),
        bars(
            "Budgets: forecast at the period's end",
            "Share of the limit that will be spent when the period ends, if spending goes on as it did since it began. "
            f"{LEDGER}",
            units.PercentUnit,
            f"sort_desc({spent_share} / {elapsed} / {limit})",
            f"{{{{{BUDGET}}}}} · {{{{{PERIOD}}}}}",
            12,
            8,
            colors=((None, GREEN), (0.9, YELLOW), (1, ORANGE), (1.2, RED)),
        )
        .max(1)
        .decimals(0)
        .show_unfilled(True)
        .data_links([filter_link("costspan-budgets", "Show this budget", "budget", BUDGET)])
        .no_value("no budget configured"),
    ]


def _spend() -> list[Builder[models.Panel]]:
    week = spent(MODEL, "7d")
    before = spent(MODEL, "7d", ago=" offset 7d")
    change = f"(({week}) or 0 * ({before})) - (({before}) or 0 * ({week}))"
    return [
        stacked(
            graph(
                "Spend over time, per hour",
                f"The pace of spending at each moment, in USD per hour, by provider. {RATE}",
                units.Dollars,
                24,
            )
        )
        .decimals(2)
        .with_target(query(f"{per_second(f'{COST}{{{FILTER}}}', PROVIDER)} * 3600", f"{{{{{PROVIDER}}}}}")),
        spend_by("Spend by provider", "Cost by provider", PROVIDER).data_links(
            [filter_link(UID, "Show this provider alone", "provider", PROVIDER)]
        ),
        spend_by("Spend by model", "Cost by the model that was asked for", MODEL).data_links(
            [
                filter_link(UID, "Show this model alone", "model", MODEL),
                filter_link("costspan-models", "Compare models", "model", MODEL),
            ]
        ),
        spend_by(
            "Spend by feature",
            "Cost by the feature that costspan.track(feature=...) named; (none) is what no feature was named for",
            FEATURE,
        ).data_links([filter_link("costspan-allocation", "Show this feature alone", "feature", FEATURE)]),
        spend_by(
            "Spend by team",
            "Cost by the team that costspan.track(team=...) named; (none) is what no team was named for",
            TEAM,
        ).data_links([filter_link("costspan-allocation", "Show this team alone", "team", TEAM)]),
        columns(
            graph(
                "Spend per day, 30 days",
                "Spend of each day (UTC) that is over, by provider, whatever the time range; "
                f"a column stands at the midnight that ends its day. {EXACT}",
                units.Dollars,
                14,
                ["mean", "max"],
            )
        )
        .time_from("30d")
        .hide_time_override(True)
        .interval("1d")
        .decimals(2)
        .with_target(query(named(spent(PROVIDER, "1d"), PROVIDER), f"{{{{{PROVIDER}}}}}"))
        .no_value("nothing spent"),
        rows(
            "Top movers, this week against the one before",
            f"Models whose spend changed most: the last seven days, the seven before, and the difference. {EXACT}",
            {MODEL: "Model"},
            [
                Column("7 days", units.Dollars, week, 2),
                Column("7 before", units.Dollars, before, 2),
                Column("Change", units.Dollars, change, 2, (None, GREEN), (0, "text"), (0.01, ORANGE)),
            ],
            10,
            9,
            sort="Change",
        ),
    ]


def by_status(width: int, height: int = 9) -> timeseries.Panel:
    """Calls by what is known of their cost."""
    panel = stacked(
        graph(
            "Calls by price status, per minute",
            "Calls a minute by what is known of their cost. "
            "Only priced, free and estimated calls are wholly in the totals; "
            f"no_usage are calls that reported none, as failed ones do. {RATE}",
            units.Short,
            width,
            ["mean", "max"],
            height=height,
        )
    ).with_target(query(f"{per_second(f'{CALLS}{{{FILTER}}}', STATUS)} * 60", f"{{{{{STATUS}}}}}"))
    for status, color in STATUS_COLORS.items():
        panel.override_by_name(*override(status, color))
    return panel


def cache_hit_rate(by: str, whom: str, width: int) -> timeseries.Panel:
    """Share of input tokens read from the provider's cache."""

    def tokens(components: str) -> str:
        return per_second(f'{TOKENS}{{{FILTER}, {COMPONENT}=~"{components}"}}', by)

    return (
        graph(
            "Cache hit rate",
            f"Share of input tokens read from the provider's prompt cache, by {whom}: "
            f"cache reads over all input tokens, cache writes included. Only where there are any. {RATE}",
            units.PercentUnit,
            width,
            ["mean", "lastNotNull"],
        )
        .max(1)
        .with_target(query(f"{tokens('cache_read')} / ({tokens('input|cache_read|cache_write')} > 0)", f"{{{{{by}}}}}"))
        .no_value("no cached tokens")
    )


def cache_money(width: int) -> stat.Panel:
    """What caching saved, cost, and the balance."""
    saved = increased(f"costspan_cache_saved_USD_total{{{FILTER}}}")
    premium = increased(f"costspan_cache_write_premium_USD_total{{{FILTER}}}")
    return (
        figures(
            "Money saved by caching",
            "Cached tokens at the input rate less what they cost; "
            f"what cache writes cost above the input rate; and the balance of the two, over the time range. {ESTIMATE}",
            units.Dollars,
            [
                ("Saved by reads", GREEN, saved),
                ("Premium for writes", ORANGE, premium),
                ("Net", GREEN, f"({saved} or vector(0)) - ({premium} or vector(0))"),
            ],
            width,
            9,
        )
        .decimals(2)
        .no_value("no cached tokens")
    )


def quantiles(title: str, description: str, histogram: str, width: int) -> timeseries.Panel:
    """Median, 95th and 99th percentile of a histogram of seconds."""
    return (
        graph(
            title,
            f"{description} Median, 95th and 99th percentile. {NOT_BY_TEAM}",
            units.Seconds,
            width,
            ["mean", "lastNotNull"],
            few=True,
        )
        .with_target(query(quantile(0.5, histogram), "p50", ref="A"))
        .with_target(query(quantile(0.95, histogram), "p95", ref="B"))
        .with_target(query(quantile(0.99, histogram), "p99", ref="C"))
    )


def error_rate(by: str, whom: str, width: int) -> timeseries.Panel:
    """Share of calls that failed."""
    failed = per_second(f'{DURATION}_count{{{CALL_FILTER}, error_type!=""}}', by)
    every = per_second(f"{DURATION}_count{{{CALL_FILTER}}}", by)
    return (
        graph(
            "Error rate",
            f"Share of calls that failed, by {whom}: HTTP errors, time-outs, broken streams. {NOT_BY_TEAM}",
            units.PercentUnit,
            width,
        )
        .axis_soft_max(0.05)
        .with_target(query(f"({failed} or {every} * 0) / ({every} > 0)", f"{{{{{by}}}}}"))
    )


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Overview",
        "What LLM calls cost: today, this week and month, against budgets, by provider, model, feature and team; "
        "caching, latency, errors.",
        [
            (None, _top()),
            ("Spend", _spend()),
            (
                "Calls and caching",
                [by_status(8), cache_hit_rate(PROVIDER, "provider", 8), cache_money(8)],
            ),
            (
                "Latency and errors",
                [
                    quantiles("Latency", "Duration of a call, a stream to its last chunk.", DURATION, 8),
                    quantiles(
                        "Time to first chunk", "Streamed calls: time until the first chunk arrived.", FIRST_CHUNK, 8
                    ).no_value("no streamed calls"),
                    error_rate(PROVIDER, "provider", 8),
                ],
            ),
        ],
    )
