"""`costspan grafana export`: every file is taken by the program it is for, and started together they work."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml
from compose_spec import PyCompose
from typer.testing import CliRunner

from costspan.cli import app
from costspan.grafana.export import Choice, ExportError, exported, queries, shipped
from costspan.grafana.needs import Fleet, retention, series
from costspan.grafana.promql import lookback, renamed, renamed_in_template, seconds
from tests.grafana.dashboards import MACROS
from tests.grafana.prometheus import binary, free_ports
from tests.grafana.servers import write

if TYPE_CHECKING:
    from pathlib import Path

CHOICES = [
    Choice("collector"),
    Choice("collector", prometheus=2),
    Choice("scrape", prometheus=2, job_label="app"),
    Choice("scrape"),
    Choice("otlp", job_label="service_name", datasource="metrics"),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.metrics}-{choice.prometheus}")
def test_every_file_is_valid_for_its_program(choice: Choice, tmp_path: Path) -> None:
    write(choice, tmp_path, {})
    major = "" if choice.prometheus == 2 else "3"
    commands = [
        [f"promtool{major}", "check", "config", "prometheus/prometheus.yml"],
        ["amtool", "check-config", "alertmanager/alertmanager.yml"],
    ]
    if choice.metrics == "collector":
        commands.append(["otelcol", "validate", "--config=collector/otelcol.yml"])
    for name, *arguments in commands:
        done = subprocess.run([binary(name), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.metrics}-{choice.prometheus}")
def test_the_compose_file_is_valid_and_has_what_it_mounts(choice: Choice) -> None:
    files = exported(choice)
    # The parser does not know this word of Docker's.
    PyCompose.from_yaml(files["compose.yaml"].replace("host-gateway", "127.0.0.1")).validate()
    compose = yaml.safe_load(files["compose.yaml"])
    assert ("collector" in compose["services"]) == (choice.metrics == "collector")
    for name, service in compose["services"].items():
        assert re.fullmatch(r"[\w/-]+:v?[0-9.]+", service["image"]), "an image without a version"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "open to the network"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert any(f"./{path}".startswith(source) for path in files), f"{name} mounts {source}"
            else:
                assert source in compose["volumes"]
    provisioned = yaml.safe_load(files["grafana/provisioning/dashboards/costspan.yml"])["providers"][0]
    mounted = {volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]}
    assert provisioned["options"]["path"] in mounted
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"grafana/dashboards/{home.rsplit('/', 1)[1]}" in files


def test_hosts_and_ports_are_those_of_the_compose_file() -> None:
    """Each address in a configuration is a service, at a port that its configuration or its program listens at."""
    listens = {"prometheus": {9090}, "alertmanager": {9093}, "collector": {8889}, "host.docker.internal": {9464}}
    for choice in CHOICES:
        files = exported(choice)
        services = yaml.safe_load(files["compose.yaml"])["services"]
        for path in ("prometheus/prometheus.yml", "grafana/provisioning/datasources/costspan.yml"):
            for host, port in re.findall(r"\b([a-z.]+):([0-9]{4})\b", files[path]):
                assert int(port) in listens[host]
                assert host in services or "extra_hosts" in services["prometheus"]


def test_the_data_source_is_chosen_in_every_dashboard() -> None:
    files = exported(Choice(datasource="metrics"))
    (source,) = yaml.safe_load(files["grafana/provisioning/datasources/costspan.yml"])["datasources"]
    assert source["uid"] == "metrics"
    for path, text in files.items():
        if path.endswith(".json"):
            chosen = [one for one in json.loads(text)["templating"]["list"] if one["type"] == "datasource"]
            assert [one["current"]["value"] for one in chosen] == ["metrics"], path


# ---------------------------------------------------------------------- another label


def labels_of(expr: str) -> list[tuple[str, list[str]]]:
    """Every place of a label in an expression, as a parser that we have not written sees it."""
    found: list[tuple[str, list[str]]] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((str(node.name), sorted(matcher.name for matcher in node.matchers.matchers)))
        elif isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.append((str(node.modifier.type), sorted(node.modifier.labels)))
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            found.append(("on", sorted(matching.labels) if matching is not None else []))
            found.append(("group", sorted(str(node.modifier.card))))

    promql_parser.walk(promql_parser.parse(expr), lambda node: visit(node))
    return found


def interpolated(expr: str) -> str:
    for macro in sorted(MACROS, key=len, reverse=True):
        expr = expr.replace(macro, MACROS[macro])
    return re.sub(r"\$\{?\w+\}?", "x", expr)


def test_another_job_label_is_in_every_place_and_nothing_else_changes() -> None:
    before, after = list(queries(exported_texts(Choice()))), list(queries(exported_texts(Choice(job_label="app"))))
    assert len(before) == len(after) > 100
    for old, new in zip(before, after, strict=True):
        was, is_now = labels_of(interpolated(old.expr)), labels_of(interpolated(new.expr))
        wanted = [(name, sorted("app" if label == "job" else label for label in labels)) for name, labels in was]
        assert is_now == wanted
        assert old.lookback == new.lookback
    assert any("job" in labels for old in before for _, labels in labels_of(interpolated(old.expr)))


def exported_texts(choice: Choice) -> dict[str, str]:
    return {path.removeprefix("grafana/"): text for path, text in exported(choice).items()}


def test_another_job_label_is_in_texts_and_variables_too() -> None:
    files = exported(Choice(job_label="app"))
    for path, text in files.items():
        if path.startswith("prometheus/") and path != "prometheus/prometheus.yml":
            rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
            assert not re.search(r"\$labels\.job\b|\{job[=,~]|, job=", json.dumps(rules)), path
        elif path.endswith(".json"):
            assert not re.search(r"\bjob=~|\{\{ ?job ?\}\}|, job\)|labels\.job\b", text), path
    assert any("{{ $labels.app }}" in text for text in files.values())


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('x{job="a", kind="job"}', 'x{app="a", kind="job"}'),
        ('x{"job"="a"}', 'x{"app"="a"}'),
        ("job + on (job, x) group_left (job) job:a:b", "job + on (app, x) group_left (app) job:a:b"),
        ('label_replace(x, "job", "$1", "job", "job")', 'label_replace(x, "app", "$1", "app", "job")'),
        ('count_values("job", y)', 'count_values("app", y)'),
        ('label_values(x{job=~"$job"}, job)', 'label_values(x{app=~"$job"}, app)'),
        ("label_values(job)", "label_values(app)"),
        ("sum without(job)(x) # by (job)", "sum without(app)(x) # by (job)"),
        ("max(job) by(job)", "max(job) by(app)"),
    ],
)
def test_a_label_is_renamed_where_it_is_one(expr: str, expected: str) -> None:
    assert renamed(expr, "job", "app") == expected


def test_a_label_is_renamed_in_words_only_where_it_is_one() -> None:
    text = "A job's {{ $labels.job }}: {{ with query (printf `sum by (job) (x{job=%q})` .Labels.job) }}job{{ end }}"
    assert renamed_in_template(text, "job", "app") == (
        "A job's {{ $labels.app }}: {{ with query (printf `sum by (app) (x{app=%q})` .Labels.app) }}job{{ end }}"
    )


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--job-label", "a-b", "--job-label 'a-b'"), ("--datasource", "a b", "--datasource 'a b'")],
)
def test_options_that_make_no_sense_are_named(option: str, value: str, says: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["grafana", "export", str(tmp_path / "out"), option, value])
    assert (done.exit_code, says in done.output) == (2, True)
    assert not (tmp_path / "out").exists()


def test_prometheus_2_takes_no_otlp() -> None:
    with pytest.raises(ExportError, match="needs --prometheus 3"):
        Choice("otlp", prometheus=2)


# ---------------------------------------------------------------------- what is written


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    def export(*more: str) -> Any:
        return CliRunner().invoke(app, ["grafana", "export", str(tmp_path), *more])

    first = json.loads(export("--json").output)
    assert first["written"] == first["files"]
    assert json.loads(export("--json").output)["written"] == []
    own = tmp_path / "alertmanager" / "alertmanager.yml"
    own.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    refused = export("--metrics", "scrape")
    assert refused.exit_code == 2
    assert "alertmanager/alertmanager.yml" in refused.output
    assert "collector:8889" in (tmp_path / "prometheus" / "prometheus.yml").read_text(), "nothing is written at all"
    assert own.read_text().startswith("route: {receiver: me}")
    assert export("--metrics", "scrape", "--force").exit_code == 0
    assert not own.read_text().startswith("route: {receiver: me}")


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["grafana", "export", str(tmp_path / "file")])
    assert done.exit_code == 2
    assert "cannot be written" in done.output


# ---------------------------------------------------------------------- what is needed


def looks_back(node: Any) -> float:
    """How far an expression looks back, by a parser that we have not written."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        return node.offset.total_seconds() if node.offset is not None else 0.0
    if kind == "MatrixSelector":
        return looks_back(node.vector_selector) + float(node.range.total_seconds())
    if kind == "SubqueryExpr":
        offset = node.offset.total_seconds() if node.offset is not None else 0.0
        return looks_back(node.expr) + float(node.range.total_seconds()) + offset
    parts = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "param")]
    return max((looks_back(part) for part in (*parts, *getattr(node, "args", ())) if part is not None), default=0.0)


