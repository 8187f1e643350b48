"""A model provider on a loopback port that speaks three wire protocols: OpenAI, Anthropic and Gemini.

It answers from a script and bills as the real ones do: ids, usage objects, event names, the order of a stream, and
prompt caches that hit only what an earlier prompt really began with. Tokens come from :func:`tokens`, which is close
to the size of the real tokenizers and is no tokenizer of theirs.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
import string
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Json = dict[str, Any]
T = TypeVar("T")

SNAPSHOTS: Mapping[str, str] = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
}
"""The dated model that answers for an alias, as the real services report it."""

CACHEABLE = 1024
"""Tokens: no provider here caches a prompt that is shorter than this."""

_PIECE = re.compile(r"\s*(?:[^\W\d_]{1,7}|\d{1,3}|[\W_])|\s+")


def tokens(text: str) -> list[str]:
    """The text in pieces of about a token each; joined they are the text again.

    >>> tokens("Cached tokens: 1280.")
    ['Cached', ' tokens', ':', ' 128', '0', '.']
    """
    return _PIECE.findall(text)


@dataclass(frozen=True)
class Answer:
    """What a model says, and how many tokens it thinks before it does."""

    text: str
    thoughts: int = 0


@dataclass(frozen=True)
class Block:
    """A part of a prompt; `ttl` ("5m" or "1h") where the caller put a cache breakpoint behind it."""

    role: str
    text: str
    ttl: str | None = None

    @property
    def tokens(self) -> tuple[str, ...]:
        return (f"<{self.role}>", *tokens(self.text))


class PromptCache:
    """Remembers prompts per model, the way the providers do, to say how much of the next one is cached."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prompts: dict[str, deque[tuple[str, ...]]] = {}
        self._breakpoints: dict[bytes, float] = {}

    def implicit(self, model: str, prompt: Sequence[Block], step: int = 1) -> int:
        """Tokens of the longest common beginning with an earlier prompt, in whole steps (OpenAI and Gemini)."""
        now = tuple(token for block in prompt for token in block.tokens)
        with self._lock:
            earlier = self._prompts.setdefault(model, deque(maxlen=64))
            shared = max((_common(now, before) for before in earlier), default=0)
            earlier.append(now)
        # A whole prompt is never all cache: the last token is always computed.
        shared = min(shared, len(now) - 1) // step * step
        return shared if shared >= CACHEABLE else 0

    def explicit(self, model: str, prompt: Sequence[Block]) -> tuple[int, dict[str, int]]:
        """Tokens read, and tokens written by lifetime, for a prompt with breakpoints (Anthropic)."""
        sizes = list(accumulate(len(block.tokens) for block in prompt))
        keys = list(accumulate((block.text for block in prompt), _chain, initial=model.encode()))[1:]
        marks = [at for at, block in enumerate(prompt) if block.ttl and sizes[at] >= CACHEABLE]
        written = {"5m": 0, "1h": 0}
        if not marks:
            return 0, written
        with self._lock:
            now = time.monotonic()
            # Earlier breakpoints are found at any block boundary, not only where this prompt marks one.
            hits = (at for at in range(marks[-1], -1, -1) if self._breakpoints.get(keys[at], 0.0) > now)
            hit = next(hits, None)
            read = done = 0 if hit is None else sizes[hit]
            for at in marks:
                ttl = prompt[at].ttl or "5m"
                written[ttl] += max(0, sizes[at] - done)
                done = max(done, sizes[at])
                self._breakpoints[keys[at]] = now + (3600 if ttl == "1h" else 300)
        return read, written


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _chain(before: bytes | str, text: bytes | str) -> bytes:
    whole = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in (before, text))
    return blake2b(whole, digest_size=16).digest()


class BadRequestError(Exception):
    """The request lacks what the wire protocol asks for; its text is the provider's error message."""


@dataclass
class Reply:
    """An HTTP answer: one JSON body, or a stream of server-sent events with the pause in seconds before each."""

    status: int = 200
    body: Json | None = None
    events: Iterable[tuple[float, str]] = ()
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0


