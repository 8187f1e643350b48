"""`costspan grafana`: write dashboards and rules with all that wires them, and hold a Prometheus to what they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from costspan.commands import fail

if TYPE_CHECKING:
    from costspan.grafana.needs import Finding, Series

app = typer.Typer(
    help="Dashboards, rules and alerts: write them out, wired; and see whether a Prometheus has what they need.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; it is made if it is not there.")],
    metrics: Annotated[
        Literal["collector", "scrape", "otlp"],
        typer.Option(
            help="How metrics come to Prometheus: through an OpenTelemetry Collector, by scraping port 9464 of this "
            "host, or by the OTLP receiver of Prometheus 3."
        ),
    ] = "collector",
    prometheus: Annotated[Literal["2", "3"], typer.Option(help="The major version of Prometheus.")] = "3",
    datasource: Annotated[
        str, typer.Option(metavar="UID", help="Uid of Grafana's data source, chosen in every dashboard.")
    ] = "prometheus",
    job_label: Annotated[
        str, typer.Option(metavar="NAME", help="The label that tells services apart, in dashboards and rules.")
    ] = "job",
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
    as_json: Json = False,
) -> None:
    """Write dashboards, rules, provisioning files and a compose file in which all of them are wired.

    `docker compose up -d` in DIR then starts Grafana, Prometheus, Alertmanager and what --metrics says. Files that are
    there already and differ are named, and nothing is written.
    """
    from costspan.grafana.export import Choice, ExportError, exported, retention_seconds, write
    from costspan.grafana.needs import longest
    from costspan.rates import facts, print_json, show, table

    try:
        choice = Choice(metrics, int(prometheus), datasource, job_label)
        files = exported(choice)
        written = write(files, folder, force=force)
    except ExportError as error:
        fail("costspan grafana export", error)
    retention = retention_seconds()
    place, _ = longest()[0]
    if as_json:
        print_json(
            {
                "directory": str(folder),
                "files": sorted(files),
                "written": written,
                "retention_days": int(retention / 86400),
                "environment": _ENVIRONMENT[metrics],
            }
        )
        return
    rows = [(path, "written" if path in written else "as it was") for path in sorted(files)]
    show(
        [
            table(("file", ""), rows, left=(0, 1)),
            "",
            facts(
                [
                    ("start", f"cd {folder} && docker compose up -d"),
                    ("then", "http://localhost:3000 (admin, admin)"),
                    ("your application", " ".join(f"{name}={value}" for name, value in _ENVIRONMENT[metrics].items())),
                    ("retention", f"{retention / 86400:.0f} days, for {place}"),
                ]
            ),
        ]
    )


_ENVIRONMENT: dict[str, dict[str, str]] = {
    "collector": {
        "OTEL_SERVICE_NAME": "my-app",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317",
        "OTEL_METRIC_EXPORT_INTERVAL": "15000",
    },
    "scrape": {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0"},  # noqa: S104
    "otlp": {
        "OTEL_SERVICE_NAME": "my-app",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://localhost:9090/api/v1/otlp/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "15000",
    },
}
"""What to set for the application, by how its metrics come to Prometheus."""


@app.command()
def check(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="A running Prometheus, http://localhost:9090.", show_default=False),
    ] = None,
    models: Annotated[int, typer.Option(min=0, max=500, help="For the estimate: models in use.")] = 10,
    teams: Annotated[int, typer.Option(min=0, max=500, help="Teams.")] = 4,
    features: Annotated[int, typer.Option(min=0, max=500, help="Features of all teams; each uses every model.")] = 12,
    processes: Annotated[int, typer.Option(min=1, help="Processes at one time.")] = 4,
    as_json: Json = False,
) -> None:
    """What dashboards and rules need: how long Prometheus must keep samples, and how many series there will be.

    With a URL, whether that Prometheus keeps them long enough, has the rules and gets the metrics; exit status 1 if
    not.
    """
    from costspan.grafana.export import ExportError, retention_seconds
    from costspan.grafana.needs import CheckError, Fleet, longest, series
    from costspan.grafana.needs import check as ask
    from costspan.rates import print_json, show, table

    try:
        findings = ask(url) if url is not None else []
        looks = longest()
        retention = retention_seconds()
        estimate = series(Fleet(models, teams, features, processes))
    except (CheckError, ExportError) as error:
        fail("costspan grafana check", error)
    if as_json:
        print_json(
            {
                "retention_days": int(retention / 86400),
                "look_back": [{"place": place, "seconds": length} for place, length in looks],
                "series": _plain(estimate),
                "findings": [finding._asdict() for finding in findings],
            }
        )
    else:
        kept = [(place, f"{length / 86400:.3g} d") for place, length in looks[:3]]
        show([table(("looks back furthest", ""), kept), f"Prometheus must keep {retention / 86400:.0f} days", ""])
        per_process = sorted(estimate.per_process.items(), key=lambda pair: -pair[1])
        rows = [(name, f"{count:,}", f"{count * processes:,}") for name, count in per_process]
        rows += [("recording rules", "", f"{estimate.recorded:,}"), ("in all", "", f"{estimate.total:,}")]
        show([table(("series", "a process", f"{processes} processes"), rows), ""])
        if findings:
            show(
                [
                    table(
                        ("need", "status", "found", "advice"),
                        [_row(finding) for finding in findings],
                        left=(0, 1, 2, 3),
                    )
                ]
            )
    raise typer.Exit(1 if any(finding.status == "fault" for finding in findings) else 0)


def _row(finding: Finding) -> tuple[str, ...]:
    return (finding.what, finding.status, finding.found, finding.advice)


def _plain(estimate: Series) -> dict[str, Any]:
    return {
        "per_process": dict(sorted(estimate.per_process.items())),
        "recorded": estimate.recorded,
        "total": estimate.total,
    }
