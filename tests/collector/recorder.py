"""A backend in a process of its own: `python -m tests.collector.recorder PORT [FILE]`.

It reads each request as OpenTelemetry's own classes do. Once it has answered 200, the ids of the request's spans are in
the file, 24 bytes each, whatever happens to it then. Without a file it takes everything unread.
"""

from __future__ import annotations

import asyncio
import os
import sys

from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


async def _serve(port: int, file: str | None) -> None:
    out = None if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if out is None:
            return web.Response()
        try:
            told = ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            return web.Response(status=400)
        ids = [
            span.trace_id + span.span_id
            for of_resource in told.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        os.write(out, b"".join(ids))
        return web.Response()

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
