"""*costspan's own health*: whether what the other dashboards show is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.models import units

from grafana.generator.kit import (
    CALLS,
    ESTIMATE,
    FILTER,
    GREEN,
    JOB_FILTER,
    MODEL,
    ORANGE,
    PROVIDER,
    RATE,
    STATUS,
    UNPRICED,
    YELLOW,
    Column,
    bars,
    figure,
    gained,
    graph,
    page,
    per_second,
    query,
    rows,
    stacked,
)
from grafana.generator.overview import by_status

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models import dashboard as models

UID: Final = "costspan-health"

_NO_COLLECTOR: Final = "no costspan collector"
_AGE: Final = f"costspan_price_book_age_seconds{{{JOB_FILTER}}}"
_ERRORS: Final = f"costspan_internal_errors_total{{{JOB_FILTER}}}"
_STORE: Final = f"costspan_budget_store_failures_total{{{JOB_FILTER}}}"


def _count(title: str, what: str, series: str, width: int = 4) -> Builder[models.Panel]:
    return figure(
        title,
        f"{what} over the time range. {ESTIMATE}",
        units.Short,
        f"{gained(series)} or vector(0)",
        width,
        colors=((None, GREEN), (1, ORANGE)),
    ).decimals(0)


def _top() -> list[Builder[models.Panel]]:
    overflow = (
        f'count({CALLS}{{{JOB_FILTER}, {MODEL}="_overflow"}} or {CALLS}{{{JOB_FILTER}, otel_metric_overflow="true"}})'
    )
    return [
        figure("Processes", "That report now.", units.Short, f"count({_AGE})", 4).no_value("none"),
        figure(
            "Newest price",
            "Age of the newest price in the price book of the process with the oldest book. "
            "Providers change prices every few weeks: costspan prices update, or a newer release.",
            units.Seconds,
            f"max({_AGE})",
            4,
            colors=((None, GREEN), (45 * 86400, YELLOW), (90 * 86400, ORANGE)),
        )
        .decimals(0)
        .no_value("no process reports"),
        _count("Unpriced calls", "Calls whose cost is not fully known", f'{CALLS}{{{FILTER}, {STATUS}=~"{UNPRICED}"}}'),
        _count("Internal errors", "Errors inside costspan. No call of yours was affected", _ERRORS),
        _count("Store failures", "Steps that the store of the budgets failed at", _STORE),
        figure(
            "Overflows",
            "Series of calls that are counted under _overflow, "
            "because a label has too many values (COSTSPAN_MAX_LABEL_VALUES) or a metric too many series. "
            "The money is whole; whose it is, is not.",
            units.Short,
            f"{overflow} or vector(0)",
            4,
            colors=((None, GREEN), (1, ORANGE)),
        ),
    ]


def _prices() -> list[Builder[models.Panel]]:
    by = f"job, {PROVIDER}, {MODEL}, {STATUS}"
    unpriced = gained(f'{CALLS}{{{FILTER}, {STATUS}=~"{UNPRICED}"}}', by)
    return [
        rows(
            "What has no price",
            "Calls over the time range whose cost is not fully known, by model, and why. "
            "Add the price to a price file, or a newer price book: "
            f"costspan explain PROVIDER MODEL tells what is known. {ESTIMATE}",
            {"job": "Job", PROVIDER: "Provider", MODEL: "Model", STATUS: "Status"},
            [
                Column("Calls", units.Short, f"{unpriced} > 0", 0),
            ],
            12,
            9,
            sort="Calls",
        ),
        by_status(12),
        graph(
            "Age of the newest price, by job",
            "It falls when a newer price book comes, by an update or a newer release.",
            units.Seconds,
            12,
            ["lastNotNull"],
        ).with_target(query(f"max by (job) ({_AGE})", "{{job}}")),
        stacked(
            graph(
                "Doubtful usage, per minute",
                "Calls a minute whose counts contradict each other (inconsistent), "
                f"or whose counts or provider were guessed, as of spans that other libraries make. {RATE}",
                units.Short,
                12,
                ["mean", "max"],
            )
        )
        .with_target(query(f"{per_second(f'costspan_usage_problems_total{{{FILTER}}}', 'kind')} * 60", "{{kind}}"))
        .no_value("none"),
    ]


def _ours() -> list[Builder[models.Panel]]:
    return [
        bars(
            "Internal errors by place",
            "Errors inside costspan over the time range, by job and place; "
            f"each place is logged once with its traceback. {ESTIMATE}",
            units.Short,
            f"sort_desc({gained(_ERRORS, 'job, costspan_where')} > 0)",
            "{{job}} · {{costspan_where}}",
            8,
            colors=((None, ORANGE),),
        )
        .decimals(0)
        .no_value("none"),
        graph(
            "Store failures, per minute",
            "Steps a minute that the store of the budgets failed at, by job. "
            f"What a budget does then is its on_store_error: allow, deny or local. {RATE}",
            units.Short,
            8,
            ["max", "lastNotNull"],
        )
        .decimals(2)
        .with_target(query(f"{per_second(_STORE, 'job')} * 60", "{{job}}"))
        .no_value("no budget has a store"),
        graph(
            "Series by metric",
            "Series that the jobs make of the costspan metrics that have the most. "
            "The bound is 1,900 a metric and process.",
            units.Short,
            8,
            ["max", "lastNotNull"],
        )
        .decimals(0)
        .with_target(query(f"count(costspan_cost_USD_total{{{JOB_FILTER}}})", "cost", ref="A"))
        .with_target(query(f"count(costspan_tokens_total{{{JOB_FILTER}}})", "tokens", ref="B"))
        .with_target(query(f"count({CALLS}{{{JOB_FILTER}}})", "calls", ref="C"))
        .with_target(
            query(f"count(gen_ai_client_operation_duration_seconds_bucket{{{JOB_FILTER}}})", "duration", ref="D")
        ),
    ]


def _collectors() -> list[Builder[models.Panel]]:
    spans = per_second(f"costspan_collector_spans_total{{{JOB_FILTER}}}", "costspan_outcome")
    failed = f'costspan_collector_requests_total{{{JOB_FILTER}, costspan_outcome!="accepted"}}'
    return [
        stacked(
            graph(
                "Spans, per minute",
                "What the collectors made of the spans that they were sent: priced, unpriced, rollup (another span has "
                f"the cost), settled (it had its price), repeated (sent again), no_call. {RATE}",
                units.Short,
                8,
                ["mean", "max"],
            )
        )
        .with_target(query(f"{spans} * 60", "{{costspan_outcome}}"))
        .no_value(_NO_COLLECTOR),
        graph(
            "Requests not accepted, per minute",
            "later: the sender was told to send again, since what is behind the collector is away or slow; "
            f"rejected: it was told not to. {RATE}",
            units.Short,
            8,
            ["mean", "max"],
        )
        .with_target(
            query(
                f"{per_second(failed, 'costspan_signal, costspan_outcome')} * 60",
                "{{costspan_signal}} · {{costspan_outcome}}",
            )
        )
        .no_value("none"),
        graph(
            "Requests in hand",
            "Bytes of the requests that are being worked on, by job. "
            "At --max-in-flight of each worker, senders are told to wait.",
            units.BytesIEC,
            8,
            ["mean", "max"],
        )
        .with_target(query(f"sum by (job) (costspan_collector_in_flight_bytes{{{JOB_FILTER}}})", "{{job}}"))
        .no_value(_NO_COLLECTOR),
    ]


def dashboard() -> dict[str, Any]:
    """The dashboard, as its file."""
    return page(
        UID,
        "Health",
        "costspan's own health: whether every call has a price and every process reports, and what went wrong inside.",
        [(None, _top()), ("Prices and usage", _prices()), ("Inside", _ours()), ("Collectors", _collectors())],
    )
