"""The one engine that turns patched SDK methods into spans: sync, async, streamed, raw.

Providers are tables (`provider.Provider`); everything that holds a span, waits, locks or catches is here.
Rules: the application gets the result, the exception, the chunks that it would get without us; the span is current
only while the SDK's own function runs, never across a yield; finalizers only put a record on a queue.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Container, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from queue import Empty, SimpleQueue
from threading import RLock
from time import perf_counter, time_ns
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import wrapt
from opentelemetry._logs import Logger, get_logger
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_tracer,
    set_span_in_context,
)

from costspan_instrumentation import content, semconv
from costspan_instrumentation.fingerprint import Fingerprints
from costspan_instrumentation.hosts import provider_of
from costspan_instrumentation.observer import Decision, Observer
from costspan_instrumentation.provider import Attributes, Endpoint, Fields, NativeSpans, Provider, Seen

_log = logging.getLogger("costspan")

_DEFAULT_PORTS = {None, 80, 443}
_CHARACTERS_PER_TOKEN = 4
_USAGE_PREFIXES = ("gen_ai.usage.", "costspan.usage.")
_MAX_SITES = 256
_MAX_KINDS = 512
_MAX_PRICED_IDS = 4096
_MAX_RAW_BODY = 64 * 2**20
_READING = ("read", "readinto")
_CLOSING = ("close", "aclose")
_NEXT = ("__next__", "__anext__")
_ENTERING = ("__enter__", "__aenter__")
_LEAVING = ("__exit__", "__aexit__")
_OPENED = "_costspan_opened"
"""Attribute of a session: the arguments that it was opened with."""

_running: ContextVar[_Call | None] = ContextVar("costspan_running_call", default=None)


class _Silent:
    """The observer of an engine that nobody watches: spans without money."""

    def before(
        self,
        attributes: Mapping[str, Any],  # noqa: ARG002
        characters: Callable[[], int],  # noqa: ARG002
        may_swap: Callable[[], bool],  # noqa: ARG002
    ) -> Decision | None:
        return None

    async def abefore(
        self,
        attributes: Mapping[str, Any],  # noqa: ARG002
        characters: Callable[[], int],  # noqa: ARG002
        may_swap: Callable[[], bool],  # noqa: ARG002
    ) -> Decision | None:
        return None

    def after(
        self,
        token: object,  # noqa: ARG002
        attributes: Mapping[str, Any],  # noqa: ARG002
        at: int,  # noqa: ARG002
        duration: float,  # noqa: ARG002
        first_chunk: float | None,  # noqa: ARG002
        context: Context | None,  # noqa: ARG002
    ) -> Mapping[str, Any]:
        return {}

    def failed(self, where: str, error: BaseException) -> None:
        _log.debug("costspan: internal error in %s", where, exc_info=error)


class _Site(NamedTuple):
    """Where a client sends its calls."""

    provider: str
    host: str
    port: int | None


class _Call:
    """One call from before its request to the end of its answer."""

    # Defaults live on the class: a call that uses none of them pays for none of them.
    first_chunk: float | None = None
    span: Span = INVALID_SPAN
    context: Context | None = None
    token: object = None
    seen: Seen | None = None
    body: _Body | None = None
    source: object = None
    asked = False
    swaps = True
    """What the SDK will send are the arguments that the engine hands it."""
    _attached: Any = None
    _running: Any = None
    _ended = False

    def __init__(
        self,
        engine: Engine,
        provider: Provider,
        endpoint: Endpoint,
        attributes: Attributes,
        prompt: Mapping[str, Any],
    ) -> None:
        self.engine = engine
        self.provider = provider
        self.endpoint = endpoint
        self.attributes = attributes
        self.prompt = prompt
        self.at = time_ns()
        self.started = perf_counter()

    def characters(self) -> int:
        """Length of the prompt's text."""
        prompt = self.prompt
        return sum(_text_length(prompt.get(name)) for name in self.endpoint.content)

    def may_swap(self) -> bool:
        """Whether the call can be made with another model: its argument `model` is what its span calls the model."""
        return self.swaps and self.prompt.get("model") == self.attributes.get(semconv.REQUEST_MODEL)

    def enter(self) -> None:
        """Makes the span current, for the time that the SDK's own function runs."""
        if self.span is not INVALID_SPAN:
            self.context = set_span_in_context(self.span)
            if not self.provider.records:
                self._attached = attach(self.context)
        self._running = _running.set(self)

    def leave(self) -> None:
        """The opposite of `enter`, in the same task."""
        if self._running is not None:
            _running.reset(self._running)
        if self._attached is not None:
            detach(self._attached)

    def refused(self, error: BaseException) -> None:
        """Ends the span of a call that is not made."""
        self._ended = True
        self.span.set_attribute(semconv.ERROR_TYPE, type(error).__qualname__)
        self.span.set_status(Status(StatusCode.ERROR, str(error)))
        self.span.end()

    def heard(self, method: str, target: Any, result: Any, args: tuple[Any, ...]) -> bool | None:
        """The application has called this method of the call's stream or body. Never raises.

        True if it brought a chunk that is there only because we asked.
        """
        try:
            if method in _NEXT and self.seen is not None:
                if self.first_chunk is None:
                    self.first_chunk = perf_counter() - self.started
                hides = bool((self.endpoint.chunk or _unread)(result, self.seen))
                if self.provider.records:
                    # The SDK may record the call in another thread, as soon as its last chunk is there.
                    self.engine._remember(self.seen.attributes.get(semconv.RESPONSE_ID))
                return hides
            if method in _CLOSING or method in _LEAVING:
                self.over(target, aborted=True)
            elif method in _ENTERING:
                if result is not target:
                    self.engine._watch_source(self, result)
            elif method in _READING and self.body is not None and self.source in {None, id(target)}:
                asked = args[0] if args else None
                if method == "readinto":
                    result, asked = bytes(memoryview(args[0])[:result]), len(args[0])
                self.body.feed(result)
                if asked is None or asked < 0 or (not result and asked):
                    self.end()
        except Exception as failure:  # noqa: BLE001
            self.engine.observer.failed(method, failure)
        return None

    def over(self, target: Any, error: BaseException | None = None, *, aborted: bool = False) -> None:
        """The stream or body `target` of the call has ended, or was closed (`aborted`). Never raises."""
        try:
            if self.endpoint.gathered is not None and self.seen is not None and not self._ended:
                self.endpoint.gathered(target, self.seen)
        except Exception as failure:  # noqa: BLE001
            self.engine.observer.failed("gathered", failure)
        self.end(error=error, aborted=aborted)

    def end(
        self,
        result: Any = None,
        error: BaseException | None = None,
        ended_at: int | None = None,
        aborted: bool = False,
    ) -> None:
        """Reads what came back, asks the observer, ends the span; once. Never raises.

        `aborted`: the application stopped reading. A stream of which all is known by then counts as read.
        """
        if self._ended:
            return
        self._ended = True
        engine, attributes, span = self.engine, self.attributes, self.span
        duration = (ended_at - self.at) / 1e9 if ended_at is not None else perf_counter() - self.started
        added: Attributes = {}
        try:
            try:
                if self.seen is not None:
                    added = self._streamed(self.seen)
                    if aborted and not self.seen.final and self.first_chunk is not None:
                        added[semconv.STREAM_ABORTED] = True
                elif result is not None:
                    added = self.endpoint.response(result)
                if self.endpoint.billed is not None and (self.seen is not None or result is not None):
                    added = {**self.endpoint.billed(self.prompt), **added}
            except Exception as failure:  # noqa: BLE001
                engine.observer.failed("response", failure)
            if error is not None:
                added[semconv.ERROR_TYPE] = type(error).__qualname__
            attributes.update(added)
            if self.provider.records:
                engine._remember(attributes.get(semconv.RESPONSE_ID))
            if self.endpoint.fetch and not engine._first_usage(attributes):
                for key in [k for k in attributes if k.startswith(_USAGE_PREFIXES)]:
                    del attributes[key]
                    added.pop(key, None)
                attributes[semconv.OPERATION] = added[semconv.OPERATION] = semconv.FETCH_RESPONSE
            else:
                if self.endpoint.kept:
                    engine._first_usage(attributes)
                try:
                    added.update(
                        engine.observer.after(self.token, attributes, self.at, duration, self.first_chunk, self.context)
                    )
                except Exception as failure:  # noqa: BLE001
                    engine.observer.failed("after", failure)
            if span.is_recording():
                span.set_attributes(added)
                if error is not None:
                    span.set_status(Status(StatusCode.ERROR, str(error)))
                if self.endpoint.fetch:
                    model = attributes.get(semconv.REQUEST_MODEL) or attributes.get(semconv.RESPONSE_MODEL) or ""
                    span.update_name(f"{attributes[semconv.OPERATION]} {model}".rstrip())
        except Exception as failure:  # noqa: BLE001
            engine.observer.failed("end", failure)
        finally:
            span.end(ended_at)

    def _streamed(self, seen: Seen) -> Attributes:
        """What a stream has told, and an estimate of its usage where the provider never said."""
        if self.body is not None:
            self.body.close()
        if self.endpoint.tail is not None and seen.tail:
            try:
                self.endpoint.tail(seen)
            except Exception as failure:  # noqa: BLE001
                self.engine.observer.failed("tail", failure)
        added = seen.attributes
        if self.first_chunk is not None:
            added[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] = self.first_chunk
            if not seen.final:
                added.setdefault(semconv.INPUT_TOKENS, math.ceil(self.characters() / _CHARACTERS_PER_TOKEN))
                told = added.get(semconv.OUTPUT_TOKENS)
                guess = math.ceil(seen.characters / _CHARACTERS_PER_TOKEN)
                added[semconv.OUTPUT_TOKENS] = max(told, guess) if type(told) is int else guess
                added[semconv.USAGE_ESTIMATED] = True
        return added


