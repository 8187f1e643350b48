"""The demo's fleet: its calls, what a scrape of it shows, and the Prometheus that it fills."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from costspan.demo import month
from costspan.demo.fleet import DAY, HOUR, SERVICES, Clock, Fleet, Story
from costspan.demo.recorder import STALE, History, Recorder
from costspan.grafana.export import rule_files, shipped
from costspan.grafana.promql import seconds
from tests.grafana.fleet import process
from tests.grafana.prometheus import binary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider as AnyMeterProvider

START = int(datetime(2026, 10, 28, 8, tzinfo=UTC).timestamp())
STORY = Story(START, START + 4 * HOUR, one_call_processes=12)
RESOURCE = {"service.name": "shop", "service.instance.id": "shop-a", "service.version": "1.0"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def from_exporter(registry: CollectorRegistry) -> Samples:
    """What the real exporter shows. A label without a value is none."""
    return {
        (sample.name, frozenset((key, value) for key, value in sample.labels.items() if value)): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def from_recorder(recorder: Recorder, at: int) -> Samples:
    recorder.scrape(at)
    return {(one.name, frozenset(one.labels)): one.values[-1] for one in recorder.history.take()}


def differences(found: Samples, want: Samples) -> list[Any]:
    """Samples that are not the same: the key, what is found, what is wanted. A comparison of both would take pages.

    The SDK adds the sum since the last collection to the one before, and rounds otherwise for it.
    """
    return [
        (key, found.get(key), want.get(key))
        for key in found.keys() | want.keys()
        if not math.isclose(
            found.get(key, math.nan), want.get(key, math.nan), rel_tol=1e-14 if key[0].endswith("_sum") else 0
        )
    ]


def both() -> tuple[CollectorRegistry, MeterProvider, Recorder]:
    registry = CollectorRegistry()
    meters = MeterProvider([PrometheusMetricReader(registry=registry)], Resource(RESOURCE), shutdown_on_exit=False)
    return registry, meters, Recorder(History(), {}, RESOURCE)


def without_generation(samples: Samples) -> Samples:
    return {
        (name, frozenset(label for label in labels if label[0] != "otel_scope_costspan_generation")): value
        for (name, labels), value in samples.items()
    }


def test_a_scrape_shows_what_the_real_exporter_shows_sample_for_sample() -> None:
    registry, meters, recorder = both()
    clock = Clock(START)
    shops = [process(STORY, of, clock) for of in (meters, recorder)]
    found: Samples = {}
    for hour in range(START // HOUR, START // HOUR + 3):
        calls = sorted((call for service in SERVICES for call in STORY.calls(service, hour)), key=lambda call: call.at)
        for call in calls:
            clock.now = call.at
            for shop in shops:
                shop.call(call)
        clock.now = (hour + 1) * HOUR
        want, found = from_exporter(registry), from_recorder(recorder, int(clock.now))
        assert differences(without_generation(found), without_generation(want)) == []
    assert len(found) > 500
    assert {name.rpartition("_")[2] for name, _ in found} >= {"bucket", "sum", "count", "total", "info", "USD"}


def test_any_instrument_has_the_exporters_name_and_values() -> None:
    """Of units that become words, of names that are odd, of attributes that are no text, and of gauges that fall."""
    registry, meters, recorder = both()
    providers: tuple[AnyMeterProvider, ...] = (meters, recorder)
    for of in providers:
        meter = of.get_meter("a.scope", "1.2", "https://schema.test", {"of.scope": 7})
        for name, unit in (("seen.total", "1"), ("paid", "USD"), ("pace-of", "USD/h"), ("size", "By"), ("odd", "{x}")):
            counter = meter.create_counter(name, unit)
            counter.add(2, {"flag": True, "list": ["a", "b"], "text": 'say "hi"\\\n'})
            counter.add(3.5, {"flag": True, "list": ["a", "b"], "text": 'say "hi"\\\n'})
        level = meter.create_up_down_counter("level", "s")
        level.add(5)
        level.add(-7)
        meter.create_gauge("now.ratio", "1").set(0.25, {"a": "1"})
        timing = meter.create_histogram("timing", "ms")
        for value in (0, 5, 5.1, 20_000):
            timing.record(value, {"b": 1})

        def observed(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(4, {"c": "x"}), Observation(5, {"c": "y"})]

        meter.create_observable_counter("watched", [observed], "{call}")
        meter.create_observable_gauge("depth", [observed], "d")
        meter.create_observable_up_down_counter("queue", [observed])
    assert differences(from_recorder(recorder, START), from_exporter(registry)) == []


def test_what_is_served_is_what_is_kept_without_the_labels_of_the_target() -> None:
    recorder = Recorder(History(), {"job": "shop", "instance": "a"}, RESOURCE)
    counter = recorder.get_meter("m").create_counter("said", description="How often.")
    counter.add(2, {"text": 'a "b"\\\n'})
    (_, family) = text_string_to_metric_families(recorder.exposition())
    assert (family.name, family.type, family.documentation) == ("said", "counter", "How often.")
    (sample,) = family.samples
    assert (sample.labels, sample.value) == ({"otel_scope_name": "m", "text": 'a "b"\\\n'}, 2.0)


@pytest.fixture(scope="module")
def lived() -> tuple[Fleet, list[Any]]:
    """Four hours with a scrape a minute, and all samples of them."""
    fleet = Fleet(STORY)
    for at in range(START, STORY.end + 1, 60):
        fleet.advance(at)
        fleet.scrape()
    return fleet, list(fleet.history.take())


def test_the_same_seed_and_end_give_the_same_history(lived: tuple[Fleet, list[Any]]) -> None:
    again = Fleet(STORY)
    for at in range(START, STORY.end + 1, 60):
        again.advance(at)
        again.scrape()
    other = Fleet(Story(START, STORY.end, seed=2))
    other.advance(STORY.end)
    assert again.spent() == lived[0].spent() != other.spent()

    def exact(series: Iterable[Any]) -> dict[Any, Any]:
        return {
            (one.name, one.labels): (list(one.times), struct.pack(f"{len(one.values)}d", *one.values))
            for one in series
        }  # fmt: skip

    assert exact(again.history.take()) == exact(lived[1])


def test_the_calls_do_not_depend_on_how_often_is_scraped(lived: tuple[Fleet, list[Any]]) -> None:
    coarse = Fleet(STORY)
    for at in range(START, STORY.end + 1, 1200):
        coarse.advance(at)
        coarse.scrape()
    assert (coarse.calls(), coarse.spent()) == (lived[0].calls(), lived[0].spent())


def test_what_processes_show_adds_up_to_what_was_spent(lived: tuple[Fleet, list[Any]]) -> None:
    """Over restarts, and with processes that make one call: each counter's gains, from 0 and from each fall."""
    fleet, series = lived
    gained: Counter[str] = Counter()
    for one in series:
        if one.name == "costspan_cost_USD_total":
            values = [value for value in one.values if not math.isnan(value)]
            before = (0.0, *values)
            gained[dict(one.labels).get("costspan_team", "")] += sum(
                value - last if value >= last else value for last, value in zip(before, values, strict=False)
            )
    truth: Counter[str] = Counter()
    for (_, _, _, team), pico in fleet.spent().items():
        truth[team] += pico / 1e12  # type: ignore[assignment]
    assert gained == {team: pytest.approx(usd, abs=1e-9) for team, usd in truth.items()}
    assert fleet.one_call_processes == 12


