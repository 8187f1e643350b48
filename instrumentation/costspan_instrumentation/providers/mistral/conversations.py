"""Mistral: agents, and conversations, whose tools are billed beside the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, given, known, total
from costspan_instrumentation.providers.mistral import chat

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECTORS = {
    "web_search": semconv.WEB_SEARCHES,
    "web_search_premium": semconv.WEB_SEARCHES,
    "code_interpreter": semconv.CODE_EXECUTIONS,
    "image_generation": semconv.IMAGES,
    "document_library": semconv.FILE_SEARCHES,
}


def agent_response(answer: Any) -> Attributes:
    """A completion of an agent, which asks for a model that the request does not name."""
    told = chat.response(answer)
    return told | known({semconv.REQUEST_MODEL: told.get(semconv.RESPONSE_MODEL)})


def agent_chunk(event: Any, seen: Seen) -> None:
    """An event of a streamed completion of an agent."""
    chat.chunk(event, seen)
    if semconv.REQUEST_MODEL not in seen.attributes and (model := seen.attributes.get(semconv.RESPONSE_MODEL)):
        seen.attributes[semconv.REQUEST_MODEL] = model


def request(arguments: Mapping[str, Any]) -> Attributes:
    """Arguments of a turn; an agent's model is not among them."""
    options = fields_of(arguments.get("completion_args"))
    return {
        **chat.request(options),
        **chat.request(arguments),
        **given(arguments, {"conversation_id": semconv.CONVERSATION_ID}),
    }


def stream_request(arguments: Mapping[str, Any]) -> Attributes:
    """Those of a turn that is streamed."""
    return {**request(arguments), semconv.REQUEST_STREAM: True}


def conversation_usage(usage: Any) -> Attributes:
    """`usage` of a turn: what connectors added to the prompt is counted beside it, and so is each use of a tool.

    >>> conversation_usage({"prompt_tokens": 188, "connector_tokens": 7112, "connectors": {"web_search": 1}})
    {'gen_ai.usage.input_tokens': 7300, 'costspan.usage.web_searches': 1}
    """
    attributes = chat.chat_usage(usage)
    if added := get(usage, "connector_tokens"):
        attributes[semconv.INPUT_TOKENS] = total(attributes.get(semconv.INPUT_TOKENS), added)
    for name, uses in (get(usage, "connectors") or {}).items():
        if uses and (key := _CONNECTORS.get(name)):
            attributes[key] = total(attributes.get(key), uses)
    return attributes


def response(answer: Any) -> Attributes:
    """A turn: what the model wrote, called and looked up."""
    models = (get(entry, "model") for entry in get(answer, "outputs") or ())
    return known(
        {
            semconv.CONVERSATION_ID: get(answer, "conversation_id"),
            semconv.RESPONSE_MODEL: next(filter(None, models), None),
            **conversation_usage(get(answer, "usage")),
        }
    )


def chunk(event: Any, seen: Seen) -> None:
    """An event of a streamed turn."""
    told = fields_of(event.__dict__["data"])
    seen.characters += chat.written(told.get("content")) + chat.written(told.get("arguments"))
    if not seen.started and (model := told.get("model")):
        seen.attributes[semconv.RESPONSE_MODEL] = model
        seen.started = True
    if conversation := told.get("conversation_id"):
        seen.attributes[semconv.CONVERSATION_ID] = conversation
    if (usage := told.get("usage")) is not None:
        seen.attributes.update(conversation_usage(usage))
        seen.final = True
