"""OpenAI: responses, created, streamed, over a socket, compacted, and retrieved after they ran in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, get
from costspan_instrumentation.providers.openai.requests import identity, request
from costspan_instrumentation.providers.openai.usage import responses_usage

if TYPE_CHECKING:
    from collections.abc import Mapping


def _request(kwargs: Mapping[str, Any]) -> Attributes:
    attributes = request(kwargs)
    attributes[semconv.OPENAI_API_TYPE] = "responses"
    if effort := get(kwargs.get("reasoning"), "effort"):
        attributes[semconv.REQUEST_REASONING_LEVEL] = effort
    if isinstance(conversation := kwargs.get("conversation"), str) or (conversation := get(conversation, "id")):
        attributes[semconv.CONVERSATION_ID] = conversation
    return attributes


def _retrieve_request(_: Mapping[str, Any]) -> Attributes:
    return {semconv.OPENAI_API_TYPE: "responses"}


def _response(answer: Any) -> Attributes:
    attributes = identity(answer)
    reason = get(get(answer, "incomplete_details"), "reason") or get(answer, "status")
    if reason:
        attributes[semconv.RESPONSE_FINISH_REASONS] = (reason,)
    attributes.update(responses_usage(get(answer, "usage")))
    searches = sum(
        1
        for item in get(answer, "output") or ()
        if get(item, "type") == "web_search_call" and get(get(item, "action"), "type") in {None, "search"}
    )
    if searches:
        attributes[semconv.WEB_SEARCHES] = searches
    return attributes


def _chunk(event: Any, seen: Seen) -> None:
    told = event.__dict__
    if type(delta := told.get("delta")) is str:
        seen.characters += len(delta)
    elif (answer := told.get("response")) is None:
        return
    elif get(answer, "usage") is not None:
        seen.attributes.update(_response(answer))
        seen.final = True
    elif semconv.RESPONSE_MODEL not in seen.attributes:
        seen.attributes.update(identity(answer))


def _retrieve_response(answer: Any) -> Attributes:
    """A background response told no usage when it was made, so it is told here; any other was counted then."""
    attributes = _response(answer) if get(answer, "background") is True else identity(answer)
    attributes[semconv.OPERATION] = semconv.CHAT
    if model := get(answer, "model"):
        attributes[semconv.REQUEST_MODEL] = model
    return attributes


def _retrieve_chunk(event: Any, seen: Seen) -> None:
    answer = get(event, "response")
    if answer is not None and get(answer, "usage") is not None:
        seen.attributes.update(_retrieve_response(answer))
    seen.final = True


def _is_whole(event: Any) -> bool:
    return get(event, "type") in {"response.completed", "response.incomplete", "response.failed"}


def _socket_response(event: Any) -> Attributes:
    answer = get(event, "response")
    return {**_response(answer), semconv.REQUEST_MODEL: get(answer, "model") or ""}


_MODULE = "openai.resources.responses.responses"
_CONTENT = ("input", "instructions", "tools")

CREATE, PARSE = (
    Endpoint(_MODULE, method, semconv.CHAT, _request, _response, _chunk, content=_CONTENT, kept=True)
    for method in ("Responses.create", "Responses.parse")
)
COMPACT = Endpoint(_MODULE, "Responses.compact", semconv.CHAT, _request, _response, content=_CONTENT)
RETRIEVE = Endpoint(
    _MODULE,
    "Responses.retrieve",
    semconv.FETCH_RESPONSE,
    _retrieve_request,
    _retrieve_response,
    _retrieve_chunk,
    positional=("response_id",),
    fetch=True,
)
SOCKET = Endpoint(
    _MODULE,
    "ResponsesConnection.parse_event",
    semconv.CHAT,
    _retrieve_request,
    _socket_response,
    kept=True,
    event=_is_whole,
)
