"""What a provider is to the engine: a table of endpoints and pure functions that read them.

A reader takes what the SDK was given or gave back (SDK objects and plain dicts alike) and returns span attributes
under the names of `semconv`. It holds no span, no lock, no await and no try: the engine does all that, once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from costspan_instrumentation import semconv

Attributes = dict[str, Any]
"""Span attributes on their way to a span: str, bool, int, float, or a tuple of those.

A count is passed on as the provider sent it, a wrong one too (negative, text), so that pricing can say what is
wrong with it. What is not known is left out.
"""


_TAIL = 32
"""Chunks kept unread: enough to tell how long they are, and to find the end of an answer among them."""


@dataclass(slots=True)
class Seen:
    """What a stream has told so far; chunk readers write into it."""

    attributes: Attributes = field(default_factory=dict)
    characters: int = 0
    """Length of the generated text so far, for an estimate if the provider's count never comes."""
    final: bool = False
    """The provider's final usage has come; without it the output is estimated from `characters`."""
    started: bool = False
    """The chunk reader has learnt who answers, and need not look again."""
    asked: bool = False
    """The stream tells its usage only because `ask` asked for it: a chunk reader hides what that did to the chunks."""
    notes: Any = None
    """What a chunk reader itself wants to remember until the next chunk."""
    several: bool = False
    """Several answers were asked for: their chunks come mixed, and each answer ends by itself."""
    tail: deque[Any] = field(default_factory=lambda: deque(maxlen=_TAIL))
    """The last of the chunks that a chunk reader has put aside unread: what they say may never be needed."""
    passed: int = 0
    """How many chunks it has put there."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One SDK method that makes one billed API call.

    module: dotted import path of the method's module. Where versions differ, the others in `moved_from`.
    method: `Class.method` of the synchronous client, or the name of a function of the module. The engine finds
        `AsyncClass.method` and patches both.
    async_method: name of the asynchronous twin in the same class or module, where there is one (`complete_async`).
    rebound_in: modules that keep the function, or the method bound to a client, under the same name (`ollama.chat`).
    operation: value of `gen_ai.operation.name`.
    request: keyword arguments of the call -> attributes. `gen_ai.request.model` names the span.
    response: the SDK's result, or the decoded JSON body of a raw one -> attributes with usage.
    chunk: reads one chunk of a stream (SDK object, or `Fields` of a raw one) into `Seen`; None if the method never
        streams. True says that the chunk is there only because `ask` asked, so that the application never sees it.
        It runs on every chunk, so it takes `__dict__` where it reads two fields: each attribute costs as much as that.
    tail: reads, once the stream has ended, what the chunk reader has put into `Seen.tail`.
    gathered: (stream, `Seen`), once the stream has ended: reads what the SDK's object itself has kept, where its chunks
        do not tell it. For streams that are watched by their `__next__`.
    content: names of the arguments that hold the prompt, for estimates of its length.
    ask: (arguments, host, instance) -> arguments to change so that a stream tells its usage, or None where the
        application asked itself or the host may refuse. Called for streamed calls only.
    positional: names of the arguments that may come by position.
    choose: (arguments, instance) -> the endpoint that this call is, and its arguments, or None for one that is none;
        for a method through which an SDK sends all its requests.
    only: values of the method's first argument with which it may be one of ours. Where most of its calls are not, this
        spares them `choose` and the rest.
    part: field of the result (a dict) under which its stream, or a body to be read, stands. `response` gets the result
        with what the body held there, or with None: before it is read, and of a stream.
    billed: arguments -> usage that the request alone tells (documents to rank, text to speak). It counts as soon as
        the provider has answered.
    event: result -> whether it is the end of a billed answer; for a method that receives what a session brings. Its
        calls cannot be refused, and `request` gets the session as `self`.
    opens: the method makes, by `asynccontextmanager`, the manager of a session: `request` of the session's events gets
        its arguments too.
    deferred: the method returns a manager whose request starts when it is entered (`with client.messages.stream()`).
    unless: a method of the same class; where it exists, the call goes through it and this one is not patched.
    kept: the provider keeps the response, so that a `fetch` endpoint may return it again.
    fetch: the method fetches an earlier response; its usage counts only if nobody counted it before.
    """

    module: str
    method: str
    operation: str
    request: Callable[[Mapping[str, Any]], Attributes]
    response: Callable[[Any], Attributes]
    chunk: Callable[[Any, Seen], bool | None] | None = None
    content: tuple[str, ...] = ()
    ask: Callable[[Mapping[str, Any], str, Any], Mapping[str, Any] | None] | None = None
    positional: tuple[str, ...] = ()
    moved_from: tuple[str, ...] = ()
    deferred: bool = False
    unless: str = ""
    kept: bool = False
    fetch: bool = False
    async_method: str = ""
    rebound_in: tuple[str, ...] = ()
    choose: Callable[[Mapping[str, Any], Any], tuple[Endpoint, Mapping[str, Any]] | None] | None = None
    only: Container[object] | None = None
    part: str = ""
    billed: Callable[[Mapping[str, Any]], Attributes] | None = None
    event: Callable[[Any], bool] | None = None
    gathered: Callable[[Any, Seen], None] | None = None
    tail: Callable[[Seen], None] | None = None
    opens: bool = False


