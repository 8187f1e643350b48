"""What the dashboards are made of: panels, queries and variables as this project writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

DOCS: Final = "https://github.com/costspan/costspan/blob/main/docs/dashboards.md"
SOURCE: Final = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

PROVIDER: Final = "gen_ai_provider_name"
MODEL: Final = "gen_ai_request_model"
TEAM: Final = "costspan_team"
FEATURE: Final = "costspan_feature"
TASK: Final = "costspan_task"
STATUS: Final = "costspan_cost_status"
COMPONENT: Final = "costspan_component"
TIER: Final = "costspan_service_tier"
BUDGET: Final = "costspan_budget_name"
PERIOD: Final = "costspan_budget_period"
BY_BUDGET: Final = f"{BUDGET}, {PERIOD}"

JOB_FILTER: Final = 'job=~"$job"'
CALL_FILTER: Final = f'{JOB_FILTER}, {PROVIDER}=~"$provider", {MODEL}=~"$model"'
"""The conventions' histograms carry no attribution, so they filter by these alone."""
FILTER: Final = f'{CALL_FILTER}, {TEAM}=~"$team", {FEATURE}=~"$feature"'

COST: Final = "costspan_cost_USD_total"
CALLS: Final = "costspan_calls_total"
TOKENS: Final = "costspan_tokens_total"
BILLED: Final = f'{CALLS}{{{FILTER}, {STATUS}=~"priced|estimated|partial"}}'
"""Calls that have a cost: others would make the average call look cheap."""
DELTA: Final = "costspan:cost_USD:delta1m"
DURATION: Final = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK: Final = "gen_ai_client_operation_time_to_first_chunk_seconds"

UNPRICED: Final = "unknown_model|unknown_provider|partial|invalid_usage"
"""Statuses of calls whose cost is missing from the totals, in whole or in part."""

EXACT: Final = (
    "Added up minute by minute by the recording rules. Where they did not run all the time, "
    "it is an estimate with increase(), which misses what a process spent before it was first scraped."
)
ESTIMATE: Final = "An estimate with increase(), which misses what happened before a process was first scraped."
RATE: Final = "An estimate with rate()."
LEDGER: Final = "From the budgets' own ledger. Filtered by job and budget alone."
NOT_BY_TEAM: Final = "Not filtered by team and feature, which the conventions' histograms do not carry."

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
STATUS_COLORS: Final = {
    "priced": "green",
    "free": "light-blue",
    "estimated": "yellow",
    "partial": "orange",
    "no_usage": "text",
    "unknown_model": "purple",
    "unknown_provider": "dark-purple",
    "invalid_usage": "dark-orange",
}
Colors = Sequence[tuple[float | None, str]]
"""The colour of a figure from which value on; the first step, without a value, is below all others."""
USED: Final[Colors] = ((None, GREEN), (0.75, YELLOW), (0.9, ORANGE), (1.0, RED))
"""Colours of a budget's used share."""


# Queries.


def query(expr: str, legend: str = "", *, ref: str = "A", instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref).datasource(SOURCE)
    return target.instant() if instant else target.range()


def since_the_rules(window: str, ago: str = "") -> str:
    """Matches where there were calls in the window before the recording rules ran: their sums would lack those."""
    reported = f"count_over_time(group(costspan_price_book_age_seconds{{{JOB_FILTER}}})[{window}:10m]{ago})"
    ran = f"count_over_time(costspan:rules:running[{window}:10m]{ago})"
    return f"({reported} > 1.05 * {ran} + 1)"


def spent(by: str, window: str = "$__range", more: str = "", ago: str = "") -> str:
    """Spend over a window by labels: exact where the rules ran all the time, else an estimate.

    `ago` is how long ago the window ended, with its word: `offset 7d`.
    """
    filters = f"{FILTER}{more}"
    grouped = f"sum by ({by})" if by else "sum"
    added_up = f"{grouped} (sum_over_time({DELTA}{{{filters}}}[{window}]{ago}))"
    estimated = f"{grouped} (increase({COST}{{{filters}}}[{window}]{ago}))"
    return f"({added_up} unless on () {since_the_rules(window, ago)} or {estimated})"


def to_date(record: str) -> str:
    """What a rule has added up since a date, or what was gained in the range where it could not see all of it."""
    estimated = increased(f"{COST}{{{FILTER}}}")
    return f"(sum({record}{{{FILTER}}}) unless on () {since_the_rules('$__range')} or {estimated})"


def named(expr: str, *labels: str) -> str:
    """Calls without a label under "(none)", rather than under no name."""
    for label in labels:
        expr = f'label_replace({expr}, "{label}", "(none)", "{label}", "")'
    return expr


def top(count: int, expr: str) -> str:
    return f"sort_desc(topk({count}, {expr}))"


def increased(series: str, by: str = "") -> str:
    """The increase of counters over the time range: an estimate, which misses their first events."""
    return f"sum by ({by}) (increase({series}[$__range]))" if by else f"sum(increase({series}[$__range]))"