class _Recorded(_Call):
    """A call whose content may be recorded. Where nobody asks for that, no call is one of these, and none pays."""

    exchange: content.Exchange | None = None

    def enter(self) -> None:
        super().enter()
        recording = self.engine._recording
        if recording is not None and self.span is not INVALID_SPAN:
            self.exchange = recording.exchange(self.attributes[semconv.OPERATION], self.prompt, self.span)
            if self.exchange is not None:
                self.endpoint = self.exchange.overhearing(self.endpoint)

    def end(
        self,
        result: Any = None,
        error: BaseException | None = None,
        ended_at: int | None = None,
        aborted: bool = False,
    ) -> None:
        ended = self._ended
        super().end(result, error, ended_at, aborted)
        if self.exchange is not None and not ended:
            self.exchange.emit(self.attributes, self.context, ended_at)

    def _streamed(self, seen: Seen) -> Attributes:
        added = super()._streamed(seen)
        if self.exchange is not None:
            self.exchange.ended()
        return added


class _Watched:
    """An iterator, synchronous or asynchronous, that shows each chunk to its call on the way to the application."""

    # No `__getattr__`, in whose presence the interpreter takes ten times as long to read one of these.
    __slots__ = ("__weakref__", "_call", "_read", "_seen", "_source")

    def __init__(self, source: Any, call: _Call) -> None:
        self._source = source
        self._call = call
        self._seen = call.seen
        self._read: Callable[[Any, Any], object] = call.body.feed if call.body is not None else self._first

    def _first(self, chunk: Any, seen: Any) -> object:
        call = self._call
        call.first_chunk = perf_counter() - call.started
        self._read = call.endpoint.chunk or _unread
        return self._read(chunk, seen)

    # The same loop three times: sharing it would cost each chunk a call, and a generator costs a third of `__next__`.

    def __iter__(self) -> Iterator[Any]:
        call, seen = self._call, self._seen
        try:
            for chunk in self._source:
                read = self._read  # called in place, it would be looked up as a method, for twice as much
                try:
                    if read(chunk, seen):
                        continue
                except Exception as error:  # noqa: BLE001  # a reader of ours must not break the application's stream
                    call.engine.observer.failed("chunk", error)
                yield chunk
        except GeneratorExit:
            raise  # the application has left its loop, and may go on with another one
        except BaseException as error:
            call.end(error=error)
            raise
        call.end()

    def __next__(self) -> Any:
        call = self._call
        try:
            for chunk in self._source:
                read = self._read
                try:
                    if read(chunk, self._seen):
                        continue
                except Exception as error:  # noqa: BLE001
                    call.engine.observer.failed("chunk", error)
                return chunk
        except BaseException as error:
            call.end(error=error)
            raise
        call.end()
        raise StopIteration

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        try:
            async for chunk in self._source:
                read = self._read
                try:
                    if read(chunk, self._seen):
                        continue
                except Exception as error:  # noqa: BLE001
                    call.engine.observer.failed("chunk", error)
                return chunk
        except BaseException as error:
            call.end(error=error)
            raise
        call.end()
        raise StopAsyncIteration

    def close(self) -> None:
        try:
            self._source.close()
        finally:
            self._call.end(aborted=True)

    async def aclose(self) -> None:
        try:
            await self._source.aclose()
        finally:
            self._call.end(aborted=True)

    def __del__(self) -> None:
        # Other people's locks may be held here: only a record on a queue, which the next call or flush drains.
        if not self._call._ended:
            self._call.engine._abandoned.put((self._call, time_ns()))


