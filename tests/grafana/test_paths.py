"""One application, three ways of its metrics to Prometheus: dashboards and rules find the same on each.

Real processes, a real collector, Prometheus 2 and 3, with the files that `costspan grafana export` writes. Time passes
30 times as fast: all durations in rules, dashboards and configuration are that much shorter.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from costspan.grafana.export import Choice, queries, rule_names, shipped
from costspan.grafana.needs import check
from tests.door.program import environment
from tests.grafana.dashboards import BOARDS, Board, selectors
from tests.grafana.prometheus import free_ports
from tests.grafana.servers import FASTER, alertmanager, collector, hurried, prometheus, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.grafana.prometheus import Prometheus

WAYS: Final = ("scrape", "collector", "otlp")
SECONDS: Final = 6.0
"""How long the application makes calls."""
SHORT: Final = 200
"""Processes of one call."""
REAL: Final = 2
"""Real processes of one call, for each way that they can push to; two more are forked from a third."""

COLLECTORS: Final = "costspan_collector_"
EMPTY: Final = {
    "needs a day, a week or a month before": re.compile(r"offset \d+[dw]"),
    "needs a collector: tests/collector has one": re.compile(COLLECTORS),
}
"""Why a query finds nothing here on any way; one that does not say so is a defect."""

ESTIMATES: Final = re.compile(
    r"age_seconds|rate\(|increase\(|deriv\(|predict|avg_over|quantile|time\(\)|rate\d|(increase|ratio|avg|per_hour|delta|p95)\w*\d"
    r"|forecast|burn"
)
"""In queries whose values depend on the moments of the samples. Their series are the same, their values alike."""


@dataclass(frozen=True)
class World:
    """What happened, and who saw it."""

    servers: dict[str, Prometheus]
    alertmanager: str
    """Its address; the Prometheus behind the collector sends it its alerts."""
    start: float
    end: float
    spent: float
    """USD of the two processes that were there all the time."""
    spent_short: dict[str, float]
    """USD of the processes of one call, by way."""


def application(*arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.grafana.application", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
        cwd=Path(__file__).parents[2],
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.kill()
        raise AssertionError(process.communicate()[1])
    facts: dict[str, Any] = json.loads(line)
    return facts


def spent_by(process: subprocess.Popen[str]) -> float:
    """USD that a process and its forks say they have spent, when it has ended."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return sum(float(json.loads(line)["spent"]) for line in out.splitlines())


@contextlib.contextmanager
def running_world(folder: Path) -> Iterator[World]:
    grpc, http, collected, alerts, *ports = free_ports(7)
    servers: dict[str, Prometheus] = {}
    with contextlib.ExitStack() as running:
        hosts = {"0.0.0.0:4317": f"127.0.0.1:{grpc}", "0.0.0.0:4318": f"127.0.0.1:{http}",
                 "0.0.0.0:8889": f"127.0.0.1:{collected}", "collector:8889": f"127.0.0.1:{collected}",
                 "alertmanager:9093": f"127.0.0.1:{alerts}"}  # fmt: skip
        through = write(Choice("collector"), folder / "collector", hosts, hurry=True)
        running.enter_context(collector(through, collected))
        alerted = running.enter_context(alertmanager(through, alerts))
        native = write(Choice("otlp"), folder / "otlp", {}, hurry=True)
        servers["otlp"] = running.enter_context(
            prometheus("prometheus3", native, ports[2], "--web.enable-otlp-receiver")
        )
        servers["collector"] = running.enter_context(prometheus("prometheus3", through, ports[1]))
        ways = {"grpc": f"127.0.0.1:{grpc}", "http": f"{servers['otlp'].url}/api/v1/otlp/v1/metrics"}
        for server in servers.values():
            # A process that comes while the rules run is counted from its first call on.
            server.until(hurried("last_over_time(costspan:rules:running[5m] offset 1m)"))
        shops = [application("steady", json.dumps(ways)) for _ in range(2)]
        for shop in shops:
            running.callback(shop.communicate)
        direct = write(
            Choice("scrape", prometheus=2),
            folder / "scrape",
            {"host.docker.internal:9464": ", ".join(f"127.0.0.1:{said(shop)['port']}" for shop in shops),
             "my-app": "shop"},
            hurry=True,
        )  # fmt: skip
        servers["scrape"] = running.enter_context(prometheus("prometheus", direct, ports[0]))
        servers["scrape"].until("sum(costspan_budget_limit_USD) > 0")
        start = time.time()
        for shop in shops:
            tell(shop)
        spent_short = the_short_lived(ways)
        time.sleep(max(0.0, start + SECONDS - time.time()))
        for shop in shops:
            tell(shop)
        spent = sum(float(said(shop)["spent"]) for shop in shops)
        for server in servers.values():
            server.until(f'sum(costspan_cost_USD_total{{job="shop"}}) > {spent - 1e-9}')
        # The rules are done with the last call after two of their minutes and the time by which they lag.
        time.sleep(3 * 60 / FASTER)
        yield World(servers, alerted, start, time.time(), spent, spent_short)