@dataclass(frozen=True, slots=True)
class NativeSpans:
    """Where an SDK starts spans of its own for the calls that have one of ours.

    function: a function of `module` that starts one. During a call of ours it is answered with our span.
    instead: arguments with which the function starts none; given, it is called with these, and not answered. A span
        that would go elsewhere, by its argument `tracer`, is left to the SDK.
    """

    module: str
    function: str
    instead: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider SDK: what to patch, how to tell who is behind it, how to read its usage.

    name: value of `gen_ai.provider.name` where the host does not say otherwise.
    requires: the versions of the SDK that are tested, as a requirement specifier.
    base_url: resource instance -> the base URL (str or URL object) that its client talks to.
    identify: (instance, host) -> provider name, for an SDK that serves several providers on one host; optional.
    iterator: attribute of the SDK's stream objects that holds the iterator they read from; `__next__` where that one
        does not bring the chunks, since the objects make them themselves. Several names, where versions differ.
    parser: method of those objects that makes a chunk of what the iterator yields, where the iterator does not do that
        itself: an error that the provider sends inside a stream is raised there.
    covers: calls of other SDKs that are made inside are how this one sends its own, and are not counted beside it.
    native_spans: where the SDK starts spans of its own, which would count each call twice.
    records: the SDK can record its calls itself, in the span that it finds current or in one of its own: ours is not
        made current, lest the application loses what it wanted recorded, and what is recorded is not counted again.
    usage_formats: name of a usage format (`openai.chat`) -> reader of the provider's raw usage object alone.
    """

    name: str
    requires: str
    endpoints: tuple[Endpoint, ...]
    base_url: Callable[[Any], object]
    identify: Callable[[Any, str], str | None] | None = None
    iterator: str | tuple[str, ...] = "_iterator"
    parser: str = ""
    covers: bool = False
    native_spans: tuple[NativeSpans, ...] = ()
    records: bool = False
    usage_formats: Mapping[str, Callable[[Any], Attributes]] = field(default_factory=dict)


class Fields(dict[str, Any]):
    """A decoded JSON object whose fields read like an SDK object's; one that is missing reads as None.

    >>> Fields(usage=Fields(input_tokens=3)).usage.input_tokens, Fields().usage
    (3, None)
    >>> Fields(input_tokens=3).__dict__["input_tokens"], Fields().__dict__["input_tokens"]
    (3, None)
    """

    __slots__ = ()
    __getattr__ = dict.get

    @property
    def __dict__(self) -> Fields:  # type: ignore[override]
        return self

    def __missing__(self, name: str) -> None:
        return None


def get(source: Any, name: str) -> Any:
    """Field `name` of an SDK object or a dict; None where there is none.

    A pydantic object is read past its `__getattr__`, whose miss costs more than a whole span.

    >>> get({"a": 1}, "a"), get({"a": 1}, "b"), get(None, "a")
    (1, None, None)
    """
    if isinstance(source, dict):
        return source.get(name)
    if source is None:
        return None
    fields = fields_of(source)
    if name in fields:
        return fields[name]
    if hasattr(source, "__pydantic_extra__"):
        extra = source.__pydantic_extra__
        return extra.get(name) if extra else None
    return getattr(source, name, None)


def fields_of(source: Any) -> dict[str, Any]:
    """The declared fields of an SDK object, or the dict itself: for readers that run on every call or chunk."""
    if isinstance(source, dict):
        return source
    return getattr(source, "__dict__", _NO_FIELDS)


def undeclared(source: Any) -> dict[str, Any]:
    """What the answer has beside the SDK's declared fields; the whole dict of a raw one."""
    if isinstance(source, dict):
        return source
    return getattr(source, "__pydantic_extra__", None) or _NO_FIELDS


_NO_FIELDS: dict[str, Any] = {}


def total(*counts: Any) -> Any:
    """Sum of counts, None where none is known; a count that cannot be one is returned itself, to be judged later.

    >>> total(1, None, "2", 3.0), total(None, None), total(3, -1), total(3, "x")
    (6, None, -1, 'x')
    """
    result: int | None = None
    for count in counts:
        if count is None:
            continue
        if (type(count) is str and count.isdecimal()) or (type(count) is float and count.is_integer()):
            count = int(count)  # noqa: PLW2901
        if type(count) is not int or count < 0:
            return count
        result = count if result is None else result + count
    return result


def decoded(data: Any) -> Any:
    """What JSON in bytes or text says; None where it is none.

    >>> decoded(b'{"a": 1}'), decoded("no"), decoded(None)
    ({'a': 1}, None, None)
    """
    with suppress(TypeError, ValueError):
        return json.loads(data)
    return None


_LISTS = {semconv.REQUEST_STOP_SEQUENCES, semconv.REQUEST_ENCODING_FORMATS}
_SCALARS = {str, int, float, bool}


def given(arguments: Mapping[str, Any], names: Mapping[str, str]) -> Attributes:
    """The arguments that have a plain value, under the attributes of `names`; an SDK's "not given" is none.

    >>> given({"model": "m", "stop": "a", "seed": None}, {"model": "model", "stop": semconv.REQUEST_STOP_SEQUENCES})
    {'model': 'm', 'gen_ai.request.stop_sequences': ('a',)}
    """
    attributes: Attributes = {}
    for name, value in arguments.items():
        if (key := names.get(name)) is None:
            continue
        if key not in _LISTS:
            if type(value) in _SCALARS:
                attributes[key] = value
        elif type(value) is str:
            attributes[key] = (value,)
        elif isinstance(value, list | tuple) and value:
            attributes[key] = tuple(text for text in value if type(text) is str)
    return attributes


def known(attributes: Mapping[str, Any]) -> Attributes:
    """The attributes that have a value.

    >>> known({"a": 1, "b": None})
    {'a': 1}
    """
    return {key: value for key, value in attributes.items() if value is not None}