def gained(series: str, by: str = "", window: str = "$__range") -> str:
    """What a counter gained in a window. Its first event makes the series, which increase() alone would not count."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (increase({series}[{window}]) > 0 or ({series} unless {series} offset {window}))"


def per_second(series: str, by: str) -> str:
    return f"sum by ({by}) (rate({series}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    buckets = per_second(f"{histogram}_bucket{{{CALL_FILTER}}}", labels)
    return f"histogram_quantile({q}, {buckets})"


# Panels.

_PanelT = TypeVar("_PanelT", bargauge.Panel, stat.Panel)


def steps(*values: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in values])
    )


def _coloured(panel: _PanelT, colors: Colors) -> _PanelT:
    """The panel in the colour of its value, or without colours in blue."""
    color = dashboard.FieldColor()
    if not colors:
        return panel.color_scheme(color.mode(models.FieldColorModeId.FIXED).fixed_color(BLUE))
    return panel.color_scheme(color.mode(models.FieldColorModeId.THRESHOLDS)).thresholds(steps(*colors))


def override(field: str, color: str) -> tuple[str, list[models.DynamicConfigValue]]:
    return field, [models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]


def last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def figure(
    title: str, description: str, unit: str, expr: str, width: int, height: int = 5, *, colors: Colors = ()
) -> stat.Panel:
    """One number, of the present."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .with_target(query(expr, instant=True))
        .reduce_options(last_value())
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .height(height)
        .span(width)
    )
    return _coloured(panel, colors)


