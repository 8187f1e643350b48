"""Writes dashboards/overview.json: `python grafana/generate.py`. The JSON is committed; a test holds the two together.

Development only: needs grafana-foundation-sdk, which costspan itself never imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

DASHBOARDS: Final = Path(__file__).parent / "dashboards"
DOCS: Final = "https://github.com/costspan/costspan/blob/main/docs/dashboards.md"
UID: Final = "costspan-overview"

SOURCE: Final = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

PROVIDER: Final = "gen_ai_provider_name"
MODEL: Final = "gen_ai_request_model"
TEAM: Final = "costspan_team"
FEATURE: Final = "costspan_feature"
STATUS: Final = "costspan_cost_status"

# The conventions' histograms carry no attribution, so they filter by these alone.
CALL_FILTER: Final = f'job=~"$job", {PROVIDER}=~"$provider", {MODEL}=~"$model"'
FILTER: Final = f'{CALL_FILTER}, {TEAM}=~"$team", {FEATURE}=~"$feature"'

# Statuses of calls whose cost is missing from the totals, in whole or in part.
UNPRICED: Final = "unknown_model|unknown_provider|partial|invalid_usage"

EXACT: Final = (
    "Added up minute by minute by the recording rules. Without the rules it is an estimate with increase(), "
    "which misses what a process spent before it was first scraped."
)
ESTIMATE: Final = "An estimate with increase(), which misses what happened before a process was first scraped."
NOT_BY_TEAM: Final = "Not filtered by team and feature, which the conventions' histograms do not carry."

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
STATUS_COLORS: Final = {
    "priced": "green",
    "free": "light-blue",
    "estimated": "yellow",
    "partial": "orange",
    "no_usage": "text",
    "unknown_model": "red",
    "unknown_provider": "dark-red",
    "invalid_usage": "purple",
}


def query(expr: str, legend: str = "", *, ref: str = "A", instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref).datasource(SOURCE)
    return target.instant() if instant else target.range()


def spent(label: str) -> str:
    """Spend over the dashboard's range by one label: exact where the rules run, else an estimate."""
    total = (
        f"sum by ({label}) (sum_over_time(costspan:cost_USD:delta1m{{{FILTER}}}[$__range]))"
        f" or sum by ({label}) (increase(costspan_cost_USD_total{{{FILTER}}}[$__range]))"
    )
    named = f'label_replace({total}, "{label}", "(none)", "{label}", "")'
    return f"sort_desc(topk(8, {named}))"


def to_date(record: str) -> str:
    return f"sum({record}{{{FILTER}}}) or sum(increase(costspan_cost_USD_total{{{FILTER}}}[$__range]))"


def count(series: str) -> str:
    """What a counter gained in the range. Its first event makes the series, which increase() alone would not count."""
    return f"sum(increase({series}[$__range]) > 0 or ({series} unless {series} offset $__range))"


def calls(status: str) -> str:
    return count(f"costspan_calls_total{{{FILTER}, {STATUS}{status}}}")


def quantile(q: float, histogram: str) -> str:
    return f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket{{{CALL_FILTER}}}[$__rate_interval])))"


def steps(*values: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in values])
    )


def fixed(color: str) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(color)


def last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def figure(title: str, description: str, unit: str, expr: str, width: int) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .with_target(query(expr, instant=True))
        .reduce_options(last_value())
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .height(6)
        .span(width)
    )


def bars(title: str, description: str, unit: str, expr: str, label: str, width: int, height: int) -> bargauge.Panel:
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .datasource(SOURCE)
        .with_target(query(expr, f"{{{{{label}}}}}", instant=True))
        .reduce_options(last_value())
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .value_mode(common_models.BarGaugeValueMode.TEXT)
        .show_unfilled(False)
        # Beside the bars, names longer than two fifths of the panel would be cut: model names are.
        .name_placement(common_models.BarGaugeNamePlacement.TOP)
        .text(common.VizTextDisplayOptions().title_size(12).value_size(14))
        .sizing(common_models.BarGaugeSizing.MANUAL)
        .min_viz_height(34)
        .max_viz_height(40)
        .color_scheme(fixed(BLUE))
        .height(height)
        .span(width)
    )