class DemoProvider:
    """The loopback provider; a context manager that serves while it is open.

    `answers` maps the last thing said to a model to what it says back; anything else gets a polite sentence.
    `pace` scales the pauses: 1.0 is a lively real model, 0.0 answers at once.

    >>> with DemoProvider({"ping": Answer("pong")}) as provider:
    ...     provider.openai.startswith("http://127.0.0.1:") and provider.openai.endswith("/v1")
    True
    """

    def __init__(self, answers: Mapping[str, Answer], pace: float = 0.0) -> None:
        self.pace = pace
        self._answers = answers
        self._cache = PromptCache()
        self._server = _Server(("127.0.0.1", 0), _handler(self.reply))
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="costspan-demo-provider",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        """The base URL for the Anthropic and the Gemini client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai(self) -> str:
        """The base URL for the OpenAI client."""
        return self.url + "/v1"

    def reply(self, path: str, query: str, body: Json) -> Reply:
        """The answer to a POST, before any of it goes over the wire."""
        match path.strip("/").split("/"):
            case ["v1", "chat", "completions"]:
                return self._chat(body)
            case ["v1", "responses"]:
                return self._responses(body)
            case ["v1", "embeddings"]:
                return self._embeddings(body)
            case ["v1", "messages"]:
                return self._messages(body)
            case ["v1" | "v1beta", "models", call] if call.endswith((":generateContent", ":streamGenerateContent")):
                model, _, method = call.partition(":")
                return self._generate(model, body, stream=method.startswith("stream"), sse="alt=sse" in query)
            case _:
                return Reply(404, {"error": {"type": "not_found_error", "message": f"no such route: {path}"}})

    def _answer(self, prompt: Sequence[Block], limit: int | None) -> tuple[list[str], int, bool]:
        """Pieces of the answer, thinking tokens, and whether the limit on output tokens cut it short."""
        said = prompt[-1].text if prompt else ""
        answer = self._answers.get(said, Answer("This provider knows one conversation only, and this is not in it."))
        pieces = tokens(answer.text)
        room = len(pieces) if limit is None else max(0, limit - answer.thoughts)
        return pieces[:room], answer.thoughts, room < len(pieces)

    def _first(self) -> float:
        return 0.28 * self.pace

    def _next(self, count: int = 1) -> float:
        return 0.0045 * self.pace * count

    def _chat(self, body: Json) -> Reply:
        model = _need(body, "model", str)
        prompt = [Block(m.get("role", "user"), _text(m.get("content"))) for m in _need(body, "messages", list)]
        cut_at = body.get("max_completion_tokens", body.get("max_tokens"))
        pieces, _, cut = self._answer(prompt, cut_at)
        finish = "length" if cut else "stop"
        size = sum(len(block.tokens) for block in prompt)
        usage = {
            "prompt_tokens": size,
            "completion_tokens": len(pieces),
            "total_tokens": size + len(pieces),
            "prompt_tokens_details": {"cached_tokens": self._cache.implicit(model, prompt, 128), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        head = {
            "id": "chatcmpl-" + _base62(29),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": SNAPSHOTS.get(model, model),
        }
        tail = {"service_tier": "default", "system_fingerprint": "fp_8b22347a3e"}
        if not body.get("stream"):
            said: Json = {"role": "assistant", "content": "".join(pieces), "refusal": None, "annotations": []}
            choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}
            whole = {**head, "choices": [choice], "usage": usage, **tail}
            return Reply(200, whole, headers=_openai_headers(), pause=self._first() + self._next(len(pieces)))
        head["object"] = "chat.completion.chunk"
        asked = bool((body.get("stream_options") or {}).get("include_usage"))

        def chunk(choices: list[Json], usage: Json | None = None) -> str:
            return _sse({**head, **tail, "choices": choices, **({"usage": usage} if asked else {})})

        def delta(delta: Json, finish: str | None = None) -> str:
            return chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

        def events() -> Iterator[tuple[float, str]]:
            yield self._first(), delta({"role": "assistant", "content": "", "refusal": None})
            for piece in pieces:
                yield self._next(), delta({"content": piece})
            yield 0.0, delta({}, finish)
            if asked:
                yield 0.0, chunk([], usage)
            yield 0.0, "data: [DONE]\n\n"

        return Reply(events=events(), headers=_openai_headers())

    def _responses(self, body: Json) -> Reply:
        model = _need(body, "model", str)
        said = body.get("input") or ""
        items = [{"role": "user", "content": said}] if isinstance(said, str) else said
        prompt = [Block("developer", body["instructions"])] if body.get("instructions") else []
        prompt += [Block(item.get("role", "user"), _text(item.get("content"))) for item in items]
        pieces, _, cut = self._answer(prompt, body.get("max_output_tokens"))
        size = sum(len(block.tokens) for block in prompt)
        text = "".join(pieces)
        message_id, created = "msg_" + secrets.token_hex(25), int(time.time())
        part: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
        item: Json = {
            "id": message_id,
            "type": "message",
            "status": "incomplete" if cut else "completed",
            "content": [part],
            "role": "assistant",
        }
        started: Json = {
            "id": "resp_" + secrets.token_hex(25),
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "max_tool_calls": None,
            "model": SNAPSHOTS.get(model, model),
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "prompt_cache_key": None,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": None,
            "service_tier": "default",
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None,
            "user": None,
            "metadata": {},
        }
        ended: Json = {
            **started,
            "status": item["status"],
            "completed_at": None if cut else created,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [item],
            "usage": {
                "input_tokens": size,
                "input_tokens_details": {"cached_tokens": self._cache.implicit(model, prompt, 128)},
                "output_tokens": len(pieces),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": size + len(pieces),
            },
        }
        if not body.get("stream"):
            return Reply(200, ended, headers=_openai_headers(), pause=self._first() + self._next(len(pieces)))
        where: Json = {"item_id": message_id, "output_index": 0, "content_index": 0}
        empty = {**part, "text": ""}
        opened = {**item, "status": "in_progress", "content": []}
        parts: list[tuple[float, str, Json]] = [
            (self._first(), "response.created", {"response": started}),
            (0.0, "response.in_progress", {"response": started}),
            (0.0, "response.output_item.added", {"output_index": 0, "item": opened}),
            (0.0, "response.content_part.added", {**where, "part": empty}),
            *(
                (self._next(), "response.output_text.delta", {**where, "delta": piece, "logprobs": []})
                for piece in pieces
            ),
            (0.0, "response.output_text.done", {**where, "text": text, "logprobs": []}),
            (0.0, "response.content_part.done", {**where, "part": part}),
            (0.0, "response.output_item.done", {"output_index": 0, "item": item}),
            (0.0, "response.incomplete" if cut else "response.completed", {"response": ended}),
        ]
        events = (
            (pause, _sse({"type": name, "sequence_number": number, **data}, name))
            for number, (pause, name, data) in enumerate(parts)
        )
        return Reply(events=events, headers=_openai_headers())

    def _embeddings(self, body: Json) -> Reply:
        model = _need(body, "model", str)
        given = body.get("input") or ""
        texts = [given] if isinstance(given, str) else given
        size = int(body.get("dimensions") or (3072 if model.endswith("large") else 1536))
        packed = body.get("encoding_format") == "base64"
        data = []
        for index, text in enumerate(texts):
            vector = _vector(str(text), size)
            embedding = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
            data.append({"object": "embedding", "index": index, "embedding": embedding})
        count = sum(len(tokens(str(text))) for text in texts)
        whole = {
            "object": "list",
            "data": data,
            "model": SNAPSHOTS.get(model, model),
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
        return Reply(200, whole, headers=_openai_headers(), pause=self._first())

    def _messages(self, body: Json) -> Reply:
        model, limit = _need(body, "model", str), _need(body, "max_tokens", int)
        prompt = list(_anthropic_blocks("system", body.get("system")))
        for said in _need(body, "messages", list):
            prompt += _anthropic_blocks(said.get("role", "user"), said.get("content"))
        pieces, _, cut = self._answer(prompt, limit)
        size = sum(len(block.tokens) for block in prompt)
        read, written = self._cache.explicit(model, prompt)
        counts = {
            "input_tokens": size - read - sum(written.values()),
            "cache_creation_input_tokens": sum(written.values()),
            "cache_read_input_tokens": read,
        }
        creation = {f"ephemeral_{ttl}_input_tokens": count for ttl, count in written.items()}
        served = {"service_tier": "standard", "inference_geo": "not_available"}
        ending = {"stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None, "stop_details": None}
        message: Json = {
            "model": SNAPSHOTS.get(model, model),
            "id": "msg_01" + _base62(22),
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "".join(pieces)}],
            **ending,
            "usage": {**counts, "cache_creation": creation, "output_tokens": len(pieces), **served},
        }
        headers = {"request-id": "req_01" + _base62(22)}
        if not body.get("stream"):
            return Reply(200, message, headers=headers, pause=self._first() + self._next(len(pieces)))
        started: Json = {
            **message,
            "content": [],
            **dict.fromkeys(ending),
            "usage": {**counts, "cache_creation": creation, "output_tokens": 1, **served},
        }

        def event(name: str, **data: object) -> str:
            return _sse({"type": name, **data}, name)

        def events() -> Iterator[tuple[float, str]]:
            yield self._first(), event("message_start", message=started)
            yield 0.0, event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            yield 0.0, event("ping")
            for some in _grouped(pieces, 4):
                text = {"type": "text_delta", "text": "".join(some)}
                yield self._next(len(some)), event("content_block_delta", index=0, delta=text)
            yield 0.0, event("content_block_stop", index=0)
            yield 0.0, event("message_delta", delta=ending, usage={**counts, "output_tokens": len(pieces)})
            yield 0.0, event("message_stop")

        return Reply(events=events(), headers=headers)

    def _generate(self, model: str, body: Json, *, stream: bool, sse: bool) -> Reply:
        system = body.get("systemInstruction")
        prompt = [Block("system", _text(system.get("parts")))] if system else []
        prompt += [
            Block(content.get("role", "user"), _text(content.get("parts"))) for content in _need(body, "contents", list)
        ]
        limit = (body.get("generationConfig") or {}).get("maxOutputTokens")
        pieces, thoughts, cut = self._answer(prompt, limit)
        size = sum(len(block.tokens) for block in prompt)
        cached = self._cache.implicit(model, prompt)
        reply_id = secrets.token_urlsafe(16)

        def part(some: Sequence[str], sent: int, *, last: bool) -> Json:
            usage: Json = {
                "promptTokenCount": size,
                "candidatesTokenCount": sent,
                "totalTokenCount": size + sent + thoughts,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": size}],
            }
            if cached:
                usage["cachedContentTokenCount"] = cached
                usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": cached}]
            if thoughts:
                usage["thoughtsTokenCount"] = thoughts
            candidate: Json = {"content": {"parts": [{"text": "".join(some)}], "role": "model"}, "index": 0}
            if last:
                candidate["finishReason"] = "MAX_TOKENS" if cut else "STOP"
            return {
                "candidates": [candidate],
                "usageMetadata": usage,
                "modelVersion": SNAPSHOTS.get(model, model),
                "responseId": reply_id,
            }

        thinking = self._first() + self._next(thoughts) / 4
        headers = {"server-timing": f"gfet4t7; dur={round(1000 * thinking)}"}
        if not stream:
            whole = part(pieces, len(pieces), last=True)
            return Reply(200, whole, headers=headers, pause=thinking + self._next(len(pieces)))
        if not sse:
            raise BadRequestError("streamGenerateContent is served with alt=sse only")

        def events() -> Iterator[tuple[float, str]]:
            groups, sent = list(_grouped(pieces, 12)) or [[]], 0
            for at, some in enumerate(groups):
                sent += len(some)
                pause = self._next(len(some)) + (0.0 if at else thinking)
                yield pause, _sse(part(some, sent, last=at == len(groups) - 1))

        return Reply(events=events(), headers=headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients may hang up when they like, and the terminal belongs to the demo."""


