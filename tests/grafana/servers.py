"""Real servers on loopback, set up by the files that `costspan grafana export` writes."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from costspan.grafana.export import exported, rule_files
from costspan.grafana.promql import seconds
from tests.grafana.prometheus import Prometheus, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from costspan.grafana.export import Choice

FASTER: Final = 30
"""How much faster time passes in `hurried` files: a minute is two seconds."""

_DURATION: Final = r"(?:[0-9]+(?:ms|[smhdwy]))+"


def hurried(expr: str) -> str:
    """An expression for a world in which everything happens `FASTER` times as fast.

    >>> hurried("rate(x[5m]) / avg_over_time(x[1d:1m] offset 1m30s)")
    'rate(x[10000ms]) / avg_over_time(x[2880000ms:2000ms] offset 3000ms)'
    """

    def quick(found: re.Match[str]) -> str:
        return re.sub(_DURATION, lambda part: f"{seconds(part[0]) / FASTER * 1000:.0f}ms", found[0])

    return re.sub(rf"\[[^\]]*\]|\boffset\s+-?{_DURATION}", quick, expr)


def hurried_config(text: str) -> str:
    """Rules or a configuration of Prometheus for that world. Rules without an interval are evaluated once a minute."""
    text = hurried(text).replace("evaluation_interval: 15s", "evaluation_interval: 1m")
    return re.sub(
        rf"((?:interval|timeout|offset|for|keep_firing_for|group_wait): )({_DURATION})\b",
        lambda found: f"{found[1]}{max(seconds(found[2]) / FASTER * 1000, 1):.0f}ms",
        text,
    )


def write(choice: Choice, folder: Path, hosts: Mapping[str, str], *, hurry: bool = False) -> Path:
    """The exported files in `folder`, with the hosts of the compose file replaced by others."""
    files = exported(choice)
    quick = {*rule_files(files), "prometheus/prometheus.yml"} if hurry else set()
    for path, exact in files.items():
        text = exact
        if not path.endswith(".json"):
            for name, address in hosts.items():
                assert name != address
                text = text.replace(name, address)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(hurried_config(text) if path in quick else text)
    return folder


@contextlib.contextmanager
def prometheus(name: str, folder: Path, port: int, *flags: str) -> Iterator[Prometheus]:
    """A Prometheus with the exported configuration in `folder`."""
    with running(
        name,
        f"--config.file={folder / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
        ready=f"http://127.0.0.1:{port}/-/ready",
        log=folder / f"{name}.log",
    ):
        yield Prometheus(port)


@contextlib.contextmanager
def collector(folder: Path, metrics: int) -> Iterator[None]:
    """The OpenTelemetry Collector with the exported configuration in `folder`; `metrics` is the port to scrape."""
    with running(
        "otelcol",
        f"--config={folder / 'collector' / 'otelcol.yml'}",
        # Its own metrics would want a port of their own.
        "--set=service.telemetry.metrics.level=none",
        ready=f"http://127.0.0.1:{metrics}/metrics",
        log=folder / "otelcol.log",
    ):
        yield


@contextlib.contextmanager
def alertmanager(folder: Path, port: int) -> Iterator[str]:
    """The Alertmanager with the exported configuration in `folder`; gives its address."""
    with running(
        "alertmanager",
        f"--config.file={folder / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        ready=f"http://127.0.0.1:{port}/-/ready",
        log=folder / "alertmanager.log",
    ):
        yield f"http://127.0.0.1:{port}"