def spend_by(title: str, what: str, label: str, no_value: str) -> bargauge.Panel:
    return (
        bars(
            title, f"{what}, the eight highest, over the time range. {EXACT}", units.Dollars, spent(label), label, 6, 10
        )
        .decimals(2)
        .no_value(no_value)
    )


def graph(
    title: str,
    description: str,
    unit: str,
    width: int,
    calcs: list[str],
    legend: common_models.LegendPlacement = common_models.LegendPlacement.BOTTOM,
) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .datasource(SOURCE)
        .interval("1m")
        .line_width(2)
        .fill_opacity(10)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(legend)
            .calcs(calcs)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .height(9)
        .span(width)
    )


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    return (
        panel.fill_opacity(40).line_width(1).stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    )


def filter_link(title: str, variable: str, label: str) -> dashboard.DashboardLink:
    link = f"/d/{UID}?${{__url_time_range}}&var-{variable}=${{__field.labels.{label}}}"
    return dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(link)


def top() -> list[Builder[models.Panel]]:
    refused = 'costspan_budget_decisions_total{job=~"$job", decision="refused"}'
    unpriced, with_usage = calls(f'=~"{UNPRICED}"'), calls('!="no_usage"')
    share = f"({unpriced} or vector(0)) / ({with_usage} > 0)"
    by_budget = "costspan_budget_name, costspan_budget_period"
    return [
        figure(
            "Spend today",
            f"Since midnight UTC, as the budgets count. {EXACT}",
            units.Dollars,
            to_date("costspan:cost_USD:today"),
            5,
        )
        .time_from("now/d")
        .hide_time_override(True)
        .decimals(2)
        .color_scheme(fixed(BLUE))
        .no_value("nothing yet"),
        figure(
            "Month to date",
            f"Spend since the first of the month, midnight UTC, as the budgets count. {EXACT}",
            units.Dollars,
            to_date("costspan:cost_USD:month_to_date"),
            5,
        )
        .time_from("now/M")
        .hide_time_override(True)
        .decimals(2)
        .color_scheme(fixed(BLUE))
        .no_value("nothing yet"),
        bars(
            "Budget utilization",
            "Spent share of each budget in its present period, from the budgets' own ledger. Filtered by job alone.",
            units.PercentUnit,
            f'sort_desc(max by ({by_budget}) (costspan_budget_utilization_ratio{{job=~"$job"}}))',
            "costspan_budget_name}} · {{costspan_budget_period",
            8,
            6,
        )
        .max(1)
        .decimals(0)
        .show_unfilled(True)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(steps((None, GREEN), (0.75, YELLOW), (0.9, ORANGE), (1, RED)))
        .no_value("no budget configured"),
        figure(
            "Unpriced",
            "Share of the calls over the time range whose cost is not fully known: model or provider not in the price "
            "book, a meter without a rate, or a usage that cannot be. Their money is missing from every figure here. "
            f"{ESTIMATE}",
            units.PercentUnit,
            share,
            3,
        )
        .decimals(1)
        .thresholds(steps((None, GREEN), (0.0001, ORANGE), (0.05, RED)))
        .no_value("no calls"),
        figure(
            "Refused",
            "Calls over the time range that a budget with the policy block refused. Such a budget stops short of its "
            f"limit, so it may refuse below 100 %. Filtered by job alone. {ESTIMATE}",
            units.Short,
            f"{count(refused)} or vector(0)",
            3,
        )
        .decimals(0)
        .thresholds(steps((None, GREEN), (1, ORANGE)))
        .no_value("none"),
    ]


