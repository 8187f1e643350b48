"""Prompts and answers in the form of the GenAI conventions. Off unless the standard variable asks for them.

Providers say the same few things in many shapes. What an SDK was given and gave back is first made plain (dicts, lists,
text), and then read by its fields, whoever it comes from: there is no reader per provider.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from functools import cache
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from opentelemetry._logs import Logger, SeverityNumber

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Endpoint, Seen, decoded, fields_of, get

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_log = logging.getLogger("costspan")

VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EVENT: Final = "gen_ai.client.inference.operation.details"
OPERATIONS: Final = frozenset({semconv.CHAT, semconv.TEXT_COMPLETION, semconv.GENERATE_CONTENT})
"""The operations whose content the conventions have attributes for."""

Part = dict[str, Any]
"""A part of a message, `{"type": "text", "content": "hi"}`."""
Message = dict[str, Any]
"""A message, `{"role": "user", "parts": [...]}`; one of an answer has its `finish_reason`."""


class Mode(NamedTuple):
    """Where content goes."""

    spans: bool
    events: bool


_MODES: Final = {
    "NO_CONTENT": None,
    "SPAN_ONLY": Mode(spans=True, events=False),
    "EVENT_ONLY": Mode(spans=False, events=True),
    "SPAN_AND_EVENT": Mode(spans=True, events=True),
}


def mode() -> Mode | None:
    """What the standard variable asks for; None if it asks for nothing, or for something that is not known."""
    return _mode_of(os.environ.get(VARIABLE, "").strip())


@cache
def _mode_of(word: str) -> Mode | None:
    if word and word.upper() not in _MODES:
        _log.warning(
            "costspan: %s=%r is not understood, and no content is recorded; it may be %s",
            VARIABLE,
            word,
            ", ".join(_MODES),
        )
    return _MODES.get(word.upper())


# ---------------------------------------------------------------- one call


@dataclass(frozen=True, slots=True)
class Recording:
    """Records the content of calls."""

    mode: Mode
    logger: Logger
    failed: Callable[[str, BaseException], None]
    """Is told of what went wrong here, which nobody else is."""

    def exchange(self, operation: object, arguments: Mapping[str, Any], span: Span) -> Exchange | None:
        """What is said in a call that starts now; None where nothing of it is to be recorded. Never raises."""
        if operation not in OPERATIONS or not (self.mode.events or span.is_recording()):
            return None
        return Exchange(self, arguments, span)


class Exchange:
    """What is asked and answered in one call; puts it on the call's span, and emits it as an event. Never raises."""

    def __init__(self, recording: Recording, arguments: Mapping[str, Any], span: Span) -> None:
        self._recording = recording
        self._span = span
        self._told: dict[str, list[Any]] = {}
        self._whole: list[Message] = []
        self._drafts: dict[Any, _Draft] = {}
        self._try(lambda: self._tell(request_of(arguments)))

    def overhearing(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, whose readers tell what they read to this exchange too."""
        read, read_chunk = endpoint.response, endpoint.chunk

        def response(answer: Any) -> dict[str, Any]:
            self._try(lambda: self._answered(answer))
            return read(answer)

        def chunk(piece: Any, seen: Seen) -> bool | None:
            self._try(lambda: self._heard(piece))
            return read_chunk(piece, seen) if read_chunk is not None else None

        return replace(endpoint, response=response, chunk=chunk)

    def ended(self) -> None:
        """The stream has ended, or will not go on."""
        self._try(self._gather)

    def emit(self, attributes: Mapping[str, Any], context: Context | None, at: int | None) -> None:
        """Emits the event, if events are asked for: once the call has ended, with all that is known of it."""
        if self._recording.mode.events and self._told:
            told = {**{key: value for key, value in attributes.items() if _is_of_event(key)}, **self._told}
            self._try(
                lambda: self._recording.logger.emit(
                    timestamp=at or time_ns(),
                    context=context,
                    severity_number=SeverityNumber.DEBUG,
                    event_name=EVENT,
                    attributes=told,
                )
            )

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  # the call is not to suffer
            self._recording.failed("content", error)

    def _answered(self, answer: Any) -> None:
        # Cohere's raw answer wraps the answer.
        self._whole = answers_of(plain(fields_of(answer).get("_data", answer))) or self._whole
        self._tell({semconv.OUTPUT_MESSAGES: self._whole})

    def _heard(self, chunk: Any) -> None:
        # It is read at once: SDKs write into their chunks later.
        told = _native(chunk)
        answer = get(told, "response") or get(told, "interaction")
        if isinstance(answer, dict) and (whole := answers_of(answer)):
            self._whole = whole  # a last event that has all that was said
        elif isinstance(choices := get(told, "choices"), list):
            for choice in choices:
                draft = self._draft(get(choice, "index") or 0)
                draft.reason = get(choice, "finish_reason") or draft.reason
                if isinstance(delta := get(choice, "delta"), dict):
                    draft.add_delta(delta)
                else:
                    draft.add(parts_of(get(choice, "text")))
        elif not self._draft(0).add_event(told):
            for number, message in enumerate(answers_of(told)):
                draft = self._draft(number)
                draft.add(message["parts"])
                draft.reason = message.get("finish_reason") or draft.reason

    def _gather(self) -> None:
        drafts = [self._drafts[number].message() for number in sorted(self._drafts)]
        self._tell({semconv.OUTPUT_MESSAGES: self._whole or [message for message in drafts if _says(message)]})

    def _draft(self, number: int) -> _Draft:
        return self._drafts.setdefault(number, _Draft())

    def _tell(self, told: Mapping[str, list[Any]]) -> None:
        self._told |= (found := {key: value for key, value in told.items() if value})
        if self._recording.mode.spans:
            for key, value in found.items():
                self._span.set_attribute(key, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _is_of_event(key: str) -> bool:
    """The conventions list these for the event: what the inference span has, but what is one provider's own."""
    return key.startswith("gen_ai.") or key in {semconv.ERROR_TYPE, semconv.SERVER_ADDRESS, semconv.SERVER_PORT}


def _says(message: Message) -> bool:
    return bool(message["parts"] or message.get("finish_reason"))


# ---------------------------------------------------------------- making things plain

_DEEPEST: Final = 24
_LARGEST: Final = 64
"""Bits of a number that cannot be exported."""


def plain(value: Any, depth: int = 0) -> Any:
    """What an SDK takes or gives as dicts, lists, text and numbers; bytes are base64, absent fields are left out.

    >>> plain({"role": "user", "content": ({"data": b"hi"}, float("nan"))})
    {'role': 'user', 'content': [{'data': 'aGk='}, 'nan']}
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        # Half a character cannot be exported.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _LARGEST else str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if depth > _DEEPEST:
        return None
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping) and not getattr(value, "__dict__", None):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    return _plain_object(value, depth)


def _plain_object(value: Any, depth: int) -> Any:
    kind = type(value)
    if _is_false(value):
        return None  # an SDK's "not given"
    if hasattr(kind, "__fields_set__") or is_dataclass(kind) or isinstance(value, Mapping):
        fields = {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}
        found = {name: plain(item, depth + 1) for name, item in fields.items() if not name.startswith("_")}
        return {name: told for name, told in found.items() if told is not None}
    if callable(value) and (name := getattr(value, "__name__", None)):
        return {"type": "function", "name": name, "description": getattr(value, "__doc__", None)}
    # What is none of an SDK's own, such as an open image, is named and not looked into.
    return {"type": kind.__name__}


def _is_false(value: Any) -> bool:
    try:
        return not value
    except Exception:  # noqa: BLE001  # an array has no truth
        return False


def _native(chunk: Any) -> Any:
    """A chunk made plain, without what it is wrapped in."""
    headers, payload = getattr(chunk, "headers", None), getattr(chunk, "payload", None)
    if headers is not None and isinstance(payload, bytes):
        # Amazon's event stream: a piece of a conversation, or one of a model's own stream.
        kind, told = headers.get(":event-type"), decoded(payload)
        chunk = decoded(base64.b64decode(told["bytes"])) if kind == "chunk" else {kind: told}
    told = plain(chunk)
    inner = get(told, "data")
    return inner if isinstance(inner, dict) else told


def _first(told: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these names that has one."""
    return next((value for name in names if (value := told.get(name)) is not None), None)


# ---------------------------------------------------------------- what is asked


def request_of(arguments: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The attributes of a request, by the arguments of the SDK's method or the body that is sent."""
    body = get(get(arguments, "request"), "body") or get(arguments, "body")
    names = (*_SYSTEM, *_SAID, "chat_history", "message", "tools", "functions", "toolConfig", "config", "images")
    asked = {name: plain(value) for name in names if (value := get(body or arguments, name)) is not None}
    config, tools = _fields(asked.get("config")), _fields(asked.get("toolConfig"))
    said = [*_listed(asked.get("chat_history")), *_listed(_first(asked, *_SAID)), *_listed(asked.get("message"))]
    return {
        semconv.SYSTEM_INSTRUCTIONS: parts_of(_first({**config, **asked}, *_SYSTEM)),
        semconv.INPUT_MESSAGES: messages_of([*said, *map(_picture, _listed(asked.get("images")))]),
        semconv.TOOL_DEFINITIONS: [
            definition
            for offered in (asked.get("tools"), asked.get("functions"), config.get("tools"), tools.get("tools"))
            for tool in _listed(offered)
            for definition in _definitions(tool)
        ],
    }


_SYSTEM: Final = ("system", "instructions", "system_instruction", "systemInstruction", "preamble")
_SAID: Final = ("messages", "contents", "input", "inputs", "prompt", "inputText")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _definitions(tool: Any) -> list[dict[str, Any]]:
    """The tools that one entry of a list of tools offers."""
    if not isinstance(tool, dict) or "cachePoint" in tool:
        return []
    if declared := _first(tool, "function_declarations", "functionDeclarations"):
        return [definition for one in declared for definition in _definitions(one)]
    kind, inner = tool.get("type"), _first(tool, "function", "toolSpec", "custom")
    told = inner if isinstance(inner, dict) else tool
    name = told.get("name")
    # Of a provider's own tool no more than its name: what it is set up with may be a key to somebody's server.
    if kind is None and name is None:
        return [{"type": field, "name": field} for field in tool]  # Gemini's stand in a field of their name
    if kind not in {None, "function", "custom"}:
        return [{"type": kind, "name": name or tool.get("server_label") or kind}]
    schema = _first(told, *_SCHEMAS)
    about = {"description": told.get("description"), "parameters": get(schema, "json") or schema}
    return [{"type": kind or "function", "name": name, **{key: what for key, what in about.items() if what}}]


_SCHEMAS: Final = (
    "parameters",
    "input_schema",
    "inputSchema",
    "parameters_json_schema",
    "parametersJsonSchema",
    "parameter_definitions",
)


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# ---------------------------------------------------------------- messages

_ROLES: Final = {"model": "assistant", "chatbot": "assistant", "function": "tool"}
_MESSAGES: Final = {
    "message": "user",
    "message.input": "user",
    "user_input": "user",
    "message.output": "assistant",
    "model_output": "assistant",
}
"""Types of what is a message, and whose it is where it does not say."""
_THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking", "tool_plan")


def messages_of(said: Iterable[Any]) -> list[Message]:
    """Messages, and parts that stand where messages do: those of one role that follow each other are one message.

    >>> messages_of(["hi", {"type": "function_call", "call_id": "1", "name": "now", "arguments": "{}"}])
    [{'role': 'user', 'parts': [{'type': 'text', 'content': 'hi'}]}, {'role': 'assistant', 'parts': [{'type': \
'tool_call', 'id': '1', 'name': 'now', 'arguments': {}}]}]
    """
    messages: list[Message] = []
    open_message: Message | None = None
    for one in said:
        if isinstance(one, dict) and ("role" in one or "parts" in one or str(one.get("type")) in _MESSAGES):
            messages.append(_message(one))
            open_message = None
            continue
        parts = parts_of(one)
        if not parts:
            continue
        role = _BY_PART.get(parts[0]["type"], "user")
        if open_message is None or open_message["role"] != role:
            open_message = {"role": role, "parts": []}
            messages.append(open_message)
        open_message["parts"] += parts
    return [message for message in messages if message["parts"]]


_BY_PART: Final = {
    "tool_call": "assistant",
    "reasoning": "assistant",
    "server_tool_call": "assistant",
    "server_tool_call_response": "assistant",
    "tool_call_response": "tool",
}


def _message(told: Mapping[str, Any], role: str | None = None) -> Message:
    role = role or str(told.get("role") or _MESSAGES.get(str(told.get("type")), "user")).lower()
    role = _ROLES.get(role, role)
    content = _first(told, "content", "parts", "message")
    parts = parts_of(content)
    if role == "tool" and content is not None and not any(part["type"] == "tool_call_response" for part in parts):
        parts = [_tool_response({**told, "content": content})]
    thought = next((told[name] for name in _THOUGHTS if told.get(name) and isinstance(told[name], str)), "")
    call = told.get("function_call")
    return {
        "role": role,
        "parts": [
            *([{"type": "reasoning", "content": thought}] if thought else []),
            *parts,
            *(_refused(told["refusal"]) if told.get("refusal") else []),
            *(part for image in _listed(told.get("images")) for part in parts_of(_picture(image))),
            *(_media({**told["audio"], "type": "audio"}) if isinstance(told.get("audio"), dict) else []),
            *(part for one in _listed(told.get("tool_calls")) for part in parts_of({"type": "function", **one})),
            *([_tool_call(call)] if isinstance(call, dict) and call.get("name") else []),
        ],
        **({"name": name} if isinstance(name := told.get("name"), str) and role != "tool" else {}),
    }


def _picture(image: Any) -> Any:
    """An image that stands beside the text: its data, or where it is."""
    if not isinstance(image, dict) or "type" not in image:
        data = get(image, "value") or image
        where = "data" if isinstance(data, str) and _BASE64.fullmatch(data) else "url"
        return {"type": "image", where: data}
    return image


_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]{16,}={0,2}\s*")


# ---------------------------------------------------------------- parts of messages


def parts_of(content: Any) -> list[Part]:
    """The parts of a content: of text, of one block or of a list of them."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    if isinstance(content, list):
        return [part for block in content for part in parts_of(block)]
    if not isinstance(content, dict) or not content:
        return []
    kind = content.get("type")
    if not isinstance(kind, str):
        # Gemini and Bedrock name a block by the field that it stands in.
        kind = next((name for name in content if name in _READERS and content[name]), None)
    if kind is None:
        return _unnamed(content)
    inner = content.get(kind)
    block = {**content, "type": kind}
    if isinstance(inner, dict):
        del block[kind]
        block = {**block, **inner, "type": kind}
    if reader := _READERS.get(kind):
        return reader(block)
    if kind in _MESSAGES:
        return _parts(_message(content))
    if kind.endswith("_call_output"):
        return [_tool_response(block)]
    if kind.endswith("_call"):
        return [_server_call(block)]
    return [_server_response(block)] if kind.endswith("_result") and kind != "search_result" else [content]


def _unnamed(content: dict[str, Any]) -> list[Part]:
    if "role" in content or "parts" in content:
        return _parts(_message(content))
    if "uri" in content and "mime_type" in content:
        return _media({**content, "type": "file"})
    ((name, value), *others) = content.items()
    known = name not in {"type", *_READERS} and not others and isinstance(value, dict | list)
    return [{"type": name, name: value}] if known else []


def _parts(message: Message) -> list[Part]:
    parts: list[Part] = message["parts"]
    return parts


def _text(block: Part) -> list[Part]:
    text = _first(block, "text", "content")
    if not isinstance(text, str):
        return parts_of(text)
    return [{"type": "reasoning" if block.get("thought") is True else "text", "content": text}] if text else []


def _reasoning(block: Part) -> list[Part]:
    text = "\n".join(_texts([block.get(name) for name in ("thinking", "summary", "content", "text", "reasoningText")]))
    # What is encrypted says nothing.
    return [{"type": "reasoning", "content": text}] if text else []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return _texts(_first(value, "text", "thinking", "content")) if isinstance(value, dict) else []


def _refused(text: Any) -> list[Part]:
    return [{"type": "refusal", "content": text}]


def _tool_call(block: Mapping[str, Any]) -> Part:
    arguments = _first(block, "arguments", "args", "input", "action", "operation")
    return {
        "type": "tool_call",
        "id": _first(block, "call_id", "tool_call_id", "toolUseId", "id"),
        "name": block.get("name") or str(block.get("type", "")).removesuffix("_call"),
        "arguments": _arguments(arguments),
    }


def _arguments(told: Any) -> Any:
    """Arguments as what their JSON says, or the text itself where it is none."""
    found = decoded(told) if isinstance(told, str) else None
    return plain(found) if isinstance(found, dict | list) else told


def _tool_response(block: Mapping[str, Any]) -> Part:
    told = _first(block, "output", "response", "result", "content", "outputs")
    if isinstance(told, list) and all(_is_block(item) for item in told):
        told = parts_of(told)
        # A single text, or a single result, is what it says.
        if len(told) == 1 and told[0]["type"] in {"text", "json"}:
            told = _first(told[0], "content", "json")
    name = _first(block, "name", "tool_name")
    return {
        "type": "tool_call_response",
        "id": _first(block, "call_id", "tool_call_id", "tool_use_id", "toolUseId", "id"),
        **({"name": name} if name else {}),
        "response": told,
    }


def _is_block(item: Any) -> bool:
    named = isinstance(item, dict) and (isinstance(item.get("type"), str) or not _READERS.keys().isdisjoint(item))
    return named or (isinstance(item, dict) and "json" in item)


def _server_call(block: Part) -> Part:
    kind = str(block["type"])
    name = block.get("name") or kind.removesuffix("_call")
    told = {key: value for key, value in block.items() if key not in {"id", "name"}}
    told["type"] = name if kind in {"server_tool_use", "mcp_tool_use", "tool.execution"} else kind
    return {"type": "server_tool_call", "id": block.get("id"), "name": name, "server_tool_call": told}


def _server_response(block: Part) -> Part:
    told = {key: value for key, value in block.items() if key != "tool_use_id"}
    identity = _first(block, "tool_use_id", "id")
    return {"type": "server_tool_call_response", "id": identity, "server_tool_call_response": told}


_MODALITIES: Final = ("image", "audio", "video")
_LINKS: Final = ("url", "uri", "image_url", "file_url", "file_uri", "fileUri")


def _media(block: Part) -> list[Part]:
    """A picture, a sound, a film or a document: inside the message, at a provider, or at an address."""
    source = block.get("source")
    if isinstance(source, dict):
        if source.get("type") in {"text", "content"} or "text" in source:
            return parts_of(_first(source, "data", "content", "text"))
        block = {**block, **source, **_fields(source.get("s3Location")), "type": block["type"]}
    kind = block["type"]
    mime = _first(block, "mime_type", "mimeType", "media_type")
    own = block.get(kind)
    link = _first(block, *_LINKS) or (own if isinstance(own, str) and _LINK.match(own) else None)
    link = get(link, "url") if isinstance(link, dict) else link
    data = _first(block, "data", "bytes", "file_data") or (own if isinstance(own, str) else None)
    if isinstance(data, str) and data.startswith("data:"):
        link, data = data, None
    if isinstance(link, str) and link.startswith("data:"):
        head, _, data = link.removeprefix("data:").partition(",")
        mime = mime or head.partition(";")[0] or None
        data = data if "base64" in head else base64.b64encode(unquote_to_bytes(data)).decode()
        link = None
    named = f"{kind} {mime}"
    modality = next((name for name in _MODALITIES if name in named), "document")
    if mime is None and (form := block.get("format")):
        mime = f"{'application' if modality == 'document' else modality}/{form}"
    about = {"modality": modality, **({"mime_type": mime} if mime else {})}
    if block.get("transcript"):
        about["transcript"] = block["transcript"]
    if data:
        return [{"type": "blob", **about, "content": data}]
    if link:
        return [{"type": "uri", **about, "uri": link}]
    if identity := _first(block, "file_id", "id"):
        return [{"type": "file", **about, "file_id": identity}]
    return parts_of(block.get("transcript"))


_LINK: Final = re.compile(r"(?:data:|\w+://)")


def _one(read: Callable[[Part], Part]) -> Callable[[Part], list[Part]]:
    return lambda block: [read(block)]


_SHAPES: Final[Sequence[tuple[Callable[[Part], list[Part]], str]]] = (
    (_text, "text input_text output_text guardContent"),
    (_reasoning, "thinking reasoning reasoningContent thought"),
    (_one(_tool_call), "tool_use toolUse function function_call functionCall function.call custom custom_tool_call"),
    (_one(_tool_call), "computer_call local_shell_call shell_call apply_patch_call"),
    (_one(_tool_response), "tool_result toolResult function_response functionResponse function_result function.result"),
    (_one(_server_call), "server_tool_use mcp_tool_use tool.execution executable_code executableCode"),
    (_one(_server_response), "code_execution_result codeExecutionResult"),
    (_media, "image image_url input_image video video_url audio audio_url input_audio output_audio"),
    (_media, "document document_url file input_file inline_data inlineData file_data fileData"),
    (lambda block: _refused(block.get("refusal")), "refusal"),
    (lambda block: parts_of(block.get("content")), "citationsContent"),
    (lambda _: [], "cachePoint"),
)
_READERS: Final = {name: reader for reader, names in _SHAPES for name in names.split()}
"""Type of a block, or the field that it stands in -> what reads it."""


# ---------------------------------------------------------------- what is answered

_WRITTEN: Final = (
    "response",
    "generated_text",
    "completion",
    "generation",
    "outputText",
    "output_text",
    "text",
    "summary",
)
_REASONS: Final = (
    "finish_reason",
    "finishReason",
    "stop_reason",
    "stopReason",
    "done_reason",
    "completionReason",
    "status",
)


def answers_of(told: Any) -> list[Message]:
    """The messages of an answer that was made plain; none where it is not one."""
    return [message for message in _answers(told) if _says(message)]


def _answers(told: Any) -> list[Message]:
    if isinstance(told, str):
        return [_answer({"content": told})]
    if not isinstance(told, dict):
        return []
    wrapped = _first(told, "body", "response", "interaction")
    if isinstance(wrapped, dict):
        return _answers(wrapped)
    if isinstance(raw := get(told.get("sdk_http_response"), "body"), str):
        return _answers(decoded(raw))
    if isinstance(choices := told.get("choices"), list):
        return [_answer(_first(one, "message", "delta") or {"content": one.get("text")}, one) for one in choices]
    if isinstance(candidates := told.get("candidates"), list):
        return [_answer(_fields(one.get("content")), one) for one in candidates]
    output = told.get("output")
    if message := get(output, "message"):
        return [_answer(message, told)]
    for name in ("output", "outputs", "steps", "content"):
        if isinstance(items := told.get(name), list) and any("type" in _fields(item) for item in items):
            parts = [part for message in messages_of(items) for part in message["parts"]]
            return [_reasoned({"role": "assistant", "parts": parts}, told)]
    for name in ("outputs", "results", "generations", "completions"):
        if isinstance(items := told.get(name), list):
            return [_answer({"content": _written(_fields(one))}, _fields(one)) for one in items]
    if isinstance(message := told.get("message"), dict):
        return [_answer(message, told)]
    token = get(told.get("token"), "text")
    return [_answer({**told, "content": _written(told) or token}, told)] if token or _written(told) else []


def _written(told: Mapping[str, Any]) -> str | None:
    """The text that an answer, or one of several, has in a field of its own."""
    told = _fields(told.get("data")) or told
    return next((text for name in _WRITTEN if isinstance(text := told.get(name), str)), None)


def _answer(message: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> Message:
    return _reasoned(_message({**message, "name": None}, "assistant"), told or {})


def _reasoned(message: Message, told: Mapping[str, Any]) -> Message:
    """The message with the reason why it ended."""
    reason = get(told.get("incomplete_details"), "reason") or _first(told, *_REASONS)
    reason = reason or get(told.get("details"), "finish_reason")
    reason = get(reason, "reason") or reason
    return {**message, "finish_reason": reason} if isinstance(reason, str) and reason else message


# ---------------------------------------------------------------- answers in pieces

_EVENT_TEXTS: Final = (
    ("arguments", "call"),
    ("tool_call_input", "call"),
    ("reasoning", "reasoning"),
    ("refusal", "refusal"),
    ("output_text", "text"),
    ("transcript", "text"),
)
"""Part of the name of one of OpenAI's events -> what its text is."""


class _Draft:
    """A message that comes in pieces: its parts under their places, in the order in which they began.

    A place is the index that the provider gives it, None where there is none, what it is, and a number.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._parts: dict[tuple[Any, str, Any], Part] = {}
        self._calls: dict[Any, tuple[Any, str, Any]] = {}

    def message(self) -> Message:
        """What has come so far."""
        parts = [_joined(part) for part in self._parts.values()]
        return {"role": "assistant", "parts": parts, **({"finish_reason": self.reason} if self.reason else {})}

    def say(self, kind: str, text: Any, at: Any = None, number: Any = None) -> None:
        """Adds text to the part at this place; without an index to the last part, if that is of its kind."""
        if not isinstance(text, str) or not text:
            return
        place = (at, kind, number)
        if at is None:
            last = next(reversed(self._parts), place)
            place = last if last[:2] == place[:2] else (at, kind, len(self._parts))
        self._parts.setdefault(place, {"type": kind, "pieces": []})["pieces"].append(text)

    def add(self, parts: Iterable[Part], at: Any = None) -> None:
        """Adds parts: texts to those before them, others whole."""
        for part in parts:
            if part["type"] in {"text", "reasoning", "refusal"}:
                self.say(part["type"], part["content"], at)
            else:
                self._put(at, part)

    def _put(self, at: Any, part: Part) -> tuple[Any, str, Any]:
        place = (at, "whole", len(self._parts))
        self._parts[place] = part
        return place

    def call(self, at: Any, told: Mapping[str, Any]) -> None:
        """Adds what a piece says of the tool call with this index; another id begins another call."""
        told = {**told, **_fields(_first(told, "function", "custom"))}
        identity, name, text = _first(told, "tool_call_id", "id"), told.get("name"), _first(told, "arguments", "input")
        place = self._calls.get(at)
        known = self._parts[place] if place is not None else None
        if known is None or (identity and known["id"] not in {None, identity}) or (at is None and name):
            known = {"type": "tool_call", "id": identity, "name": name, "arguments": None}
            self._calls[at] = self._put(at, known)
        known["id"], known["name"] = known["id"] or identity, known["name"] or name
        if isinstance(text, str):
            known.setdefault("pieces", []).append(text)
        elif text is not None:
            known["arguments"] = text

    def add_delta(self, told: Mapping[str, Any], at: Any = None) -> None:
        """Adds what a piece of a message says, in the form of the message."""
        self.say("reasoning", next((told[name] for name in _THOUGHTS if told.get(name)), None))
        self.add(parts_of(told.get("content")), at)
        self.say("refusal", told.get("refusal"))
        self.say("text", get(told.get("audio"), "transcript"))
        self.add(part for image in _listed(told.get("images")) for part in parts_of(_picture(image)))
        for call in _listed(told.get("tool_calls")):
            self.call(call.get("index", at), call)
        if isinstance(call := told.get("function_call"), dict):
            self.call("function_call", call)

    def add_event(self, told: Any) -> bool:
        """Adds what an event says; False if it is not one, but an answer or a piece of one."""
        if not isinstance(told, dict):
            return False
        if block := next((told[name] for name in _BLOCKS if isinstance(told.get(name), dict)), None):
            self._block(block)
            return True
        kind = _first(told, "type", "event_type")
        if not isinstance(kind, str) or kind in _NO_EVENTS:
            return False
        self.reason = get(told.get("interaction"), "status") or self.reason
        at, delta = _first(told, "output_index", "index"), told.get("delta")
        block = _first(told, "content_block", "step", "item")
        if isinstance(delta, str):
            what = next((what for name, what in _EVENT_TEXTS if name in kind), None)
            if what == "call":
                self.call(at, {"arguments": delta})
            elif what:
                self.say(what, delta, at, _first(told, "content_index", "summary_index"))
        elif isinstance(delta, dict):
            self._piece(delta, at)
        elif isinstance(block, dict):
            self._start(block, at, whole=kind.endswith(".done"))
        elif kind.startswith("function.call"):
            # Mistral's conversations say what they have to in the event itself.
            self.call(at, told)
        elif kind.startswith("message.output"):
            self.add(parts_of(told.get("content")), at)
        return True

    def _piece(self, delta: Mapping[str, Any], at: Any) -> None:
        self.reason = _first(delta, "stop_reason", "finish_reason") or self.reason
        kind = str(delta.get("type", ""))
        if isinstance(message := delta.get("message"), dict):
            self.add_delta(message, at)
        elif isinstance(piece := _first(delta, "partial_json", "arguments"), str):
            self.call(at, {"arguments": piece})
        elif kind.startswith("thought"):
            self.add(_reasoning(dict(delta)), at)
        elif kind.endswith("_delta") or not kind:
            self.say("reasoning", delta.get("thinking"), at)
            self.say("text", delta.get("text"), at)
        else:
            self.add(parts_of(delta), at)

    def _start(self, block: Mapping[str, Any], at: Any, *, whole: bool) -> None:
        """A block, a step or an item begins, or has come to its end."""
        parts = parts_of(block)
        if whole:
            for place in [place for place in self._parts if place[0] == at]:
                del self._parts[place]
            for part in parts:
                self._put(at, part)
            return
        self.add(parts, at)
        if parts and parts[-1]["type"] in {"tool_call", "server_tool_call"}:
            self._calls[at] = next(reversed(self._parts))

    def _block(self, event: Mapping[str, Any]) -> None:
        """An event of a conversation with Bedrock."""
        at = event.get("contentBlockIndex")
        self.reason = event.get("stopReason") or self.reason
        if use := get(event.get("start"), "toolUse"):
            self.call(at, {"id": use.get("toolUseId"), "name": use.get("name")})
        delta = _fields(event.get("delta"))
        self.say("text", delta.get("text"), at)
        self.say("reasoning", get(delta.get("reasoningContent"), "text"), at)
        if use := delta.get("toolUse"):
            self.call(at, {"arguments": use.get("input")})


_BLOCKS: Final = ("contentBlockDelta", "contentBlockStart", "contentBlockStop", "messageStart", "messageStop")
_NO_EVENTS: Final = {"message", "completion", "text-generation", "stream-end"}
"""Types of what is a whole answer, or a piece in the form of one."""


def _joined(part: Part) -> Part:
    """A part with its pieces put together."""
    told = {key: value for key, value in part.items() if key != "pieces"}
    if (pieces := part.get("pieces")) is None:
        return told
    text = "".join(pieces)
    if part["type"] == "tool_call":
        return {**told, "arguments": _arguments(text or part["arguments"])}
    if part["type"] == "server_tool_call":
        return {**told, "server_tool_call": {**part["server_tool_call"], "input": _arguments(text)}}
    return {**told, "content": text}
