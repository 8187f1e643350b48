"""Attribution of a web application's requests: whom the calls that a request causes are for.

    app.add_middleware(costspan.ASGIMiddleware, headers={"x-team": "team", "x-tenant": "tenant"})
    app.wsgi_app = costspan.WSGIMiddleware(app.wsgi_app, who=lambda environ: {"user": environ["REMOTE_USER"]})

A header is the caller's word. Take it only from callers that are trusted, or set it in a proxy in front.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, detach

from costspan_processor.attribution import VALUE_AT_MOST, attributed, attributes_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from opentelemetry.context import Context

_log = logging.getLogger("costspan")


def _marks(told: Mapping[str, object], headers: Mapping[str, str]) -> Context:
    """The context of a request: what its headers say, and over it what the application's own function says."""
    given = {name: value for name, value in headers.items() if value and len(value) <= VALUE_AT_MOST}
    return attributed(attributes_of(**{**given, **told}))[0]


def _failed(error: Exception) -> Mapping[str, object]:
    """The request goes on: it only has nobody to be booked on."""
    from costspan import startup

    if startup._processing is None:
        _log.warning("costspan: the function that tells whom a request is for failed", exc_info=error)
    else:
        startup._processing.observer.failed("middleware.who", error)
    return {}


class ASGIMiddleware:
    """Marks every LLM call of a request, for ASGI applications (FastAPI, Starlette, Django, Quart, ...).

    headers: name of a header -> what `costspan.track()` calls it (`team`, `feature`, `user`, or a tag of any name).
        Values longer than 128 characters are left out.
    who: a function, or a coroutine function, of the ASGI scope that returns further names and values; these win.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        headers: Mapping[str, str] = {},
        who: Callable[[Mapping[str, Any]], Mapping[str, object] | Awaitable[Mapping[str, object]]] | None = None,
    ) -> None:
        self._app = app
        self._headers = {header.lower().encode("latin-1"): name for header, name in headers.items()}
        self._who = who

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        told: Mapping[str, object] = {}
        if self._who is not None:
            try:
                answer = self._who(scope)
                told = await answer if inspect.isawaitable(answer) else answer
            except Exception as error:  # noqa: BLE001
                told = _failed(error)
        said = {self._headers[key]: value.decode("latin-1") for key, value in scope["headers"] if key in self._headers}
        token = attach(_marks(told, said))
        try:
            await self._app(scope, receive, send)
        finally:
            detach(token)


class WSGIMiddleware:
    """Marks every LLM call of a request, for WSGI applications (Flask, Django, Pyramid, ...).

    headers: name of a header -> what `costspan.track()` calls it (`team`, `feature`, `user`, or a tag of any name).
        Values longer than 128 characters are left out.
    who: a function of the WSGI environment that returns further names and values; these win.
    """

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        headers: Mapping[str, str] = {},
        who: Callable[[Mapping[str, Any]], Mapping[str, object]] | None = None,
    ) -> None:
        self._app = app
        self._headers = {f"HTTP_{header.upper().replace('-', '_')}": name for header, name in headers.items()}
        self._who = who

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        told: Mapping[str, object] = {}
        if self._who is not None:
            try:
                told = self._who(environ)
            except Exception as error:  # noqa: BLE001
                told = _failed(error)
        said = {name: str(environ[key]) for key, name in self._headers.items() if key in environ}
        context = _marks(told, said)
        token = attach(context)
        try:
            body = self._app(environ, start_response)
        finally:
            detach(token)
        # What is written while it is sent is the request's too. A list is written already, and a wrapper of a file is
        # known to the server by its type.
        wrapper = environ.get("wsgi.file_wrapper")
        written = isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))
        return body if written else _Body(body, context)


class _Body:
    """A response's body whose parts are made in the context of the request."""

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._body)
        while True:
            token = attach(self._context)
            try:
                part = next(parts)
            except StopIteration:
                return
            finally:
                detach(token)
            yield part

    def close(self) -> None:
        """What a server calls when it has sent the response, or given up."""
        close = getattr(self._body, "close", None)
        if close is not None:
            token = attach(self._context)
            try:
                close()
            finally:
                detach(token)
