"""`costspan demo`: a conversation of several personas over three providers, priced while it happens.

Needs the provider SDKs (`costspan[demo]`) and nothing else: they talk to a provider on the loopback interface.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from costspan.render import session_line

from .conversation import SDKS, answers, load
from .display import Stage, picture, picture_svg
from .provider import DemoProvider

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.metrics.export import MetricReader

    from .session import Session

SERVE_PORT = 9464
"""Where OpenTelemetry's Prometheus exporters are expected."""

REPLAY_SECONDS = 5.0


class DemoError(Exception):
    """The demo cannot run here; the message says why and what to do."""


def run(
    *,
    fast: bool | None = None,
    as_json: bool = False,
    svg: Path | None = None,
    serve: bool = False,
    port: int = SERVE_PORT,
    console: Console | None = None,
) -> None:
    """Hold the conversation, show what it costs, and print the summary. Raises `DemoError`.

    fast: no pauses; by default only where the output is no terminal.
    as_json: print the summary as JSON and nothing else.
    svg: write the picture of the terminal there, as SVG.
    serve: keep /metrics for Prometheus on 127.0.0.1:`port`, and the conversation going, until Ctrl-C.
    """
    import costspan
    from costspan.summaries import to_json

    from .session import Session

    console = console or Console()
    if fast is None:
        fast = as_json or not console.is_terminal
    readers = [_prometheus(port)] if serve else []
    session = Session(readers)
    with DemoProvider(answers(), pace=0.0 if fast else 1.0) as provider:
        try:
            with Stage(console, session, silent=as_json) as stage:
                for module in SDKS:
                    with stage.waiting(f"importing {module}"):
                        load(module)
                session.play(provider, stage)
        except ImportError as error:
            raise DemoError(str(error)) from error
        if not session.totals.calls:
            raise DemoError("costspan saw no call: is it switched off by COSTSPAN_ENABLED=false?")
        summary = costspan.summary()
        if svg is not None:
            try:
                svg.write_text(picture_svg(session, summary), encoding="utf-8")
            except OSError as error:
                raise DemoError(f"the picture cannot be written to {svg}: {error.strerror}") from error
        if as_json:
            print(to_json(summary))
        else:
            console.print(picture(session, summary))
        if serve:
            _keep_serving(session, provider, console, port)


def _prometheus(port: int) -> MetricReader:
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server
    except ImportError as error:
        raise DemoError("--serve needs the Prometheus exporter: pip install 'costspan[demo]'") from error
    reader = PrometheusMetricReader()
    try:
        start_http_server(port, addr="127.0.0.1")
    except OSError as error:
        raise DemoError(f"port {port} cannot be served ({error.strerror}): choose another with --port") from error
    return reader


def _keep_serving(session: Session, provider: DemoProvider, console: Console, port: int) -> None:
    """Replays of the conversation, so that rates and dashboards have something to show, until Ctrl-C."""
    import costspan

    def status() -> Text:
        total = costspan.summary()["total"]
        where = Text(f"\nhttp://127.0.0.1:{port}/metrics", style="cyan")
        return where.append("   the conversation goes on; Ctrl-C ends it\n", style="dim") + session_line(
            total["cost"], total["calls"], total["tokens"]["total"]
        )

    try:
        with Live(console=console, get_renderable=status, refresh_per_second=2):
            while True:
                time.sleep(REPLAY_SECONDS)
                session.replay(provider)
    except KeyboardInterrupt:
        pass
