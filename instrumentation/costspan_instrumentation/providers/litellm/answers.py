"""What LiteLLM's answers tell. Whoever answered, their shape is OpenAI's; the usage also has what others count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Seen, fields_of, get, known, undeclared
from costspan_instrumentation.providers import compatible
from costspan_instrumentation.providers.litellm import whose
from costspan_instrumentation.providers.openai import chat_usage, responses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_GOOGLE = {"gemini", "vertex_ai", "vertex_ai_beta"}


def counts(usage: Any, aside: Mapping[str, Any]) -> Attributes:
    """`usage` of a completion; what each provider counts beside tokens stands where LiteLLM's adapter put it."""
    details, tools = get(usage, "prompt_tokens_details"), get(usage, "server_tool_use")
    written = get(details, "cache_creation_token_details")
    searches, grounded = get(tools, "web_search_requests"), get(details, "web_search_requests")
    if aside.get("custom_llm_provider") not in _GOOGLE:
        searches, grounded = searches or grounded, None
    added = {
        semconv.CACHE_WRITE_TOKENS: get(details, "cache_creation_tokens") or get(usage, "cache_creation_input_tokens"),
        semconv.CACHE_WRITE_5M: get(written, "ephemeral_5m_input_tokens"),
        semconv.CACHE_WRITE_1H: get(written, "ephemeral_1h_input_tokens"),
        semconv.INPUT_VIDEO: get(details, "video_tokens"),
        semconv.WEB_SEARCHES: searches,
        semconv.GROUNDED_PROMPTS: grounded,
        semconv.SERVICE_TIER: "fast" if get(usage, "speed") == "fast" else get(usage, "service_tier"),
        semconv.GEO: get(usage, "inference_geo"),
    }
    told = chat_usage(usage)
    told.pop(semconv.USAGE_REPORTED_COST, None)
    return {**{key: value for key, value in added.items() if value}, **told, **whose.cost(usage, aside)}


def reader(read: Callable[[Any, Mapping[str, Any]], Attributes]) -> Callable[[Any], Attributes]:
    """The reader of an answer: who gave it, and what `read` finds in it unless it was kept from an earlier call."""

    def response(answer: Any) -> Attributes:
        aside = whose.hidden(answer)
        told = compatible.identity(answer) if whose.from_cache(aside) else read(answer, aside)
        # What has no id of its own, LiteLLM records under that of the call.
        return (
            known({semconv.RESPONSE_ID: aside.get("litellm_call_id")})
            | told
            | whose.answered(aside, get(answer, "model"))
        )

    return response


def completion(answer: Any, aside: Mapping[str, Any]) -> Attributes:
    """A chat or text completion."""
    return {**compatible.response(answer), **counts(get(answer, "usage"), aside)}


def chunk(part: Any, seen: Seen) -> None:
    """A chunk of a completion. A usage that it may have, LiteLLM may have guessed: `gathered` finds the provider's."""
    if not seen.started:
        seen.started = True
        seen.attributes.update(compatible.identity(part) | whose.answered(whose.hidden(part), get(part, "model")))
    compatible.content(part, seen)


def _add(usage: Any, sent: dict[str, Any]) -> None:
    """What a later usage leaves out, or tells as nothing, an earlier one has told."""
    for name, value in {**fields_of(usage), **undeclared(usage)}.items():
        if parts := fields_of(value):
            if any(parts.values()):
                _add(value, sent.setdefault(name, {}))
        elif value:
            sent[name] = value


def gathered(stream: Any, seen: Seen) -> None:
    """The usage that the provider sent, which a stream keeps to itself unless the application asked to see it."""
    holder = stream if get(stream, "chunks") is not None else get(stream, "completion_stream")
    sent: dict[str, Any] = {}
    aside: dict[str, Any] = {}
    for part in get(holder, "chunks") or ():
        aside.update(whose.hidden(part))
        _add(get(part, "usage"), sent)
    if whose.from_cache(whose.hidden(holder)):
        seen.final = True
    elif sent:
        seen.attributes.update(counts(sent, aside))
        seen.final = True


def response(answer: Any, aside: Mapping[str, Any]) -> Attributes:
    """An answer in the form of OpenAI's responses."""
    told = responses.CREATE.response(answer)
    told.pop(semconv.USAGE_REPORTED_COST, None)
    return {**told, **whose.cost(get(answer, "usage"), aside)}


def event(part: Any, seen: Seen) -> None:
    """An event of a streamed response."""
    if responses.CREATE.chunk is not None:
        responses.CREATE.chunk(part, seen)
    if (answer := get(part, "response")) is not None:
        seen.attributes.update(whose.answered(whose.hidden(answer), get(answer, "model")))