def test_no_sample_is_nan_but_the_mark_of_an_ended_series(lived: tuple[Fleet, list[Any]]) -> None:
    stale = struct.pack("<d", STALE)
    ends = 0
    for one in lived[1]:
        for value in one.values:
            if math.isnan(value):
                assert struct.pack("<d", value) == stale
                ends += 1
            assert not math.isinf(value), one
    assert ends > 12, "processes have ended"


def test_counters_fall_at_a_restart_alone() -> None:
    tuesday = int(datetime(2026, 10, 27, 8, tzinfo=UTC).timestamp())
    fleet = Fleet(Story(tuesday, tuesday + 9 * HOUR, one_call_processes=0))
    for at in range(tuesday, tuesday + 9 * HOUR + 1, 600):
        fleet.advance(at)
        fleet.scrape()
    restarts = {
        (service.job, f"{service.job}-{'ab'[instance]}:9464"): at
        for service in SERVICES
        for hour in range(tuesday // HOUR, tuesday // HOUR + 9)
        for at, instance in fleet.story.releases(service, hour)
    }
    fallen = set()
    for one in fleet.history.take():
        if one.name.endswith(("_total", "_bucket", "_count", "_sum")):
            labels = dict(one.labels)
            for at, last, value in zip(one.times[1:], one.values, one.values[1:], strict=False):
                if value < last:
                    assert at - 600 <= restarts[labels["job"], labels["instance"]] < at
                    fallen.add(labels["instance"])
    assert len(fallen) == len(restarts) >= 3


@given(
    start=st.integers(0, 10**6), days=st.integers(1, 40), fine=st.integers(0, 2 * DAY), middle=st.integers(0, 9 * DAY)
)
def test_scrapes_are_in_order_on_their_grids_and_at_midnight(start: int, days: int, fine: int, middle: int) -> None:
    start, end = START + start, START + start + days * DAY
    parts = month.grid(start, end, fine=fine, middle=max(fine, middle))
    moments = [at for part in parts for piece in part.days() for at in piece.moments()]
    assert moments == sorted(set(moments))
    assert moments[0] - start < 1200
    assert end - moments[-1] < 60
    assert all(at % part.step == 0 for part in parts for at in part.moments())
    assert set(range(-(-moments[0] // DAY) * DAY, end + 1, DAY)) <= set(moments)


def test_the_rules_are_read_as_prometheus_reads_them() -> None:
    want = [
        (rule["record"], rule["expr"].split(), seconds(group.get("interval", "1m")), rule.get("labels"))
        for text in rule_files(shipped()).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    assert [(rule.name, rule.expr.split(), rule.interval, None) for rule in month.rules(shipped())] == want
    assert want


@pytest.mark.parametrize("program", ["prometheus", "prometheus3"])
def test_prometheus_keeps_what_it_is_given(program: str, tmp_path: Path) -> None:
    """Days of samples, values to the last bit, and that a series has ended."""
    history = History()
    group = history.group(history.family("kept", "gauge"), {"text": 'a "b"\\\n', "other": "ü"})
    values = [0.0, -1.5, 1e-300, 0.1 + 0.2, 123456789.123]
    for number, value in enumerate(values):
        group.add(START + number * 12 * HOUR, value)
    end = START + len(values) * 12 * HOUR
    group.end(end)
    with month.Prometheus(tmp_path / "data", program=binary(program)) as prometheus:
        assert prometheus.push(history.take()) == len(values) + 1
        ((found),) = prometheus.query("kept[10d]", end)
        assert found["metric"] == {"__name__": "kept", "text": 'a "b"\\\n', "other": "ü"}
        assert [float(value) for _, value in found["values"]] == values
        assert prometheus.query("kept", end - 12 * HOUR + 600)
        assert not prometheus.query("kept", end + 60)
        with pytest.raises(month.MonthError, match=r"Prometheus said 400 to /api/v1/query.*parse error"):
            prometheus.query("sum(", end)


def test_a_prometheus_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no directory")
    with pytest.raises(FileExistsError):
        month.Prometheus(tmp_path / "data", program=binary("prometheus")).__enter__()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "chunks_head").write_text("no directory")
    with pytest.raises(month.MonthError, match=r"Prometheus did not start: .*chunks_head"):
        month.Prometheus(tmp_path / "there", program=binary("prometheus")).__enter__()


# ------------------------------------------------------------------ the command


def run(arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "costspan", "demo", *arguments.split()],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--days 3", "costspan demo: --days needs --serve, to look at it, or --out DIR, to keep it"),
        ("--days 3 --serve --json", "costspan demo: --json is for the conversation and says nothing of --days"),
        ("--out here", "costspan demo: --out is where the data of --days go: give both"),
    ],
)
def test_options_that_make_no_sense_together(arguments: str, complaint: str) -> None:
    done = run(arguments)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (2, complaint, "")


def test_what_is_missing_or_in_the_way(tmp_path: Path) -> None:
    binary("prometheus")
    done = run("--days 1 --serve", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "no `prometheus` is on the PATH: apt install prometheus, brew install prometheus, or" in done.stderr
    (tmp_path / "file").write_text("in the way")
    done = run(f"--days 1 --out {tmp_path}")
    assert done.returncode == 1
    assert f"{tmp_path} is there already: name a directory that is new or empty" in done.stderr


_SERVE = """
import time
from pathlib import Path
from rich.console import Console
from costspan.demo import live
from costspan.demo.fleet import Story
end = int(time.time()) // 60 * 60
story = Story(end - 2400, end, one_call_processes=3)
live.run(story, serve=True, out=Path({out!r}), port={port}, console=Console(width=400))
"""

_GRAFANA = """#!/bin/sh
# Stands in for Grafana, which cannot be had here: writes down how it was started, and waits to be ended.
set -- "$@" "$(env | grep ^GF_)" "$(cat "$GF_PATHS_PROVISIONING"/*/*.yml)"
echo "$@" "$(ls "$GF_PATHS_PROVISIONING"/../dashboards)" > "$TOLD"
trap 'echo ended >> "$TOLD"; exit 0' TERM
while :; do sleep 0.05; done
"""


def test_serve_shows_history_and_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    """Prometheus over the history, the fleet scraped live, Grafana in front of it; Ctrl-C ends all of them."""
    binary("prometheus")
    (tmp_path / "grafana").write_text(_GRAFANA)
    (tmp_path / "grafana").chmod(0o755)
    told, port = tmp_path / "told", month.free_port()
    serving = subprocess.Popen(
        [sys.executable, "-c", _SERVE.format(out=str(tmp_path / "data"), port=port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOLD": str(told),
             "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert serving.stdout is not None
    try:
        said: list[str] = []
        while not any("Ctrl-C" in line for line in said):
            said.append(serving.stdout.readline())
            assert said[-1], (said, serving.stderr and serving.stderr.read())
        prometheus = next(line.split()[1] for line in said if line.startswith("Prometheus"))
        asked = _Asked(prometheus)
        asked.until("count(up == 1) == 4")
        before = "sum(costspan_calls_total offset 10m)"
        assert asked.until(f"sum(costspan_calls_total) > {before}")
        assert asked.until("sum(costspan:cost_USD:today)") < 50, "what was spent before is not taken for new"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/shop/shop-a:9464") as answer:
            assert "costspan_calls_total{" in answer.read().decode()
        assert "Grafana     http://127.0.0.1:" in "".join(said)
        started = told.read_text()
        assert started.startswith("server")
        assert f"url: {prometheus}" in started
        assert f"path: {tmp_path.parent}" in started or "path: /" in started
        assert "overview.json" in started
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=60)
    assert (serving.returncode, err) == (0, "")
    assert told.read_text().endswith("ended\n")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(prometheus, timeout=5)
    assert (tmp_path / "data" / "wal").is_dir()


class _Asked:
    def __init__(self, url: str) -> None:
        from tests.grafana.prometheus import Prometheus

        self._prometheus = Prometheus(int(url.rpartition(":")[2]))

    def until(self, expr: str) -> float:
        return self._prometheus.until(expr, 40)
