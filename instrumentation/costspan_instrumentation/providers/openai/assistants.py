"""OpenAI: runs of assistants. A run tells its usage when it has ended, whoever sees that first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Seen, get
from costspan_instrumentation.providers.openai.requests import identity, request
from costspan_instrumentation.providers.openai.usage import chat_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAITS_FOR_TOOLS = "requires_action"


def _request(arguments: Mapping[str, Any]) -> Attributes:
    attributes = request(arguments)
    if thread := arguments.get("thread_id"):
        attributes[semconv.CONVERSATION_ID] = thread
    return attributes


def _run(run: Any) -> Attributes:
    attributes = identity(run)
    usage = get(run, "usage")
    if usage is not None:
        attributes.update(chat_usage(usage))
        # Runs spell it their own way.
        if cached := get(get(usage, "prompt_token_details"), "cached_tokens"):
            attributes[semconv.CACHE_READ_TOKENS] = cached
        attributes[semconv.RESPONSE_FINISH_REASONS] = (get(run, "status"),)
    return attributes


def _fetched(run: Any) -> Attributes:
    attributes = {**_run(run), semconv.OPERATION: semconv.CHAT}
    if model := get(run, "model"):
        attributes[semconv.REQUEST_MODEL] = model
    return attributes


def _chunk(event: Any, seen: Seen) -> None:
    # Of a raw stream only the data is read, and not the name of its event.
    told = get(event, "data") or event
    kind = get(told, "object")
    if kind == "thread.run":
        seen.attributes.update(_run(told))
        # Until the tools have answered, the run has not ended and nothing of it is told.
        seen.final = get(told, "usage") is not None or get(told, "status") == _WAITS_FOR_TOOLS
    elif kind == "thread.message.delta":
        for part in get(get(told, "delta"), "content") or ():
            seen.characters += len(get(get(part, "text"), "value") or "")


_RUNS = "openai.resources.beta.threads.runs.runs"
_THREADS = "openai.resources.beta.threads.threads"

ENDPOINTS = (
    *(
        Endpoint(
            module,
            method,
            semconv.CHAT,
            _request,
            _run,
            _chunk,
            content=("instructions", "additional_instructions", "additional_messages", "thread", "tool_outputs"),
            positional=positional,
            deferred=method.endswith("stream"),
            kept=True,
        )
        for module, method, positional in (
            (_RUNS, "Runs.create", ("thread_id",)),
            (_RUNS, "Runs.create_and_stream", ()),
            (_RUNS, "Runs.stream", ()),
            (_RUNS, "Runs.submit_tool_outputs", ("run_id",)),
            (_RUNS, "Runs.submit_tool_outputs_stream", ()),
            (_THREADS, "Threads.create_and_run", ()),
            (_THREADS, "Threads.create_and_run_stream", ()),
        )
    ),
    Endpoint(_RUNS, "Runs.retrieve", semconv.FETCH_RESPONSE, _request, _fetched, positional=("run_id",), fetch=True),
)
