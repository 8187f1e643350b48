"""What a provider is to the engine: a table of endpoints and pure functions that read them.

A reader takes what the SDK was given or gave back (SDK objects and plain dicts alike) and returns span attributes
under the names of `semconv`. It holds no span, no lock, no await and no try: the engine does all that, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Attributes = dict[str, Any]
"""Span attributes on their way to a span: str, bool, int, float, or a tuple of those.

A count is passed on as the provider sent it, a wrong one too (negative, text), so that pricing can say what is
wrong with it. What is not known is left out.
"""


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
    notes: Any = None
    """What a chunk reader itself wants to remember until the next chunk."""


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
        streams. It runs on every chunk, so it reads attributes and does little.
    content: names of the arguments that hold the prompt, for estimates of its length.
    ask: (arguments, host, instance) -> arguments to change so that a stream tells its usage, or None where the
        application asked itself or the host may refuse. Called for streamed calls only.
    hide: chunk -> True if the chunk exists only because `ask` asked for it, so that the application never sees it.
    positional: names of the arguments that may come by position.
    choose: (arguments, instance) -> the endpoint that this call is, and its arguments, or None for one that is none;
        for a method through which an SDK sends all its requests.
    part: field of the result (a dict) under which its stream, or a body to be read, stands.
    event: result -> whether it is the end of a billed answer; for a method that receives what a session brings. Its
        calls cannot be refused, and `request` gets the session as `self`.
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
    chunk: Callable[[Any, Seen], None] | None = None
    content: tuple[str, ...] = ()
    ask: Callable[[Mapping[str, Any], str, Any], Mapping[str, Any] | None] | None = None
    hide: Callable[[Any], bool] | None = None
    positional: tuple[str, ...] = ()
    moved_from: tuple[str, ...] = ()
    deferred: bool = False
    unless: str = ""
    kept: bool = False
    fetch: bool = False
    async_method: str = ""
    rebound_in: tuple[str, ...] = ()
    choose: Callable[[Mapping[str, Any], Any], tuple[Endpoint, Mapping[str, Any]] | None] | None = None
    part: str = ""
    event: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider SDK: what to patch, how to tell who is behind it, how to read its usage.

    name: value of `gen_ai.provider.name` where the host does not say otherwise.
    requires: the versions of the SDK that are tested, as a requirement specifier.
    base_url: resource instance -> the base URL (str or URL object) that its client talks to.
    identify: (instance, host) -> provider name, for an SDK that serves several providers on one host; optional.
    iterator: attribute of the SDK's stream objects that holds the iterator they read from.
    covers: calls of other SDKs that are made inside are how this one sends its own, and are not counted beside it.
    native_spans: (module, function) with which the SDK starts spans of its own; the engine answers it with our span.
    usage_formats: name of a usage format (`openai.chat`) -> reader of the provider's raw usage object alone.
    """

    name: str
    requires: str
    endpoints: tuple[Endpoint, ...]
    base_url: Callable[[Any], object]
    identify: Callable[[Any, str], str | None] | None = None
    iterator: str = "_iterator"
    covers: bool = False
    native_spans: tuple[str, str] | None = None
    usage_formats: Mapping[str, Callable[[Any], Attributes]] = field(default_factory=dict)


class Fields(dict[str, Any]):
    """A decoded JSON object whose fields read like an SDK object's; one that is missing reads as None.

    >>> Fields(usage=Fields(input_tokens=3)).usage.input_tokens, Fields().usage
    (3, None)
    """

    __slots__ = ()
    __getattr__ = dict.get


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

    >>> total(1, None, "2"), total(None, None), total(3, -1), total(3, "x")
    (3, None, -1, 'x')
    """
    result: int | None = None
    for count in counts:
        if count is None:
            continue
        if type(count) is str and count.isdecimal():
            count = int(count)  # noqa: PLW2901
        if type(count) is not int or count < 0:
            return count
        result = count if result is None else result + count
    return result


def known(attributes: Mapping[str, Any]) -> Attributes:
    """The attributes that have a value.

    >>> known({"a": 1, "b": None})
    {'a': 1}
    """
    return {key: value for key, value in attributes.items() if value is not None}
