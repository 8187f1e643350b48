"""`costspan demo --days`: a month of history in a Prometheus of its own, and the fleet that goes on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from costspan.grafana.export import IMAGES, Choice, exported, rule_files, shipped

from .fleet import DAY, Fleet, Story
from .month import MonthError, Prometheus, free_port, grid, make, rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

PROMETHEUS_PORT: Final = 9090
GRAFANA_PORT: Final = 3000
_GRAFANAS: Final = ("grafana", "grafana-server")
_GRAFANA_HOMES: Final = ("/usr/share/grafana", "/usr/local/share/grafana", "/opt/homebrew/share/grafana")


def last(days: int) -> Story:
    """What happens in so many days until now."""
    end = int(time.time()) // 60 * 60
    return Story((end - days * DAY) // 1200 * 1200, end)


def run(story: Story, *, serve: bool, out: Path | None, port: int, console: Console) -> None:
    """Make the history, say where it is; with `serve` go on until Ctrl-C. Raises `MonthError`.

    port: where the fleet's metrics are, of which Prometheus scrapes each process by its own path.
    out: the data directory, which is kept; without one it goes with the end.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise MonthError(
            "--days needs Prometheus 2.42 or later, and no `prometheus` is on the PATH: "
            "apt install prometheus, brew install prometheus, or https://prometheus.io/download/"
        )
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MonthError(f"{out} is there already: name a directory that is new or empty")
    with ExitStack() as stack:
        stack.enter_context(quiet())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="costspan-demo-")))
        data = folder / "data" if out is None else out
        fleet = Fleet(story)
        server = _Metrics(fleet, port) if serve else None
        if server is not None:
            stack.callback(server.close)
        web = _port(PROMETHEUS_PORT) if serve else 0
        prometheus = stack.enter_context(Prometheus(data, program=program, port=web))
        samples = _make(fleet, prometheus, console)
        console.print(
            f"{fleet.calls():,} calls of {len(fleet.targets()) + fleet.one_call_processes} processes, "
            f"${fleet.spent().total() / 10**12:,.2f}, {samples:,} samples"
        )
        if server is None:
            return
        prometheus.configure(_config(fleet, port, folder))
        console.print(Text(f"Prometheus  {prometheus.url}", style="cyan"))
        _grafana(folder, prometheus, console, stack)
        console.print("The fleet goes on; Ctrl-C ends it.", style="dim")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


def kept(out: Path) -> str:
    """How to open what was left in a directory."""
    return (
        f"prometheus --storage.tsdb.path={out} --storage.tsdb.retention.time=10y --query.lookback-delta=21m "
        "--storage.tsdb.min-block-duration=54h --storage.tsdb.max-block-duration=54h"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without a line on standard error for each thing that happens to a budget of the fleet."""
    log = logging.getLogger("costspan")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _make(fleet: Fleet, prometheus: Prometheus, console: Console) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("the fleet lives", total=1.0)
        parts = grid(fleet.story.start, fleet.story.end)
        wanted = rules(shipped())
        return make(fleet, parts, prometheus, wanted, lambda share: progress.update(task, completed=share))


def _port(wanted: int) -> int:
    """The port, or another one if somebody listens there."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


class _Metrics:
    """Serves what the processes of the fleet show, and lets them live up to the moment that they are asked."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    recorder = fleet.targets().get(self.path.strip("/"))
                    if recorder is not None:
                        fleet.advance(int(time.time()))
                        # A restart has put another one in its place.
                        recorder = fleet.targets()[self.path.strip("/")]
                    text = "\n".join(fleet.targets()) if recorder is None else recorder.exposition()
                body = text.encode()
                self.send_response(404 if recorder is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise MonthError(f"port {port} cannot be served ({error.strerror}): choose another with --port") from error
        threading.Thread(target=self._server.serve_forever, name="costspan-demo-metrics", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()


def _config(fleet: Fleet, port: int, folder: Path) -> str:
    """Prometheus' configuration for the fleet that goes on, with the shipped rules and alerts."""
    files = []
    for path, text in rule_files(shipped()).items():
        file = folder / Path(path).name
        file.write_text(text, encoding="utf-8")
        files.append(str(file))
    jobs: dict[str, list[dict[str, object]]] = {}
    for path in fleet.targets():
        job, instance = path.split("/")
        labels = {"instance": instance, "__metrics_path__": f"/{path}"}
        jobs.setdefault(job, []).append({"targets": [f"127.0.0.1:{port}"], "labels": labels})
    # JSON is YAML too.
    return json.dumps(
        {
            "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
            "rule_files": files,
            "scrape_configs": [{"job_name": job, "static_configs": targets} for job, targets in jobs.items()],
        }
    )


def _grafana(folder: Path, prometheus: Prometheus, console: Console, stack: ExitStack) -> None:
    """Start Grafana over the Prometheus, or say how."""
    files = exported(Choice())
    dashboards, provisioning = folder / "dashboards", folder / "provisioning"
    for path, text in files.items():
        if path.startswith("grafana/"):
            file = folder / path.removeprefix("grafana/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("http://prometheus:9090", prometheus.url), encoding="utf-8")
    settings = {
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Admin",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/var/lib/grafana/dashboards/costspan/overview.json",
    }
    program = next(filter(None, map(shutil.which, _GRAFANAS)), None)
    if program is None:
        said = " ".join(f"-e {name}={value}" for name, value in settings.items())
        console.print("Grafana     in another terminal (Linux; then http://127.0.0.1:3000):")
        console.print(
            f"docker run --rm --network host {said} -v {provisioning}:/etc/grafana/provisioning:ro "
            f"-v {dashboards}:/var/lib/grafana/dashboards/costspan:ro {IMAGES['grafana']}",
            soft_wrap=True,
            highlight=False,
        )
        return
    found = provisioning / "dashboards" / "costspan.yml"
    found.write_text(
        found.read_text(encoding="utf-8").replace("/var/lib/grafana/dashboards/costspan", str(dashboards)),
        encoding="utf-8",
    )
    port = _port(GRAFANA_PORT)
    home = next((path for path in _GRAFANA_HOMES if Path(path).is_dir()), None)
    server = subprocess.Popen(  # noqa: S603
        [program, "server", *(["--homepath", home] if home else [])],
        env={
            **os.environ,
            **settings,
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(dashboards / "overview.json"),
            "GF_PATHS_DATA": str(folder / "grafana"),
            "GF_PATHS_LOGS": str(folder / "grafana"),
            "GF_PATHS_PROVISIONING": str(provisioning),
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(port),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(server.wait, 30)
    stack.callback(server.terminate)
    console.print(Text(f"Grafana     http://127.0.0.1:{port}", style="cyan"))