def the_short_lived(ways: dict[str, str]) -> dict[str, float]:
    """USD that processes of one call have spent, by the way that they were pushed."""
    batch = application("many", json.dumps(ways), str(SHORT))
    push = {
        "collector": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{ways['grpc']}"},
        "otlp": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ways["http"],
                 "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"},
    }  # fmt: skip
    single = {
        way: [
            application(mode, OTEL_METRICS_EXPORTER="otlp", OTEL_SERVICE_NAME="batch", **env)
            for mode in (*["one"] * REAL, "forks")
        ]
        for way, env in push.items()
    }
    together = spent_by(batch)
    return {way: together + sum(map(spent_by, processes)) for way, processes in single.items()}


def tell(process: subprocess.Popen[str]) -> None:
    """The application starts, or stops, making calls."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


Series = frozenset[tuple[str, str]]


def found(server: Prometheus, expr: str, world: World, *, instant: bool) -> dict[Series, float]:
    """The last value of all series that a query gives, by their labels without those that tell processes apart."""
    if instant:
        series = [(one["metric"], one["value"][1]) for one in server.query(expr, world.end)]
    else:
        answer = server.range(expr, world.start, world.end, 0.5)
        series = [(one["metric"], one["values"][-1][1]) for one in answer]
    return {
        frozenset((key, value) for key, value in labels.items() if key != "instance" and not key.startswith("otel_")):
        float(value)
        for labels, value in series
    }  # fmt: skip


def asked(board: Board, expr: str) -> str:
    """A panel's query about the shop since the start."""
    macros = {"$__rate_interval": "4s", "$__range_s": "300", "$__range": "5m", "$__interval": "1s"}
    return board.interpolated(hurried(expr), macros, job="shop")


def differing(rows: dict[str, dict[Series, float]], expr: str) -> str:
    """What a query finds on one way and not on another, or with another value."""
    expected = rows["scrape"]
    problems = []
    for way in WAYS[1:]:
        only = {label: "here" if label in rows[way] else "scrape" for label in rows[way].keys() ^ expected.keys()}
        problems += [f"only on {where}: {sorted(labels)}" for labels, where in only.items()]
        if not ESTIMATES.search(expr):
            problems += [
                f"{way} {rows[way][labels]} and not {value}: {sorted(labels)}"
                for labels, value in expected.items()
                if labels in rows[way] and rows[way][labels] != pytest.approx(value, rel=1e-9, nan_ok=True)
            ]
    return "\n  ".join(problems)


def every_panel_finds_the_same_on_every_way(world: World, board: Board) -> None:
    problems = []
    for title, target in board.queries():
        expr, instant = asked(board, target["expr"]), bool(target.get("instant"))
        rows = {way: found(server, expr, world, instant=instant) for way, server in world.servers.items()}
        if difference := differing(rows, expr):
            problems.append(f"{title}: {expr}\n  {difference}")
        elif not any(rows.values()) and not any(reason.search(target["expr"]) for reason in EMPTY.values()):
            problems.append(f"{title}: nothing anywhere: {target['expr']}")
    assert not problems, f"{board.name}:\n" + "\n".join(problems)