def figures(
    title: str, description: str, unit: str, parts: Sequence[tuple[str, str, str]], width: int, height: int
) -> stat.Panel:
    """Several numbers below one another: (name, colour, expression) each."""
    panel = (
        figure(title, description, unit, "", width, height)
        .targets(
            [
                query(expr, name, ref=chr(ord("A") + number), instant=True)
                for number, (name, _, expr) in enumerate(parts)
            ]
        )
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .text(common.VizTextDisplayOptions().title_size(15).value_size(28))
        .text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
    )
    for name, color, _ in parts:
        panel.override_by_name(*override(name, color))
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    expr: str,
    legend: str,
    width: int,
    height: int = 9,
    *,
    colors: Colors = (),
    below_zero: bool = False,
) -> bargauge.Panel:
    """Numbers of the present side by side, the longest first."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .with_target(query(expr, legend, instant=True))
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
        .height(height)
        .span(width)
    )
    return _coloured(panel if below_zero else panel.min(0), colors)


def spend_by(title: str, what: str, label: str, width: int = 6, height: int = 10) -> bargauge.Panel:
    """The eight highest spenders by a label."""
    return (
        bars(
            title,
            f"{what}, the eight highest, over the time range. {EXACT}",
            "currencyUSD",
            top(8, named(spent(label), label)),
            f"{{{{{label}}}}}",
            width,
            height,
        )
        .decimals(2)
        .no_value("nothing spent")
    )


def graph(
    title: str,
    description: str,
    unit: str,
    width: int,
    calcs: Sequence[str] = ("mean", "max"),
    *,
    few: bool = False,
    height: int = 9,
) -> timeseries.Panel:
    """Lines over time. Their figures stand beside a wide graph, or below it where the lines are `few`."""
    legend = common.VizLegendOptions().show_legend(True)
    if width >= 12:
        legend.display_mode(common_models.LegendDisplayMode.TABLE).calcs(list(calcs))
        legend.placement(common_models.LegendPlacement.RIGHT)
    elif few:
        legend.display_mode(common_models.LegendDisplayMode.TABLE).calcs(list(calcs))
        legend.placement(common_models.LegendPlacement.BOTTOM)
    else:
        # A table of three lines is all that fits below: names alone do, side by side.
        legend.display_mode(common_models.LegendDisplayMode.LIST).calcs([])
        legend.placement(common_models.LegendPlacement.BOTTOM)
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
        .legend(legend)
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .height(height)
        .span(width)
    )


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    return (
        panel.fill_opacity(60).line_width(0).stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    )


def columns(panel: timeseries.Panel) -> timeseries.Panel:
    """Stacked columns instead of lines: for amounts of whole days."""
    return (
        stacked(panel)
        .draw_style(common_models.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .bar_width_factor(0.8)
    )


class Column:
    """A column of a table: a query whose labels find its row, with the unit of its figures."""

    def __init__(
        self, name: str, unit: str, expr: str, decimals: int | None = None, *colors: tuple[float | None, str]
    ) -> None:
        self.name = name
        self.unit = unit
        self.expr = expr
        self.decimals = decimals
        self.colors = colors


def rows(
    title: str,
    description: str,
    keys: dict[str, str],
    cells: Sequence[Column],
    width: int,
    height: int,
    *,
    sort: str | None = None,
) -> table.Panel:
    """A table whose rows are told apart by labels (`keys`: label -> heading), one query a column."""
    fields = {cell.name: f"Value #{chr(ord('A') + number)}" for number, cell in enumerate(cells)}
    order = [*keys, *fields.values()]
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .unit("short")
        .datasource(SOURCE)
        .targets(
            [
                query(cell.expr, ref=chr(ord("A") + number), instant=True).format(
                    prometheus_models.PromQueryFormat.TABLE
                )
                for number, cell in enumerate(cells)
            ]
        )
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {field: number for number, field in enumerate(order)},
                    # A single query's figures are called Value alone.
                    "renameByName": {**keys, "Value": cells[0].name, **{field: name for name, field in fields.items()}},
                },
            )
        )
        .no_value("–")
        .height(height)
        .span(width)
    )
    for cell in cells:
        properties: list[models.DynamicConfigValue] = [models.DynamicConfigValue(id_val="unit", value=cell.unit)]
        if cell.decimals is not None:
            properties.append(models.DynamicConfigValue(id_val="decimals", value=cell.decimals))
        if cell.colors:
            properties += [
                models.DynamicConfigValue(
                    id_val="thresholds",
                    value={
                        "mode": "absolute",
                        "steps": [{"value": value, "color": color} for value, color in cell.colors],
                    },
                ),
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ]
        panel.override_by_name(cell.name, properties)
    if sort is not None:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    return panel


def filter_link(uid: str, title: str, variable: str, label: str) -> dashboard.DashboardLink:
    """From a bar or line to a dashboard of that value alone."""
    link = f"/d/{uid}?${{__url_time_range}}&var-{variable}=${{__field.labels.{label}}}"
    return dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(link)


# Variables and the page.


def variable(name: str, label: str, values: str, description: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": values, "refId": f"variable-{name}"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def all_or_some(chosen: dashboard.QueryVariable) -> dashboard.QueryVariable:
    """Lets several values be chosen, and all of them, which is the default."""
    return (
        chosen.multi(True)
        .include_all(True)
        # .* and not .+: a series without the label must not fall out of All, or money would.
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


_SERVICE: Final = all_or_some(
    variable(
        "service",
        "Service",
        "label_values(target_info, service_name)",
        "service.name of the application. It narrows the jobs to those of the service.",
    )
)
# No value of its own for All: it is the list of the chosen service's jobs, those without target_info included.
_JOB: Final = all_or_some(
    variable(
        "job",
        "Job",
        'label_values({__name__=~"target_info|costspan_calls_total", service_name=~"$service"}, job)',
        "The scrape job of the application.",
    )
).all_value("")
_BY_CALL: Final = (
    variable("provider", "Provider", f"label_values({CALLS}{{{JOB_FILTER}}}, {PROVIDER})", "Who was called."),
    variable(
        "model",
        "Model",
        f'label_values({CALLS}{{{JOB_FILTER}, {PROVIDER}=~"$provider"}}, {MODEL})',
        "The model that was asked for.",
    ),
    variable("team", "Team", f"label_values({CALLS}{{{JOB_FILTER}}}, {TEAM})", "From costspan.track(team=...)."),
    variable(
        "feature", "Feature", f"label_values({CALLS}{{{JOB_FILTER}}}, {FEATURE})", "From costspan.track(feature=...)."
    ),
)


def page(
    uid: str,
    title: str,
    description: str,
    content: Sequence[tuple[str | None, Sequence[Builder[models.Panel]]]],
    *,
    since: str = "now-24h",
    by_call: bool = True,
    more: Sequence[dashboard.QueryVariable] = (),
) -> dict[str, Any]:
    """A dashboard as Grafana provisions it from a file: rows of panels, each under its title (the first under none)."""
    board = (
        dashboard.Dashboard(f"costspan: {title}")
        .uid(uid)
        .description(description)
        .tags(["costspan", "llm-cost", "genai", "opentelemetry"])
        .readonly()
        .timezone("utc")
        .time(since, "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("costspan")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["costspan"])
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
        .annotation(
            dashboard.AnnotationQuery()
            .name("Budget events")
            .datasource(SOURCE)
            .enable(True)
            .icon_color(ORANGE)
            .expr(
                f"sum by ({BUDGET}, type, severity) "
                f"(increase(costspan_budget_events_total{{{JOB_FILTER}}}[$__interval])) > 0"
            )
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_SERVICE)
        .with_variable(_JOB)
    )
    for one in _BY_CALL if by_call else ():
        board.with_variable(all_or_some(one))
    for one in more:
        board.with_variable(one)
    for row, panels in content:
        if row is not None:
            board.with_row(dashboard.Row(row))
        for panel in panels:
            board.with_panel(panel)
    built = board.build()
    for number, entry in enumerate(built.panels or [], start=1):
        if isinstance(entry, (models.Panel, models.RowPanel)):
            entry.id_val = number
    document: dict[str, Any] = json.loads(json.dumps(built, cls=JSONEncoder))
    document.pop("id", None)
    for panel in document["panels"]:
        # The SDK writes it, Grafana 12 has no such option any more.
        panel.get("options", {}).pop("footer", None)
    return document
