"""`costspan collector`: OTLP in, OTLP out, and the price on every LLM call in between."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from costspan._version import __version__
from costspan.commands import fail, ready_ledger

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from costspan.settings import Settings
    from costspan_processor.collector.downstream import Destination
    from costspan_processor.collector.otlp import Signal
    from costspan_processor.collector.receivers import Address
    from costspan_processor.collector.service import Config
    from costspan_processor.ledger.writer import LedgerWriter

_log = logging.getLogger("costspan")
_fail: Final = partial(fail, "costspan collector")

_SERVICE: Final = "costspan-collector"
_VARIABLE: Final = "COSTSPAN_COLLECTOR_"
_UNUSABLE: Final = 2
"""The exit status of a worker that cannot begin, which another attempt will not mend."""
_PAUSE: Final = 1.0
_LAST_WORDS: Final = 10.0
"""Seconds. What a worker needs besides the two times that its requests may take."""


def _option(name: str, meaning: str, metavar: str, **more: Any) -> Any:
    return typer.Option(
        f"--{name}", envvar=_VARIABLE + name.upper().replace("-", "_"), help=meaning, metavar=metavar, **more
    )


def collector(
    grpc: Annotated[str, _option("grpc", "Listen there for OTLP over gRPC, or `off`.", "HOST:PORT")] = "127.0.0.1:4317",
    http: Annotated[str, _option("http", "And for OTLP over HTTP, or `off`.", "HOST:PORT")] = "127.0.0.1:4318",
    admin: Annotated[
        str, _option("admin", "And for /metrics, /healthz and /readyz; a worker more, a port more.", "HOST:PORT")
    ] = "127.0.0.1:9464",
    workers: Annotated[int, _option("workers", "Processes that share the ports.", "N", min=1, max=256)] = 1,
    tls_certificate: Annotated[
        Path | None,
        _option("tls-certificate", "PEM file with which the receivers speak TLS.", "FILE", show_default=False),
    ] = None,
    tls_key: Annotated[Path | None, _option("tls-key", "Its private key.", "FILE", show_default=False)] = None,
    tls_client_ca: Annotated[
        Path | None, _option("tls-client-ca", "Whose certificates clients must have.", "FILE", show_default=False)
    ] = None,
    credentials: Annotated[
        Path | None,
        _option(
            "credentials",
            "File of who may send, a line each: `bearer TOKEN` or `basic USER:PASSWORD`.",
            "FILE",
            show_default=False,
        ),
    ] = None,
    max_body: Annotated[int, _option("max-body", "MiB of one request, decompressed.", "MIB", min=1, max=1024)] = 16,
    max_in_flight: Annotated[
        int, _option("max-in-flight", "MiB of requests that a worker has in hand; then clients wait.", "MIB", min=1)
    ] = 64,
    drain: Annotated[
        float, _option("drain", "Seconds that requests have to end in at SIGTERM.", "SECONDS", min=0)
    ] = 10.0,
) -> None:
    """Receive OTLP, put the price on every LLM call, charge the budgets, and pass everything on.

    Where to is said by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL, _HEADERS, _CERTIFICATE,
    _COMPRESSION, _TIMEOUT, and those of each signal. Prices, budgets and a ledger are set as in a process:
    COSTSPAN_CONFIG, COSTSPAN_LEDGER and their like.
    """
    try:
        from costspan_processor.collector import downstream, otlp
        from costspan_processor.collector.receivers import TLS
        from costspan_processor.collector.service import MEBIBYTE, Config
    except ImportError as error:
        _fail(f"{error}: install costspan[collector]")
    from costspan.settings import load

    if (tls_certificate is None) != (tls_key is None):
        _fail("--tls-certificate and --tls-key go together")
    if tls_client_ca is not None and tls_certificate is None:
        _fail("--tls-client-ca is of use with --tls-certificate and --tls-key alone")
    if max_in_flight < max_body:
        _fail(f"--max-in-flight {max_in_flight} has no room for one request of --max-body {max_body}")
    config = Config(
        _address("grpc", grpc),
        _address("http", http),
        _address("admin", admin),
        None if tls_certificate is None or tls_key is None else TLS(tls_certificate, tls_key, tls_client_ca),
        () if credentials is None else _credentials(credentials),
        max_body * MEBIBYTE,
        max_in_flight * MEBIBYTE,
        drain,
        shared=workers > 1,
    )
    if config.grpc is None and config.http is None:
        _fail("with --grpc off and --http off there is nothing to listen to")
    try:
        if config.tls is not None:
            config.tls.context()
        destinations: dict[Signal, Destination] = {}
        for name in otlp.SIGNALS:
            if (to := downstream.Destination.of(name, os.environ)) is not None:
                destinations[name] = to
    except (OSError, downstream.SettingError) as error:
        _fail(error)
    if "traces" not in destinations:
        _fail(
            "nothing says where spans go on to: set OTEL_EXPORTER_OTLP_ENDPOINT, for example to http://localhost:14318"
        )
    for to in destinations.values():
        _refuse_a_circle(config, to.endpoint)
    settings = load({})
    _check(settings, workers)
    plan = _Plan(config, destinations, settings)
    sys.exit(_worker(plan) if workers == 1 else _supervise(plan, workers))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a worker needs to know; it is sent to its process."""

    config: Config
    destinations: dict[Signal, Destination]
    settings: Settings


def _address(name: str, text: str) -> Address | None:
    from costspan_processor.collector.receivers import Address

    if text.lower() == "off":
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        _fail(f"--{name} {text}: this is no HOST:PORT such as 127.0.0.1:4317 or 0.0.0.0:4317, nor `off`")
    return Address(host or "0.0.0.0", int(port))  # noqa: S104  as `:4317` is read elsewhere