def metrics_and_labels(world: World) -> None:
    """All that dashboards and rules name is there on every way, under the service's name."""
    recorded = rule_names(shipped())
    wanted: dict[str, set[str]] = {}
    for query in queries(shipped()):
        for selector in selectors(re.sub(r"\$__\w+", "5m", query.expr)):
            wanted.setdefault(selector.name, set()).update(one.name for one in selector.matchers.matchers)
    for way, server in world.servers.items():
        for name, labels in wanted.items():
            if name is None or name in recorded or not name.startswith(("costspan_", "gen_ai_")):
                continue
            if name.startswith(COLLECTORS):
                continue
            series = server.get("series", **{"match[]": name}, start=world.start - 10, end=world.end)
            assert {one["job"] for one in series if one.get("job") != "batch"} == {"shop"}, f"{name} on {way}"
            # Only where the SDK's own limit is passed.
            assert labels - {"otel_metric_overflow"} <= {label for one in series for label in one}, f"{name} on {way}"


def totals_are_equal_to_the_cent(world: World) -> None:
    for way, server in world.servers.items():
        counters = 'sum(last_over_time(costspan_cost_USD_total{job="shop"}[5m]))'
        assert server.value(counters, world.end) == pytest.approx(world.spent, abs=1e-9), way
        # No two processes are one series.
        processes = server.query(
            'group by (instance) (last_over_time(costspan_calls_total{job="shop"}[5m]))', world.end
        )
        assert len(processes) == 2, way


def no_short_lived_process_is_lost(world: World) -> None:
    """Each pushes what it has counted once and is gone; the sum of what the rules record is what all have spent."""
    for way, server in world.servers.items():
        by_job = {
            sample["metric"]["job"]: float(sample["value"][1])
            for sample in server.query("sum by (job) (sum_over_time(costspan:cost_USD:delta1m[5m]))", world.end)
        }
        assert by_job["shop"] == pytest.approx(world.spent, abs=1e-9), way
        if way not in world.spent_short:
            continue  # a process of one call cannot be scraped
        assert by_job["batch"] == pytest.approx(world.spent_short[way], abs=1e-9), way
        instances = server.value(
            'count(group by (instance) (count_over_time(costspan_cost_USD_total{job="batch"}[5m])))', world.end
        )
        assert instances == SHORT + REAL + 2


def an_alert_reaches_alertmanager(world: World) -> None:
    with urllib.request.urlopen(f"{world.alertmanager}/api/v2/alerts") as answer:
        alerts = json.load(answer)
    refused = [alert for alert in alerts if alert["labels"]["alertname"] == "CostSpanCallsRefused"]
    assert {alert["labels"]["costspan_budget_name"] for alert in refused} == {"experiments"}
    assert all("runbook_url" in alert["annotations"] for alert in refused)


def the_check_says_what_a_server_lacks(world: World) -> None:
    """Rules and metrics are there; samples are kept as long as Prometheus does by itself, which is too short."""
    for server in world.servers.values():
        found = {finding.what: finding.status for finding in check(server.url)}
        assert (found["rules"], found["metrics"], found["series"]) == ("ok", "ok", "ok")
        assert found["retention"] == "fault"


def test_three_ways_show_the_same(tmp_path: Path) -> None:
    """One test, for the servers start once: tests that share them may run in several processes."""
    with running_world(tmp_path) as world:
        totals_are_equal_to_the_cent(world)
        no_short_lived_process_is_lost(world)
        metrics_and_labels(world)
        for board in BOARDS:
            every_panel_finds_the_same_on_every_way(world, board)
        an_alert_reaches_alertmanager(world)
        the_check_says_what_a_server_lacks(world)