class _Handed(_Watched):
    """One that the application gets in its own hands, with whatever else the iterator can do."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _unread(_chunk: Any, _seen: Any) -> None:
    """Reads a chunk of a method that is not known to stream."""


class _Body:
    """Reads the HTTP body behind a raw response while the application reads it: one JSON document or server events."""

    __slots__ = ("_buffer", "_call", "_envelope", "_events", "_size")

    def __init__(self, call: _Call, content_type: str, envelope: dict[str, Any] | None = None) -> None:
        self._call = call
        self._envelope = envelope
        """The result that the body is a part of: the reader of the answer gets it with the body's content in place."""
        self._events = "event-stream" in content_type
        self._buffer = bytearray()
        self._size = 0

    def feed(self, data: bytes, _seen: Any = None) -> None:
        self._size += len(data)
        if self._size > _MAX_RAW_BODY and not self._events:
            self._buffer.clear()
            return
        self._buffer += data
        if self._events:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            for line in lines:
                self._event(line)

    def _event(self, line: bytes) -> None:
        payload = line[5:].strip() if line.startswith(b"data:") else b""
        call = self._call
        if payload.startswith(b"{") and call.seen is not None and call.endpoint.chunk is not None:
            if call.first_chunk is None:
                call.first_chunk = perf_counter() - call.started
            call.endpoint.chunk(json.loads(payload, object_hook=Fields), call.seen)

    def close(self) -> None:
        seen = self._call.seen
        if seen is None:
            return
        with suppress(ValueError):  # a body that was cut, or is no JSON: what came before counts
            if self._events:
                self._event(bytes(self._buffer))
            elif self._envelope is not None:
                whole = json.loads(bytes(self._buffer))
                seen.attributes = self._call.endpoint.response({**self._envelope, self._call.endpoint.part: whole})
            elif self._buffer:
                seen.attributes = self._call.endpoint.response(json.loads(bytes(self._buffer)))
                seen.final = True
        self._buffer.clear()


