"""Portkey: a gateway to many providers, through the `portkey-ai` SDK and the copy of OpenAI's in it.

The provider is the one behind the gateway, where the call or its answer tells; else it is `portkey`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen, get, known, total
from costspan_instrumentation.providers import compatible
from costspan_instrumentation.providers.openai import chat, media, responses
from costspan_instrumentation.providers.portkey import whose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _request(arguments: Mapping[str, Any]) -> Attributes:
    return compatible.request(arguments) | whose.asked(arguments)


def chat_usage(usage: Any) -> Attributes:
    """`usage` of an answer. Whether Anthropic's cache is in the prompt's tokens or beside them, only the total tells.

    >>> chat_usage({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 41, "cache_read_input_tokens": 30})
    {'gen_ai.usage.input_tokens': 39, 'gen_ai.usage.output_tokens': 2, 'gen_ai.usage.cache_read.input_tokens': 30}
    """
    read, written = get(usage, "cache_read_input_tokens"), get(usage, "cache_creation_input_tokens")
    cached = known({semconv.CACHE_READ_TOKENS: read or None, semconv.CACHE_WRITE_TOKENS: written or None})
    whole = total(get(usage, "prompt_tokens"), read, written)
    if cached and get(usage, "total_tokens") == total(whole, get(usage, "completion_tokens")):
        cached[semconv.INPUT_TOKENS] = whole
    return compatible.usage_of(usage) | cached


def _completion(answer: Any) -> Attributes:
    return compatible.response(answer) | chat_usage(get(answer, "usage"))


def _answered(read: Callable[[Any], Attributes]) -> Callable[[Any], Attributes]:
    """The reader of an answer: who gave it, and what `read` finds in it unless the gateway had kept it."""

    def response(answer: Any) -> Attributes:
        told = compatible.identity(answer) if whose.from_cache(answer) else read(answer)
        return told | whose.answered(answer)

    return response


def _chunk(chunk: Any, seen: Seen) -> None:
    compatible.chunk(chunk, seen)
    if usage := get(chunk, "usage"):
        seen.attributes.update(chat_usage(usage) | whose.answered(chunk))


def _plain(endpoint: Endpoint, arguments: Mapping[str, Any], _: Any) -> tuple[Endpoint, Mapping[str, Any]] | None:
    """A stream is left to the copy below: in some versions it is a generator, which sends nothing until it is read."""
    return None if arguments.get("stream") is True else (endpoint, arguments)


def _own(module: str, method: str, operation: str, read: Callable[[Any], Attributes], *content: str) -> Endpoint:
    home = f"portkey_ai.api_resources.apis.{module}"
    return Endpoint(home, method, operation, _request, _answered(read), content=content)


def _sent(endpoint: Endpoint, arguments: Mapping[str, Any], _: Any) -> tuple[Endpoint, Mapping[str, Any]]:
    """The call with all that it sends; what Portkey's methods do not name themselves, they add to the body."""
    return endpoint, {**arguments, **(arguments.get("extra_body") or {})}


_VENDORED = "portkey_ai._vendor."


def _copied(endpoint: Endpoint) -> Endpoint:
    """The endpoint in the copy of OpenAI's SDK, through which Portkey's own methods go."""

    def request(arguments: Mapping[str, Any]) -> Attributes:
        return endpoint.request(arguments) | whose.asked(arguments)

    homes = tuple(_VENDORED + home for home in endpoint.moved_from)
    copy = replace(endpoint, module=_VENDORED + endpoint.module, moved_from=homes, request=request, ask=None)
    return replace(copy, choose=partial(_sent, copy))


_CHAT = _own("chat_complete", "Completions.create", semconv.CHAT, _completion, "messages", "tools")
_TEXT = _own("complete", "Completion.create", semconv.TEXT_COMPLETION, _completion, "prompt")
_READ: dict[str, Any] = {"request": compatible.request, "response": _completion}

PORTKEY = Provider(
    name="portkey",
    requires="portkey-ai>=2.0.4",
    base_url=lambda resource: whose.client(resource)._base_url,
    identify=whose.identify,
    usage_formats={"portkey.chat": chat_usage},
    endpoints=(
        *(replace(endpoint, choose=partial(_plain, endpoint)) for endpoint in (_CHAT, _TEXT)),
        _own("embeddings", "Embeddings.create", semconv.EMBEDDINGS, compatible.embeddings_response, "input"),
        # A prompt that the gateway keeps: what is sent are its variables.
        replace(_own("generation", "Completions.create", semconv.CHAT, _completion, "variables"), chunk=_chunk),
        *(_copied(replace(endpoint, **_READ, chunk=_chunk)) for endpoint in (chat.CREATE, chat.COMPLETE)),
        _copied(replace(chat.PARSE, **_READ)),
        *map(_copied, (responses.CREATE, responses.PARSE, responses.COMPACT, responses.RETRIEVE, *media.ENDPOINTS)),
    ),
)
