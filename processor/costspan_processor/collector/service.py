"""The collector as a running service: requests come in, spans get their prices, requests go on, answers come back.

A request is acknowledged when downstream has accepted it and what its calls cost is safely charged. Nothing waits here
for longer than that: the sender's own queue is the queue, so there is nothing to lose.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import web
from grpc import StatusCode
from opentelemetry.metrics import Observation

from costspan_processor.budgets.store import StoreError
from costspan_processor.collector import wire
from costspan_processor.collector.downstream import connect
from costspan_processor.collector.otlp import Answer, Signal, later
from costspan_processor.collector.pricing import Pricer
from costspan_processor.collector.receivers import TLS, Address, Door, listen, over_grpc, over_http

if TYPE_CHECKING:
    from costspan_processor.collector.downstream import Destination, Downstream
    from costspan_processor.processing import Processing

_log = logging.getLogger("costspan")

MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Config:
    """What a collector listens to, whom it lets in, and how much it takes."""

    grpc: Address | None
    http: Address | None
    admin: Address | None
    """Of `/metrics`, `/healthz` and `/readyz`: without TLS and credentials."""
    tls: TLS | None = None
    credentials: tuple[str, ...] = ()
    """Values of the header `Authorization`, one of which a client must send; without any, all may send."""
    max_body: int = 16 * MEBIBYTE
    """Bytes of one request, decompressed."""
    max_in_flight: int = 64 * MEBIBYTE
    """Bytes of all requests that are being worked on; above, clients are told to send again."""
    drain: float = 10.0
    """Seconds that requests have to end in once the collector is told to stop."""
    shared: bool = False
    """Whether other workers listen on the same ports."""


class Collector:
    """Receivers, pricing and what is downstream of them.

    `processing` prices and counts; it need not be started, and is shut down with the collector. `scrape` gives the
    metrics as Prometheus wants them, with their content type, for a header `Accept`.
    """

    def __init__(
        self,
        config: Config,
        destinations: Mapping[Signal, Destination],
        processing: Processing,
        scrape: Callable[[str], tuple[bytes, str]],
    ) -> None:
        self._config = config
        self._destinations = destinations
        self._processing = processing
        self._scrape = scrape
        self._pricer = Pricer(processing.observer)
        self._door = Door(self._take, config.credentials, config.max_body, config.max_in_flight)
        self._downstream: dict[Signal, Downstream] = {}
        self._failing: set[Signal] = set()
        self._working: set[asyncio.Task[Answer]] = set()
        self._state: Literal["starting", "ready", "stopping"] = "starting"
        self._instruments()

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set, then let what has begun come to its end. `ready` is called once it listens.

        Raises OSError for addresses and certificates that cannot be had, `SettingError` for those of downstream.
        """
        config = self._config
        shared, drain = config.shared, config.drain
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self._processing.shutdown)
            self._processing.guard.begin()
            for signal, destination in self._destinations.items():
                self._downstream[signal] = connect(signal, destination)
                stack.push_async_callback(self._downstream[signal].close)
            if config.admin is not None:
                await stack.enter_async_context(listen(self._admin(), config.admin))
            signals = list(self._destinations)
            if config.http is not None:
                app = over_http(self._door, signals)
                await stack.enter_async_context(listen(app, config.http, config.tls, shared=shared, drain=drain))
            if config.grpc is not None:
                grpc = over_grpc(self._door, signals, config.grpc, config.tls, shared=shared, drain=drain)
                await stack.enter_async_context(grpc)
            self._state = "ready"
            ready()
            await stop.wait()
            self._state = "stopping"
            if self._working:
                await asyncio.wait(self._working, timeout=drain)

    def _take(self, signal: Signal, body: bytes) -> asyncio.Task[Answer]:
        task = asyncio.ensure_future(self._passed_on(signal, body))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _passed_on(self, signal: Signal, body: bytes) -> Answer:
        if self._state == "stopping":
            return later("this collector is stopping")
        if signal == "traces":
            try:
                body = await self._pricer.price(body)
            except wire.DecodeError as error:
                return Answer(StatusCode.INVALID_ARGUMENT, f"the body is no request of OTLP: {error}")
            except StoreError as error:
                return later(str(error))
            except Exception as error:  # noqa: BLE001  a fault of ours must not keep spans from whoever waits for them
                self._processing.observer.failed("collector.request", error)
        answer = await self._downstream[signal].send(body)
        if answer.outcome == "accepted":
            if signal in self._failing:
                self._failing.discard(signal)
                _log.info("costspan: %s are accepted again", signal)
        elif signal not in self._failing:
            self._failing.add(signal)
            _log.warning("costspan: %s are not accepted: %s", signal, answer.message)
        return answer

    # ------------------------------------------------------------------ beside it

    def _admin(self) -> web.Application:
        async def health(_request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(_request: web.Request) -> web.Response:
            return web.Response(text=f"{self._state}\n", status=200 if self._state == "ready" else 503)

        async def metrics(request: web.Request) -> web.Response:
            # Hundreds of series take as long as a request.
            text, kind = await asyncio.to_thread(self._scrape, request.headers.get("Accept", ""))
            return web.Response(body=text, headers={"Content-Type": kind})

        app = web.Application()
        app.router.add_get("/healthz", health)
        app.router.add_get("/readyz", ready)
        app.router.add_get("/metrics", metrics)
        return app

    def _instruments(self) -> None:
        table = self._processing.table
        pricer, door = self._pricer, self._door

        def requests() -> list[Observation]:
            return [
                Observation(count, {"costspan.signal": signal, "costspan.outcome": outcome})
                for (signal, outcome), count in door.answers.copy().items()
            ]

        def spans() -> list[Observation]:
            outcomes = pricer.outcomes.copy()
            told = [Observation(count, {"costspan.outcome": outcome}) for outcome, count in outcomes.items()]
            return [*told, Observation(pricer.spans - sum(outcomes.values()), {"costspan.outcome": "no_call"})]

        create = table.meter.create_observable_counter
        create(
            "costspan.collector.requests", [table.observe(requests)], "{request}", "Requests, by what became of them"
        )
        create("costspan.collector.spans", [table.observe(spans)], "{span}", "Spans, by what was done with them")
        table.meter.create_observable_gauge(
            "costspan.collector.in_flight",
            [table.observe(lambda: [Observation(door.in_flight)])],
            "By",
            "Requests that are being worked on",
        )
