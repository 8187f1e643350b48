"""What a request says of itself is on every call that it causes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest

import costspan
from costspan_processor.attribution import attribution


def marks() -> dict[str, str]:
    who = attribution()
    return {} if who is None else dict(who.attributes)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Servers of tests say nothing."""


def served(app: Callable[..., Iterable[bytes]], headers: dict[str, str]) -> httpx.Response:
    """One request to a real WSGI server on the loopback."""
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        response = httpx.get(f"http://127.0.0.1:{server.server_port}/", headers=headers)
        thread.join()
    return response


async def asked(app: Any, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        return await client.get("/", headers=headers)


def test_headers_mark_a_wsgi_request_and_its_body() -> None:
    seen: list[dict[str, str]] = []

    def app(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _part in range(2):
            seen.append(marks())
            yield b"part"
        seen.append(marks())

    wrapped = costspan.WSGIMiddleware(app, headers={"X-Team": "team", "x-tenant": "tenant", "x-absent": "task"})
    assert served(wrapped, {"x-team": "search", "x-tenant": "y" * 500}).text == "partpart"
    assert seen == [{"costspan.team": "search"}] * 3
    assert marks() == {}


def test_a_wsgi_body_is_closed_when_the_server_is_done() -> None:
    closed: list[dict[str, str]] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:
            closed.append(marks())

    def app(_: dict[str, Any], start_response: Any) -> Body:
        start_response("200 OK", [])
        return Body()

    served(costspan.WSGIMiddleware(app, who=lambda environ: {"task": environ["PATH_INFO"]}), {})
    assert closed == [{"costspan.task": "/"}]


def test_a_list_and_a_file_reach_the_server_as_they_are() -> None:
    body = [b"x"]
    assert costspan.WSGIMiddleware(lambda *_: body)({}, None) is body


async def test_headers_and_the_applications_function_mark_an_asgi_request() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(sorted(marks().items())).encode()})

    async def who(scope: Any) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"feature": scope["path"], "team": "ours"}

    wrapped = costspan.ASGIMiddleware(app, headers={"X-Team": "team", "x-user": "user"}, who=who)
    told = (await asked(wrapped, {"x-team": "theirs", "x-user": "ada"})).text
    assert told == "[('costspan.feature', '/'), ('costspan.team', 'ours'), ('user.id', 'ada')]"
    assert marks() == {}


async def test_what_is_no_request_passes_through() -> None:
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append((scope["type"], marks()))

    await costspan.ASGIMiddleware(app, who=lambda _: {"team": "search"})({"type": "lifespan"}, None, None)
    assert seen == [("lifespan", {})]


async def test_a_function_that_fails_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def who(_: Any) -> dict[str, object]:
        raise KeyError("tenant")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    assert (await asked(costspan.ASGIMiddleware(app, who=who), {})).status_code == 204
    assert "whom a request is for" in caplog.text