def test_how_far_queries_look_back() -> None:
    for query in queries(shipped()):
        expr = interpolated(query.expr.replace("$__range_s", "86400").replace("$__range", "1d"))
        own = query.expr.replace("$__rate_interval", "5m").replace("$__interval", "1m")
        assert lookback(own, {"__range": 86400}) == looks_back(promql_parser.parse(expr)), query
    assert lookback("x offset -1h") < 0.1
    assert lookback("(rate(x[5m] offset 1h) > 1)[1d:1m] offset 1w") == seconds("1w1d1h5m")


def test_the_check_of_what_is_no_prometheus_says_so() -> None:
    def check(url: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["grafana", "check", url])
        return done.exit_code, done.output

    (port,) = free_ports(1)
    status, output = check(f"http://127.0.0.1:{port}")
    assert (status, "cannot be reached" in output) == (2, True)
    assert check("localhost:9090") == (
        2,
        "costspan grafana check: 'localhost:9090' is no address of a Prometheus: give one such as "
        "http://localhost:9090\n",
    )


def test_the_check_without_a_server_is_about_needs_alone() -> None:
    done = CliRunner().invoke(app, ["grafana", "check", "--json", "--models", "2", "--processes", "3"])
    needs = json.loads(done.output)
    assert done.exit_code == 0
    assert needs["findings"] == []
    assert needs["retention_days"] > max(one["seconds"] for one in needs["look_back"]) / 86400
    assert needs["series"]["total"] == 3 * sum(needs["series"]["per_process"].values()) + needs["series"]["recorded"]
    flags = yaml.safe_load(exported(Choice())["compose.yaml"])["services"]["prometheus"]["command"]
    assert f"--storage.tsdb.retention.time={needs['retention_days']}d" in flags


@pytest.mark.parametrize(
    ("said", "status"),
    [("15d", "fault"), ("40d", "ok"), ("1y", "ok"), ("40d or 10GiB", "warning"), ("10GiB", "warning"), ("", "fault")],
)
def test_the_retention_of_a_server_is_read(said: str, status: str) -> None:
    class Said:
        def get(self, path: str, **_: str) -> Any:
            assert path == "status/runtimeinfo"
            return {"storageRetention": said}

    assert retention(Said()).status == status


def test_series_are_counted_not_guessed() -> None:
    small = series(Fleet(models=2, teams=1, features=3, processes=2))
    assert small.per_process["costspan.calls"] == 6
    assert small.per_process["gen_ai.client.operation.duration"] == 2 * 17
    assert small.total == 2 * sum(small.per_process.values()) + small.recorded
    larger = series(Fleet(models=4, teams=1, features=3, processes=2))
    assert larger.per_process["costspan.calls"] == 12