def spend() -> list[Builder[models.Panel]]:
    per_hour = f"sum by ({PROVIDER}) (rate(costspan_cost_USD_total{{{FILTER}}}[$__rate_interval])) * 3600"
    return [
        stacked(
            graph(
                "Spend over time, per hour",
                "The pace of spending at each moment, in USD per hour, by provider. An estimate with rate().",
                units.Dollars,
                24,
                ["mean", "max", "lastNotNull"],
                common_models.LegendPlacement.RIGHT,
            )
        )
        .decimals(2)
        .with_target(query(per_hour, f"{{{{{PROVIDER}}}}}")),
        spend_by("Spend by provider", "Cost by provider", PROVIDER, "nothing spent").data_links(
            [filter_link("Show this provider alone", "provider", PROVIDER)]
        ),
        spend_by("Spend by model", "Cost by the model that was asked for", MODEL, "nothing spent").data_links(
            [filter_link("Show this model alone", "model", MODEL)]
        ),
        spend_by(
            "Spend by feature",
            "Cost by the feature that costspan.track(feature=...) named; (none) is what no feature was named for",
            FEATURE,
            "nothing spent",
        ),
        spend_by(
            "Spend by team",
            "Cost by the team that costspan.track(team=...) named; (none) is what no team was named for",
            TEAM,
            "nothing spent",
        ),
    ]