def _credentials(file: Path) -> tuple[str, ...]:
    from base64 import b64encode

    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"--credentials {file} cannot be read: {error}")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, secret = line.strip().partition(" ")
        secret = secret.strip()
        if kind.lower() == "bearer" and secret:
            found.append(f"Bearer {secret}")
        elif kind.lower() == "basic" and ":" in secret:
            found.append(f"Basic {b64encode(secret.encode()).decode()}")
        else:
            _fail(f"--credentials {file}, line {number}: write `bearer TOKEN` or `basic USER:PASSWORD`")
    if not found:
        _fail(f"--credentials {file} has no line: nobody could send")
    return tuple(found)


def _refuse_a_circle(config: Config, endpoint: str) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(endpoint)
    for own in (config.grpc, config.http):
        if own is not None and own.port == parts.port and parts.hostname in {"localhost", "127.0.0.1", "::1", own.host}:
            _fail(f"{endpoint} is this collector itself: give OTEL_EXPORTER_OTLP_ENDPOINT what stands behind it")


def _check(settings: Settings, workers: int) -> None:
    """A server says at once what an application would only log."""
    from costspan.book import price_book
    from costspan.budgets.wiring import Source
    from costspan_processor.budgets.stores import open_store

    book = price_book(settings, refuse=_fail)
    try:
        budgets, _ = Source(settings, book).strictly()
        store = open_store(settings.budget_store)
    except (ValueError, ImportError) as error:
        _fail(error)
    if store.local and budgets and workers > 1:
        _fail("each worker would keep the budgets for itself: set COSTSPAN_BUDGET_STORE, or --workers 1")
    if settings.ledger:
        try:
            ready_ledger(settings.ledger, "COSTSPAN_LEDGER")
        except ValueError as error:
            _fail(error)


# ------------------------------------------------------------------ one worker


def _worker(plan: _Plan, number: int = 0) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("aiohttp", "grpc", "apprise"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        asyncio.run(_serve(plan, number))
    except (OSError, ValueError) as error:
        _fail(error, _UNUSABLE)
    return 0


async def _serve(plan: _Plan, number: int) -> None:
    import gc

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import NoOpTracerProvider
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    from costspan.book import price_book
    from costspan.budgets.wiring import guard
    from costspan_processor import Processing
    from costspan_processor import Settings as ProcessorSettings
    from costspan_processor.collector.service import Collector

    settings = plan.settings
    registry = CollectorRegistry()
    meters = MeterProvider(
        [PrometheusMetricReader(registry=registry)], resource=Resource.create({"service.name": _SERVICE})
    )
    book = price_book(settings)
    ledger = _ledger(settings)
    processing = Processing(
        NoOpTracerProvider(),
        meters,
        book=book,
        guard=partial(guard, settings, book, tell=None if ledger is None else ledger.note),
        ledger=ledger,
        settings=ProcessorSettings(
            genai_metrics="off", dimensions=settings.dimensions, max_values=settings.max_label_values
        ),
        version=__version__,
    )

    def scrape(accept: str) -> tuple[bytes, str]:
        encode, kind = choose_encoder(accept)
        return encode(registry), kind

    config = plan.config
    if config.admin is not None:
        config = replace(config, admin=config.admin._replace(port=config.admin.port + number))

    def ready() -> None:
        heard = {"gRPC": config.grpc, "HTTP": config.http, "metrics and health": config.admin}
        where = ", ".join(f"{what} on {address}" for what, address in heard.items() if address is not None)
        _log.info("costspan collector %s: %s; on to %s", __version__, where, plan.destinations["traces"].endpoint)
        # What stays until the end need not be looked through again and again, nor all of a large request's spans.
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stop.set)
    await Collector(config, plan.destinations, processing, scrape).run(stop, ready)
    _log.info("costspan collector: stopped")


def _ledger(settings: Settings) -> LedgerWriter | None:
    if not settings.ledger:
        return None
    from costspan.book import folder
    from costspan_processor.ledger.writer import begin

    return begin(settings.ledger, service=_SERVICE, data=folder(settings).parent / "ledger", days=settings.ledger_days)


# ------------------------------------------------------------------ several


def _supervise(plan: _Plan, count: int) -> int:
    """Keep `count` workers running until SIGTERM or SIGINT; returns the exit status."""
    from multiprocessing.connection import wait

    spawn = multiprocessing.get_context("spawn")
    stop = False

    def asked(_signal: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, asked)

    def start(number: int) -> BaseProcess:
        process = spawn.Process(target=_work, args=(plan, number), name=f"costspan-collector-{number}")
        process.start()
        return process

    workers = [start(number) for number in range(count)]
    status = 0
    while not stop:
        wait([process.sentinel for process in workers], _PAUSE)
        for number, process in enumerate(workers):
            if process.is_alive() or stop:
                continue
            if process.exitcode == _UNUSABLE:
                status, stop = _UNUSABLE, True
            else:
                print(
                    f"costspan collector: worker {number} ended ({process.exitcode}), starting another", file=sys.stderr
                )
                time.sleep(_PAUSE)
                workers[number] = start(number)
    for process in workers:
        process.terminate()
    deadline = time.monotonic() + 2 * plan.config.drain + _LAST_WORDS
    for process in workers:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
    return status


def _work(plan: _Plan, number: int) -> NoReturn:
    sys.exit(_worker(plan, number))