def _handler(reply: Callable[[str, str, Json], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                answer = reply(path, query, body if isinstance(body, dict) else {})
            except (ValueError, BadRequestError) as error:
                answer = Reply(400, {"error": {"type": "invalid_request_error", "message": str(error)}})
            self._send(answer)

        def _send(self, answer: Reply) -> None:
            if answer.body is not None:
                time.sleep(answer.pause)
                content = json.dumps(answer.body).encode()
                self._head(answer, "application/json; charset=utf-8", "content-length", str(len(content)))
                self.wfile.write(content)
                return
            self._head(answer, "text/event-stream; charset=utf-8", "transfer-encoding", "chunked")
            for pause, event in answer.events:
                time.sleep(pause)
                content = event.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            self.wfile.write(b"0\r\n\r\n")

        def _head(self, answer: Reply, content_type: str, framing: str, value: str) -> None:
            self.send_response(answer.status)
            for name, text in ({"content-type": content_type, framing: value} | answer.headers).items():
                self.send_header(name, text)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
            pass

    return Handler


def _need(body: Json, key: str, kind: type[T]) -> T:
    value = body.get(key)
    if not isinstance(value, kind):
        raise BadRequestError(f"{key}: a value of type {kind.__name__} is required")
    return value


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _anthropic_blocks(role: str, content: object) -> Iterator[Block]:
    if isinstance(content, str):
        yield Block(role, content)
    for part in content if isinstance(content, list) else []:
        control = part.get("cache_control")
        yield Block(role, str(part.get("text") or ""), (control.get("ttl") or "5m") if control else None)


def _sse(data: Json, name: str | None = None) -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


def _grouped(pieces: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (pieces[at : at + size] for at in range(0, len(pieces), size))


def _base62(length: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def _openai_headers() -> dict[str, str]:
    return {"x-request-id": "req_" + secrets.token_hex(16), "openai-version": "2020-10-01"}


def _vector(text: str, size: int) -> list[float]:
    """A unit vector that lies closer to another the more words the two texts share."""
    vector = [0.0] * size
    for word in re.findall(r"\w{4,}", text.lower()):
        for digit in blake2b(word.encode(), digest_size=16).digest():
            vector[digit * 7919 % size] += 1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