def calls_and_caching() -> list[Builder[models.Panel]]:
    by_status = stacked(
        graph(
            "Calls by price status, per minute",
            "Calls a minute by what is known of their cost. Only priced, free and estimated calls are wholly in the "
            "totals; no_usage are calls that reported none, as failed ones do. An estimate with rate().",
            units.Short,
            8,
            ["mean", "max"],
        )
    ).with_target(
        query(f"sum by ({STATUS}) (rate(costspan_calls_total{{{FILTER}}}[$__rate_interval])) * 60", f"{{{{{STATUS}}}}}")
    )
    for status, color in STATUS_COLORS.items():
        by_status.override_by_name(
            status, [models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]
        )

    def input_tokens(components: str) -> str:
        series = f'costspan_tokens_total{{{FILTER}, costspan_component=~"{components}"}}'
        return f"sum by ({PROVIDER}) (rate({series}[$__rate_interval]))"

    def gained(metric: str) -> str:
        return f"sum(increase({metric}{{{FILTER}}}[$__range]))"

    saved = gained("costspan_cache_saved_USD_total")
    premium = gained("costspan_cache_write_premium_USD_total")
    money = (
        figure(
            "Money saved by caching",
            "Cached tokens at the input rate less what they cost; what cache writes cost above the input rate; and the "
            f"balance of the two, over the time range. {ESTIMATE}",
            units.Dollars,
            saved,
            8,
        )
        .targets(
            [
                query(saved, "Saved by reads", ref="A", instant=True),
                query(premium, "Premium for writes", ref="B", instant=True),
                query(f"({saved} or vector(0)) - ({premium} or vector(0))", "Net", ref="C", instant=True),
            ]
        )
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .text(common.VizTextDisplayOptions().title_size(16).value_size(32))
        .text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
        .decimals(2)
        .color_scheme(fixed(GREEN))
        .no_value("no cached tokens")
        .height(9)
    )
    money.override_by_name(
        "Premium for writes",
        [models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": ORANGE})],
    )
    return [
        by_status,
        graph(
            "Cache hit rate",
            "Share of input tokens read from the provider's prompt cache, by provider: cache reads over all input "
            "tokens, uncached, read and written. An estimate with rate().",
            units.PercentUnit,
            8,
            ["mean", "lastNotNull"],
        )
        .max(1)
        .with_target(
            query(
                f"{input_tokens('cache_read')} / ({input_tokens('input|cache_read|cache_write')} > 0)",
                f"{{{{{PROVIDER}}}}}",
            )
        ),
        money,
    ]


def latency_and_errors() -> list[Builder[models.Panel]]:
    duration = "gen_ai_client_operation_duration_seconds"
    first_chunk = "gen_ai_client_operation_time_to_first_chunk_seconds"

    def quantiles(panel: timeseries.Panel, histogram: str) -> timeseries.Panel:
        return (
            panel.with_target(query(quantile(0.5, histogram), "p50", ref="A"))
            .with_target(query(quantile(0.95, histogram), "p95", ref="B"))
            .with_target(query(quantile(0.99, histogram), "p99", ref="C"))
        )

    failed = f'sum by ({PROVIDER}) (rate({duration}_count{{{CALL_FILTER}, error_type!=""}}[$__rate_interval]))'
    all_calls = f"sum by ({PROVIDER}) (rate({duration}_count{{{CALL_FILTER}}}[$__rate_interval]))"
    return [
        quantiles(
            graph(
                "Latency",
                f"Duration of a call, a stream to its last chunk: median, 95th and 99th percentile. {NOT_BY_TEAM}",
                units.Seconds,
                8,
                ["mean", "lastNotNull"],
            ),
            duration,
        ),
        quantiles(
            graph(
                "Time to first chunk",
                f"Streamed calls: time until the first chunk arrived. Median, 95th and 99th percentile. {NOT_BY_TEAM}",
                units.Seconds,
                8,
                ["mean", "lastNotNull"],
            ).no_value("no streamed calls"),
            first_chunk,
        ),
        graph(
            "Error rate",
            f"Share of calls that failed, by provider: HTTP errors, time-outs, broken streams. {NOT_BY_TEAM}",
            units.PercentUnit,
            8,
            ["mean", "max", "lastNotNull"],
        )
        .axis_soft_max(0.05)
        .with_target(query(f"({failed} or {all_calls} * 0) / ({all_calls} > 0)", f"{{{{{PROVIDER}}}}}")),
    ]


def variable(name: str, label: str, values: str, description: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": values, "refId": f"variable-{name}"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # .* and not .+: a series without the label must not fall out of All, or money would.
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def overview() -> dict[str, object]:
    """The Overview dashboard, as Grafana provisions it from a file."""
    board = (
        dashboard.Dashboard("costspan: Overview")
        .uid(UID)
        .description(
            "What LLM calls cost: today and this month, against budgets, by provider, model, feature and team; "
            "caching, latency, errors."
        )
        .tags(["costspan", "llm-cost", "genai", "opentelemetry"])
        .readonly()
        .timezone("utc")
        .time("now-24h", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("costspan dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["costspan"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .link(
            dashboard.DashboardLink("Docs").type(models.DashboardLinkType.LINK).icon("doc").url(DOCS).target_blank(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color(RED)
            .expr('ALERTS{alertname=~"CostSpan.*", alertstate="firing"}')
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            variable("job", "Job", "label_values(costspan_calls_total, job)", "The scrape job of the application.")
        )
        .with_variable(
            variable(
                "provider",
                "Provider",
                f'label_values(costspan_calls_total{{job=~"$job"}}, {PROVIDER})',
                "Who was called.",
            )
        )
        .with_variable(
            variable(
                "model",
                "Model",
                f'label_values(costspan_calls_total{{job=~"$job", {PROVIDER}=~"$provider"}}, {MODEL})',
                "The model that was asked for.",
            )
        )
        .with_variable(
            variable(
                "team",
                "Team",
                f'label_values(costspan_calls_total{{job=~"$job"}}, {TEAM})',
                "From costspan.track(team=...).",
            )
        )
        .with_variable(
            variable(
                "feature",
                "Feature",
                f'label_values(costspan_calls_total{{job=~"$job"}}, {FEATURE})',
                "From costspan.track(feature=...).",
            )
        )
    )
    for panel in top():
        board.with_panel(panel)
    for title, panels in (
        ("Spend", spend()),
        ("Calls and caching", calls_and_caching()),
        ("Latency and errors", latency_and_errors()),
    ):
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    for number, entry in enumerate(built.panels or [], start=1):
        if isinstance(entry, (models.Panel, models.RowPanel)):
            entry.id_val = number
    document: dict[str, object] = json.loads(json.dumps(built, cls=JSONEncoder))
    document.pop("id", None)
    return document


def render(document: dict[str, object]) -> str:
    """A dashboard as the text of its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARDS.mkdir(exist_ok=True)
    (DASHBOARDS / "overview.json").write_text(render(overview()), encoding="utf-8")