class _Mark:
    """Hangs on a stream, body or raw response, and says whose it is: dropped unread, its call is ended all the same."""

    __slots__ = ("call",)

    def __init__(self, call: _Call) -> None:
        self.call = call

    def __del__(self) -> None:
        if not self.call._ended:
            self.call.engine._abandoned.put((self.call, time_ns()))


class _Rebuilt(NamedTuple):
    """A stream whose manager makes another one from its HTTP response, so that only the body can be watched."""

    stream: Any
    http_response: Any


class _Ours(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A patched function, told apart from other people's patches."""


def _gate(ours: _Ours, only: Container[object]) -> Callable[..., Any]:
    """The patched method of a class, but for first arguments that are none of ours: those cost no wrapper."""
    original = ours.__wrapped__

    @wraps(original)
    def method(instance: Any, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] not in only:
            return original(instance, *args, **kwargs)
        return ours.__get__(instance, type(instance))(*args, **kwargs)

    method._self_parent = ours  # type: ignore[attr-defined]  # as of a wrapper that is bound: it is known for ours
    return method


class _Awaited:
    """Stands in for the awaitable that an async stream manager keeps until it is entered."""

    __slots__ = ("_run", "close")

    def __init__(self, run: Callable[[], Any], close: Callable[[], None]) -> None:
        self._run = run
        self.close = close

    def __await__(self) -> Any:
        return self._run().__await__()


class _Patch(NamedTuple):
    owner: Any
    name: str
    wrapper: Any
    original: Any
    inherited: bool


class Engine:
    """Patches the methods of providers, and watches what they return.

    An engine that is off passes every call through untouched. One engine serves a process; tests make their own.
    """

    def __init__(self) -> None:
        self.observer: Observer = _Silent()
        self.ask_for_usage = True
        """Whether streams that carry no usage unless asked are asked for it."""
        self._tracer: Tracer = get_tracer(__name__)
        self._recording: content.Recording | None = None
        self._call: type[_Call] = _Call
        self._fingerprints: Fingerprints | None = None
        self._providers: dict[str, Provider] = {}
        self._patches: dict[str, list[_Patch]] = {}
        self._patching = RLock()
        self._abandoned: SimpleQueue[tuple[_Call, int]] = SimpleQueue()
        self._sites: dict[int, tuple[object, Provider, _Site]] = {}
        self._kinds: dict[type, str] = {}
        self._priced_ids: OrderedDict[str, None] = OrderedDict()
        self._brought_ids: OrderedDict[str, None] = OrderedDict()

    # ---------------------------------------------------------------- switching on and off

    def start(
        self,
        tracer: Tracer,
        observer: Observer | None = None,
        *,
        ask_for_usage: bool = True,
        prompt_key: str = "",
        logger: Logger | None = None,
    ) -> None:
        """Sends spans to `tracer` and tells `observer` of every call from now on.

        prompt_key: with one, spans carry hashes of their prompts.
        logger: takes the events of content, where the standard variable asks for them; by default the global one.
        """
        self._tracer = tracer
        self.observer = observer or _Silent()
        self.ask_for_usage = ask_for_usage
        mode = content.mode()
        self._recording = mode and content.Recording(mode, logger or get_logger("costspan"), self.observer.failed)
        self._call = _Recorded if mode else _Call
        self._fingerprints = Fingerprints(prompt_key) if prompt_key else None

    def instrument(self, provider: Provider) -> None:
        """Patches what the installed SDK has of the provider's endpoints, now or when the SDK is imported."""
        if provider.name in self._providers:
            return
        self._providers[provider.name] = provider
        self._patches[provider.name] = []
        for endpoint in provider.endpoints:
            for module in (endpoint.module, *endpoint.moved_from):
                self._when_imported(module, partial(self._patch_endpoint, provider, endpoint))
        for native in provider.native_spans:
            self._when_imported(native.module, partial(self._patch_native, provider, native))

    def uninstrument(self, provider: Provider) -> None:
        """Takes back every patch of the provider. What others patched on top stays and is passed through."""
        self._providers.pop(provider.name, None)
        for patch in reversed(self._patches.pop(provider.name, [])):
            if vars(patch.owner).get(patch.name) is patch.wrapper:
                if patch.inherited:
                    delattr(patch.owner, patch.name)
                else:
                    setattr(patch.owner, patch.name, patch.original)

    def drain(self) -> None:
        """Ends the calls whose streams were dropped unread."""
        while True:
            try:
                call, at = self._abandoned.get_nowait()
            except Empty:
                return
            call.end(ended_at=at, aborted=True)

    def _when_imported(self, module: str, patch: Callable[[Any], None]) -> None:
        def hook(found: Any) -> None:
            try:
                patch(found)
            except Exception as error:  # noqa: BLE001  # runs inside the application's import statement
                self.observer.failed("patch", error)

        # Loaded parents may lack the module in this version; only an import that happens calls the hook.
        if module in sys.modules:
            hook(sys.modules[module])
        else:
            wrapt.register_post_import_hook(hook, module)

    def _patch_native(self, provider: Provider, native: NativeSpans, module: Any) -> None:
        self._patch(provider, module, native.function, partial(self._native_span, native.instead))

    def _patch_endpoint(self, provider: Provider, endpoint: Endpoint, module: Any) -> None:
        class_name, _, method = endpoint.method.rpartition(".")
        owners = (module,) if not class_name else (getattr(module, n, None) for n in (class_name, f"Async{class_name}"))
        for owner in owners:
            if endpoint.unless and hasattr(owner, endpoint.unless):
                continue
            for name in (method, endpoint.async_method):
                if name and callable(getattr(owner, name, None)):
                    # Decorators of the SDK hide that a method is a coroutine function.
                    is_async = inspect.iscoroutinefunction(inspect.unwrap(getattr(owner, name)))
                    wrapper = self._wrapper(provider, endpoint, is_async)
                    self._patch(provider, owner, name, wrapper, endpoint.rebound_in, endpoint.only)

    def _patch(
        self,
        provider: Provider,
        owner: Any,
        name: str,
        wrapper: Callable[..., Any],
        rebound_in: tuple[str, ...] = (),
        only: Container[object] | None = None,
    ) -> None:
        with self._patching:
            self._patch_once(provider, owner, name, wrapper, rebound_in, only)

    def _patch_once(
        self,
        provider: Provider,
        owner: Any,
        name: str,
        wrapper: Callable[..., Any],
        rebound_in: tuple[str, ...],
        only: Container[object] | None,
    ) -> None:
        patches = self._patches.get(provider.name)
        if patches is None or not hasattr(owner, name) or any(p.owner is owner and p.name == name for p in patches):
            return
        original = vars(owner).get(name)
        # A class that took over the function of another one has it patched already.
        if isinstance(getattr(original, "_self_parent", original), _Ours):
            return
        inherited = original is None
        wrapped: Any = _Ours(getattr(owner, name) if inherited else original, wrapper)
        if only is not None:
            wrapped = _gate(wrapped, only)
        setattr(owner, name, wrapped)
        patches.append(_Patch(owner, name, wrapped, original, inherited))
        for holder in filter(None, map(sys.modules.get, rebound_in)):
            kept = vars(holder).get(name)
            client = getattr(kept, "__self__", None) if getattr(kept, "__func__", None) is original else None
            if client is not None or kept is original:
                ours = wrapped if client is None else wrapped.__get__(client, type(client))
                setattr(holder, name, ours)
                patches.append(_Patch(holder, name, ours, kept, inherited=False))

    def _wrapper(self, provider: Provider, endpoint: Endpoint, is_async: bool) -> Callable[..., Any]:
        sync, run_async, providers = self._sync, self._async, self._providers
        key = provider.name

        def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if key not in providers:
                return wrapped(*args, **kwargs)
            if endpoint.deferred:
                manager = wrapped(*args, **kwargs)
                self._defer(manager, provider, endpoint, instance, args, kwargs)
                return manager
            if endpoint.opens:
                arguments = dict(zip(endpoint.positional, args, strict=False)) | kwargs
                return _opened(wrapped(*args, **kwargs), arguments)
            if endpoint.event is not None:
                return (self._areceive if is_async else self._receive)(
                    provider, endpoint, instance, wrapped, args, kwargs
                )
            if is_async:
                return run_async(provider, endpoint, instance, wrapped, args, kwargs)
            return sync(provider, endpoint, instance, wrapped, args, kwargs)

        return call

    # ---------------------------------------------------------------- one call

    def _sync(
        self,
        provider: Provider,
        endpoint: Endpoint,
        instance: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        call = self._prepare(provider, endpoint, instance, args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        decision = None
        try:
            if not call.endpoint.fetch:
                decision = self.observer.before(call.attributes, call.characters, call.may_swap)
        except Exception as error:  # noqa: BLE001
            self.observer.failed("before", error)
        args, kwargs = self._start(call, instance, decision, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            call.leave()
            call.end(error=error)
            raise
        call.leave()
        return self._settle(call, result)

    async def _async(
        self,
        provider: Provider,
        endpoint: Endpoint,
        instance: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        call = self._prepare(provider, endpoint, instance, args, kwargs)
        if call is None:
            return await function(*args, **kwargs)
        decision = None
        try:
            if not call.endpoint.fetch:
                decision = await self.observer.abefore(call.attributes, call.characters, call.may_swap)
        except Exception as error:  # noqa: BLE001
            self.observer.failed("before", error)
        args, kwargs = self._start(call, instance, decision, args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            call.leave()
            call.end(error=error)
            raise
        call.leave()
        return self._settle(call, result)

    def _receive(
        self,
        provider: Provider,
        endpoint: Endpoint,
        instance: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        result = function(*args, **kwargs)
        self._received(provider, endpoint, instance, result)
        return result

    async def _areceive(
        self,
        provider: Provider,
        endpoint: Endpoint,
        instance: Any,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        result = await function(*args, **kwargs)
        self._received(provider, endpoint, instance, result)
        return result

    def _received(self, provider: Provider, endpoint: Endpoint, instance: Any, result: Any) -> None:
        """Counts what a session brought, if it ends a billed answer. Never raises."""
        try:
            if endpoint.event is not None and endpoint.event(result):
                opened = getattr(instance, "__dict__", {}).get(_OPENED, {})
                call = self._prepare(provider, endpoint, instance, (), {**opened, "self": instance})
                if call is not None:
                    self._start(call, instance, None, (), {})
                    call.leave()
                    call.end(result)
        except Exception as error:  # noqa: BLE001
            self.observer.failed("event", error)

    def _prepare(
        self, provider: Provider, endpoint: Endpoint, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Call | None:
        """The call with its request attributes; None if the SDK is to be called as it is.

        That is where preparing failed, and where one method of an SDK calls another: the outer one is the call.
        """
        outer = _running.get()
        if outer is not None and (outer.provider is provider or outer.provider.covers):
            return None
        try:
            if not self._abandoned.empty():
                self.drain()
            if args:
                kwargs = {**dict(zip(endpoint.positional, args, strict=False)), **kwargs}
            chosen = None
            if endpoint.choose is not None:
                chosen = endpoint.choose(kwargs, instance)
                if chosen is None:
                    return None
                endpoint, kwargs = chosen  # type: ignore[assignment]
            site = self._site(provider, instance)
            attributes: Attributes = {
                semconv.OPERATION: endpoint.operation,
                semconv.PROVIDER: site.provider,
            }
            if site.host:
                attributes[semconv.SERVER_ADDRESS] = site.host
                if site.port not in _DEFAULT_PORTS:
                    attributes[semconv.SERVER_PORT] = site.port
            try:
                attributes.update(endpoint.request(kwargs))
            except Exception as error:  # noqa: BLE001
                self.observer.failed("request", error)
            if self._fingerprints is not None:
                try:
                    attributes.update(self._fingerprints(endpoint.content, kwargs))
                except Exception as error:  # noqa: BLE001
                    self.observer.failed("fingerprint", error)
            call = self._call(self, provider, endpoint, attributes, kwargs)
            if chosen is not None or endpoint.deferred:
                call.swaps = False
        except Exception as error:  # noqa: BLE001
            self.observer.failed("prepare", error)
            return None
        return call

    def _start(
        self, call: _Call, instance: Any, decision: Decision | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Starts the span and makes it current; returns the arguments to call with. Raises for a refused call."""
        refuse: BaseException | None = None
        try:
            attributes, endpoint = call.attributes, call.endpoint
            if decision is not None:
                call.token, refuse = decision.token, decision.refuse
                attributes.update(decision.attributes)
                if decision.overrides:
                    args, kwargs = _replaced(endpoint.positional, args, kwargs, decision.overrides)
                    call.prompt = {**call.prompt, **decision.overrides}
                    attributes.update(endpoint.request(call.prompt))
            if self.ask_for_usage and endpoint.ask is not None and kwargs.get("stream") is True:
                asked = endpoint.ask({**call.prompt, **kwargs}, attributes.get(semconv.SERVER_ADDRESS, ""), instance)
                if asked is not None:
                    kwargs = {**kwargs, **asked}
                    call.asked = True
            # An empty context suppresses nothing, and is what most calls are made in.
            if not get_current() or is_instrumentation_enabled():
                operation, model = attributes[semconv.OPERATION], attributes.get(semconv.REQUEST_MODEL)
                call.span = self._tracer.start_span(
                    f"{operation} {model}" if model else operation,
                    kind=SpanKind.CLIENT,
                    attributes=attributes,
                    start_time=call.at,
                )
            if refuse is None:
                call.enter()
            else:
                call.refused(refuse)
        except Exception as error:  # noqa: BLE001
            self.observer.failed("start", error)
        if refuse is not None:
            raise refuse
        return args, kwargs

    def _settle(self, call: _Call, result: Any) -> Any:
        """Ends the call by what came back: a value now, a stream when it has been read. Never raises."""
        try:
            if call.endpoint.part and isinstance(result, dict) and call.endpoint.part in result:
                return self._settle_part(call, result, result[call.endpoint.part])
            kind = self._kinds.get(type(result))
            if kind is None:
                if len(self._kinds) >= _MAX_KINDS:
                    self._kinds.clear()
                kind = self._kinds[type(result)] = _kind(result)
            if kind == "value":
                call.end(result)
                return result
            call.seen = Seen(several=semconv.REQUEST_CHOICE_COUNT in call.attributes)
            if kind == "raw" and _iterator(call.provider, result) is None:
                return self._settle_raw(call, result)
            call.seen.asked = call.asked
            if self._watch_iterator(call, result):
                return result
            watched = _Handed(result, call)
            # A generator stays one: what the application may do with it, it can do with ours.
            return iter(watched) if kind == "generator" else _relayed(watched) if kind == "async generator" else watched
        except Exception as error:  # noqa: BLE001
            self.observer.failed("settle", error)
            call.end()
            return result

    def _watch_iterator(self, call: _Call, stream: Any) -> bool:
        """Watches a stream from inside, so that the application keeps the SDK's own object; False if that cannot be."""
        if call.provider.iterator in _NEXT and not isinstance(stream, GeneratorType | AsyncGeneratorType):
            self._watch_methods(call, stream, *_NEXT, *_CLOSING)
            return True
        name = _iterator(call.provider, stream)
        if name is None:
            return False
        setattr(stream, name, _Watched(getattr(stream, name), call))
        self._watch_methods(call, stream, *_CLOSING, call.provider.parser)
        return True

    def _watch_methods(self, call: _Call, target: Any, *names: str) -> None:
        """Has the methods of these names, those that there are, tell the call when the application calls them."""
        owner = type(target)
        for name in names:
            method = getattr(owner, name, None) if name else None
            if method is not None and not isinstance(vars(owner).get(name), _Ours):
                is_async = inspect.iscoroutinefunction(inspect.unwrap(method))
                self._patch(call.provider, owner, name, _watching(name, is_async))
        target._costspan = _Mark(call)

    def _watch_source(self, call: _Call, source: Any) -> None:
        """A body whose `with` hands out what it reads from itself: the application reads that from now on."""
        call.source = id(source)
        for name in ("read", *_CLOSING):
            method = getattr(source, name, None)
            if method is not None:
                setattr(source, name, _Ours(method, _watching(name, inspect.iscoroutinefunction(method))))
        source._costspan = _Mark(call)

    def _settle_part(self, call: _Call, result: dict[str, Any], part: Any) -> Any:
        """A result one field of which is a stream, or a body that the application reads when it likes."""
        if _iterator(call.provider, part) is None and not hasattr(part, "read"):
            call.end(result)
            return result
        # What stands beside the part counts too, and alone where nobody reads the part or it is cut.
        beside = {**result, call.endpoint.part: None}
        call.seen = Seen(call.endpoint.response(beside))
        if not self._watch_iterator(call, part):
            call.body = _Body(call, "", beside)
            self._watch_methods(call, part, *_READING, *_CLOSING, *_ENTERING, *_LEAVING)
        return result

    def _settle_raw(self, call: _Call, result: Any) -> Any:
        """A raw response: its body is read when the application reads it, unless the SDK has read it already."""
        response = result.http_response
        call.body = body = _Body(call, response.headers.get("content-type", ""))
        if hasattr(response, "_content"):
            body.feed(response.content)
            call.end()
            return result
        owner, reference = type(response), weakref.ref(response)

        def iter_bytes(*args: Any, **kwargs: Any) -> Any:
            return _Handed(owner.iter_bytes(reference(), *args, **kwargs), call)

        def aiter_bytes(*args: Any, **kwargs: Any) -> Any:
            return _Handed(owner.aiter_bytes(reference(), *args, **kwargs), call)

        response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes
        response._costspan = _Mark(call)
        return result

    def _defer(
        self,
        manager: Any,
        provider: Provider,
        endpoint: Endpoint,
        instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Makes the request that a stream manager sends when it is entered a call of ours."""
        try:
            name = next(n for n in vars(manager) if n.endswith("__api_request"))
            request = getattr(manager, name)
            enter = getattr(type(manager), "__enter__", None) or type(manager).__aenter__
            rebuilds = "_cast_to" in enter.__code__.co_names

            def watched(stream: Any) -> Any:
                return _Rebuilt(stream, stream.response) if rebuilds else stream

            def handed(result: Any) -> Any:
                return result.stream if isinstance(result, _Rebuilt) else result

            if callable(request):

                def run() -> Any:
                    send = lambda *_, **__: watched(request())  # noqa: E731
                    return handed(self._sync(provider, endpoint, instance, send, args, kwargs))

                setattr(manager, name, run)
            else:

                async def send(*_: Any, **__: Any) -> Any:
                    return watched(await request)

                async def arun() -> Any:
                    try:
                        return handed(await self._async(provider, endpoint, instance, send, args, kwargs))
                    finally:
                        request.close()  # a refused call never awaits it

                setattr(manager, name, _Awaited(arun, request.close))
        except Exception as error:  # noqa: BLE001
            self.observer.failed("defer", error)

    # ---------------------------------------------------------------- who and where

    def _site(self, provider: Provider, instance: Any) -> _Site:
        """Provider and host of the instance's client; the URL is parsed once per URL object."""
        url = provider.base_url(instance)
        found = self._sites.get(id(url))
        if found is not None and found[0] is url and found[1] is provider:
            return found[2]
        parts = urlsplit(str(url) if url is not None else "")
        host = parts.hostname or ""
        name = (provider.identify(instance, host) if provider.identify else None) or provider_of(host) or provider.name
        site = _Site(name, host, parts.port)
        if len(self._sites) >= _MAX_SITES:
            self._sites.clear()
        self._sites[id(url)] = (url, provider, site)
        return site

    def _native_span(
        self,
        instead: Mapping[str, Any] | None,
        wrapped: Any,
        _instance: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The SDK wants to start a span of its own for our call: it gets ours, to propagate but not to write to."""
        call = _running.get()
        if call is None:
            return wrapped(*args, **kwargs)
        if instead is not None:
            # A tracer of the SDK's own provider, which sends its spans to a place of their own, is none of our concern.
            theirs, ours = (getattr(t, "span_processor", None) for t in (kwargs.get("tracer"), self._tracer))
            return wrapped(*args, **(kwargs if theirs and ours and theirs != ours else {**kwargs, **instead}))
        context = call.span.get_span_context()
        # None: no span and no headers of the SDK's; an invalid one would cut off the application's own trace.
        return NonRecordingSpan(context) if context.is_valid and kwargs.get("propagation", True) else None

    def has_counted(self, response_id: object) -> bool:
        """Whether a call of ours brought this response; known of SDKs that record their calls themselves."""
        return response_id in self._brought_ids

    def _remember(self, response_id: Any) -> None:
        """An SDK that records its calls itself has brought this response, and may tell of it from now on."""
        if isinstance(response_id, str):
            self._brought_ids[response_id] = None
            if len(self._brought_ids) > _MAX_PRICED_IDS:
                self._brought_ids.popitem(last=False)

    def _first_usage(self, attributes: Attributes) -> bool:
        """Whether a fetched response brings usage that nobody has counted; remembers that it has."""
        response_id = attributes.get(semconv.RESPONSE_ID)
        if not isinstance(response_id, str):
            return False
        if semconv.INPUT_TOKENS not in attributes and not any(key.startswith(_USAGE_PREFIXES) for key in attributes):
            return False
        if response_id in self._priced_ids:
            return False
        self._priced_ids[response_id] = None
        if len(self._priced_ids) > _MAX_PRICED_IDS:
            self._priced_ids.popitem(last=False)
        return True


engine = Engine()
"""The process's engine, which the instrumentors patch."""


def _replaced(
    positional: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], overrides: Mapping[str, object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with some of them replaced, each where it was given."""
    by_position = list(args)
    for name, value in overrides.items():
        if name in positional[: len(args)]:
            by_position[positional.index(name)] = value
        else:
            kwargs = {**kwargs, name: value}
    return tuple(by_position), kwargs


def _kind(result: Any) -> str:
    """How a result of this type is settled: `raw`, `stream`, `generator`, `async generator` or `value`."""
    kind = type(result)
    if kind is GeneratorType:
        return "generator"
    if kind is AsyncGeneratorType:
        return "async generator"
    annotated = any("http_response" in getattr(cls, "__annotations__", ()) for cls in kind.__mro__)
    if annotated or hasattr(kind, "http_response") or "http_response" in getattr(result, "__dict__", ()):
        return "raw"
    if hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
        return "stream"
    return "value"


def _iterator(provider: Provider, stream: Any) -> str | None:
    """The attribute of the stream that holds its iterator, None if it has none."""
    names = provider.iterator if isinstance(provider.iterator, tuple) else (provider.iterator,)
    return next((name for name in names if hasattr(stream, name)), None)


@asynccontextmanager
async def _opened(manager: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    """The manager, whose session remembers the arguments that it was opened with."""
    async with manager as session:
        with suppress(AttributeError):
            setattr(session, _OPENED, arguments)
        yield session


def _watching(name: str, is_async: bool) -> Callable[..., Any]:
    """A wrapper for a method of a stream's or body's class, by which the one that belongs to a call tells it.

    It is the class's method, and none put on the object: that would hold the object, or fail where it is a temporary.
    """

    def watched(wrapped: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mark: _Mark | None = getattr(target, "_costspan", None)
        if mark is None:
            return wrapped(*args, **kwargs)
        if is_async:
            return awatched(mark.call, wrapped, target, args, kwargs)
        while True:
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                mark.call.over(target, None if isinstance(error, StopIteration) else error)
                raise
            if not mark.call.heard(name, target, result, (*args, *kwargs.values())):
                return result

    async def awatched(call: _Call, wrapped: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            try:
                result = await wrapped(*args, **kwargs)
            except BaseException as error:
                call.over(target, None if isinstance(error, StopAsyncIteration) else error)
                raise
            if not call.heard(name, target, result, (*args, *kwargs.values())):
                return result

    return watched


async def _relayed(watched: _Watched) -> AsyncGenerator[Any, None]:
    try:
        async for chunk in watched:
            yield chunk
    finally:
        await watched.aclose()


def _text_length(value: Any, depth: int = 0) -> int:
    """Characters of all the text in a prompt: strings in lists, dicts and SDK objects; data URLs do not count."""
    if isinstance(value, str):
        return 0 if value.startswith("data:") else len(value)
    if depth > 8 or value is None:
        return 0
    if isinstance(value, Mapping):
        return sum(_text_length(item, depth + 1) for key, item in value.items() if key not in {"role", "type", "data"})
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray) and hasattr(value, "__len__"):
        return sum(_text_length(item, depth + 1) for item in value)
    if hasattr(value, "__dict__"):
        return _text_length(vars(value), depth + 1)
    return 0
