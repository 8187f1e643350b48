"""Faults of every kind, injected into calls of real SDK clients: what the application sees is what it sees without us.

`python -m tests.bars.faults URL CASES` runs cases and prints what came of each; with `COSTSPAN_FAULTS=1` it does so
under costspan, some parts of which are made to raise.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import inspect
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import types
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.bars.load import ROOT
from tests.bars.report import SHARED, Bar, none_of, on_path, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping

APIS: Final = (
    "openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages", "google.generate_content",
    "bedrock.converse", "bedrock.converse_stream", "mistral.chat", "cohere.chat", "groq.chat", "ollama.chat",
)  # fmt: skip
OUTSIDE: Final = ("none", "status", "cut", "abandon", "close", "cancel", "pressure", "fork")
"""What happens around us: an error answer, a connection cut in mid-stream, a stream that is dropped or closed early, a
task that is cancelled wherever it waits, a collector of garbage that runs all the time, a call in a forked child."""
INSIDE: Final = ("none", "request", "response", "chunk", "before", "after", "exporter", "book", "attribution")
"""What of ours raises."""


class Case(NamedTuple):
    """One call and the faults in it."""

    exchange: str
    api: str
    streamed: bool
    is_async: bool
    outside: str
    inside: str
    number: int
    """Which status, after how many chunks: whatever the fault counts."""

    @staticmethod
    def drawn(chance: random.Random, known: list[dict[str, Any]]) -> Case:
        """A random case that makes sense."""
        exchange = chance.choice(known)
        streamed = bool(exchange["stream"])
        kinds = [k for k in OUTSIDE if streamed or k not in {"cut", "abandon", "close"}]
        if exchange["provider"] == "bedrock":
            kinds.remove("cancel")
        outside = chance.choice(kinds)
        is_async = exchange["provider"] != "bedrock" and (
            outside == "cancel" or (outside != "fork" and chance.random() < 0.5)
        )
        return Case(
            exchange["id"], exchange["api"], streamed, is_async, outside, chance.choice(INSIDE), chance.randint(1, 4)
        )


def faults(full: bool) -> Iterator[Bar]:
    """Seeded cases, each once without costspan and once with it."""
    exchanges = SHARED / "recorded" / "exchanges"
    if not exchanges.is_dir():
        yield from skipped(("faults",), "no recorded exchanges beside this checkout")
        return
    count = 1_000 if full else 150
    index = [json.loads(line) for line in (exchanges / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    known = [e for e in index if e["api"] in APIS and not set(e.get("tags") or ()) & {"truncated"}]
    chance = random.Random(20261128)
    cases = [Case.drawn(chance, known) for _ in range(count)]
    server = _server()
    with server.ReplayServer(str(exchanges)) as serving:
        plain, ours = (_outcomes(serving.url, cases, under) for under in (False, True))
    wrong = [
        f"{case.exchange} {'async' if case.is_async else 'sync'} {case.outside}/{case.inside}: {_where(theirs, mine)}"
        for case, theirs, mine in zip(cases, plain, ours, strict=True)
        if theirs != mine
    ]
    kinds = len({outcome.partition(" ")[0] for outcome in plain})
    yield none_of("faults", wrong, f"{count} cases", f"{kinds} kinds of outcome, each as without costspan")


def _where(theirs: str, mine: str) -> str:
    """Both from where they part."""
    same = next((i for i, (a, b) in enumerate(zip(theirs, mine, strict=False)) if a != b), min(len(theirs), len(mine)))
    start = max(0, same - 20)
    return f"{mine[start : same + 80]!r}, not {theirs[start : same + 80]!r}"


def _server() -> Any:
    spec = importlib.util.spec_from_file_location("replay", SHARED / "recorded" / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _outcomes(url: str, cases: list[Case], under: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "cases.json"
        asked.write_text(json.dumps(cases), encoding="utf-8")
        environment = {**on_path(), "COSTSPAN_FAULTS": "1" if under else "", "ANTHROPIC_OPEN_TELEMETRY": "false"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.bars.faults", url, str(asked)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=ROOT,
        )
    if done.returncode:
        raise RuntimeError(f"the cases ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


# ------------------------------------------------------------------ in the process of the cases


class Injected(Exception):  # noqa: N818  no error of the application's
    """What the parts of ours raise that are made to."""


def _raise(*_: Any, **__: Any) -> Any:
    raise Injected


class _Sabotage:
    """Makes one part of costspan raise, for the time of a case."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        import costspan
        from costspan import startup

        traces = TracerProvider()
        self._exporter = InMemorySpanExporter()
        traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        costspan.init(tracer_provider=traces, meter_provider=MeterProvider([InMemoryMetricReader()]))
        assert startup._processing is not None
        self._observer = startup._processing.observer
        self._undo: list[Callable[[], None]] = []

    def begin(self, what: str) -> None:
        from costspan.startup import PROVIDERS
        from costspan_pricing import PriceBook
        from costspan_processor import observer

        self._exporter.clear()
        if what in {"request", "response", "chunk"}:
            for provider in PROVIDERS.values():
                for endpoint in provider.endpoints:
                    if getattr(endpoint, what) is not None:
                        self._put(endpoint, what, _raise)
        elif what in {"before", "after"}:
            self._put(self._observer, what, _raise)
            self._put(self._observer, "abefore", _raise)
        elif what == "exporter":
            self._put(self._exporter, "export", _raise)
        elif what == "book":
            self._put(PriceBook, "newest", _raise)
            self._put(PriceBook, "card", _raise)
        elif what == "attribution":
            self._put(observer, "attribution", _raise)

    def end(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _put(self, owner: Any, name: str, value: Any) -> None:
        missing = object()
        before = vars(owner).get(name, missing) if hasattr(owner, "__dict__") else getattr(owner, name)
        # Endpoints are frozen.
        object.__setattr__(owner, name, value) if not isinstance(owner, type) else setattr(owner, name, value)

        def undo() -> None:
            if before is missing:
                delattr(owner, name)
            elif isinstance(owner, type):
                setattr(owner, name, before)
            else:
                object.__setattr__(owner, name, before)

        self._undo.append(undo)


def _main(url: str, file: str) -> None:
    cases = [Case(*case) for case in json.loads(Path(file).read_text(encoding="utf-8"))]
    for sdk in ("openai", "anthropic", "google.genai", "boto3", "mistralai", "cohere", "groq", "ollama"):
        importlib.import_module(sdk)
    sabotage = _Sabotage() if os.environ.get("COSTSPAN_FAULTS") else None
    found = []
    for case in cases:
        if sabotage is not None:
            sabotage.begin(case.inside)
        try:
            found.append(_forked(url, case) if case.outside == "fork" else _one(url, case))
        finally:
            if sabotage is not None:
                sabotage.end()
    print(json.dumps(found))


def _forked(url: str, case: Case) -> str:
    """What came of the call in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException), os.fdopen(writing, "w") as out:
            out.write(_one(url, case))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        outcome = answer.read()
    os.waitpid(child, 0)
    return outcome or "the child died"


def _one(url: str, case: Case) -> str:
    """What the application sees: types, contents, chunks, the exception."""
    thresholds = gc.get_threshold()
    if case.outside == "pressure":
        gc.set_threshold(20, 2, 2)
    try:
        if case.is_async:
            return asyncio.run(_async_call(url, case))
        return _sync_call(url, case)
    except BaseException as error:
        return f"{type(error).__module__}.{type(error).__qualname__} {_DATE.sub('', str(error))[:300]}"
    finally:
        gc.set_threshold(*thresholds)


def _headers(case: Case) -> dict[str, str]:
    headers = {"x-replay-id": case.exchange}
    if case.outside == "status":
        headers["x-replay-status"] = ("429", "500", "503", "529")[case.number - 1]
    elif case.outside == "cut":
        headers["x-replay-cut"] = str(case.number)
    elif case.outside == "cancel":
        # Each event comes by itself, and is waited for.
        headers["x-replay-delay-ms"] = "1"
    return headers


def _asked(url: str, case: Case) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The method of a new client, and its arguments."""
    headers, messages = _headers(case), [{"role": "user", "content": "hi"}]
    stream: dict[str, Any] = {"stream": True} if case.streamed else {}
    if case.api.startswith("openai"):
        import openai

        make: Any = openai.AsyncOpenAI if case.is_async else openai.OpenAI
        client = make(base_url=f"{url}/v1", api_key="x", max_retries=0, default_headers=headers)
        if case.api == "openai.chat":
            return client.chat.completions.create, {"model": "gpt-4.1", "messages": messages, **stream}
        if case.api == "openai.responses":
            return client.responses.create, {"model": "gpt-4.1", "input": "hi", **stream}
        return client.embeddings.create, {"model": "text-embedding-3-small", "input": "hi"}
    if case.api.startswith("anthropic"):
        import anthropic

        make = anthropic.AsyncAnthropic if case.is_async else anthropic.Anthropic
        client = make(base_url=url, api_key="x", max_retries=0, default_headers=headers)
        return client.messages.create, {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": messages, **stream}
    if case.api.startswith("google"):
        return _google(url, case, headers)
    if case.api.startswith("bedrock"):
        return _bedrock(url, case, headers)
    return _OTHERS[case.api](url, case, headers, messages)


def _google(url: str, case: Case, headers: dict[str, str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    from google import genai

    options = genai.types.HttpOptions(base_url=url, headers=headers)
    models: Any = genai.Client(api_key="x", http_options=options)
    models = models.aio.models if case.is_async else models.models
    method = models.generate_content_stream if case.streamed else models.generate_content
    return method, {"model": "gemini-2.5-flash", "contents": "hi"}


def _bedrock(url: str, case: Case, headers: dict[str, str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    client: Any = boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=config.Config(retries={"total_max_attempts": 1}),
    )
    client.meta.events.register("before-send", lambda request, **_: request.headers.update(headers))
    arguments = {
        "modelId": "amazon.nova-lite-v1:0",
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
    }
    if not case.streamed:
        return client.converse, arguments
    return lambda **kwargs: client.converse_stream(**kwargs)["stream"], arguments


def _mistral(url: str, case: Case, headers: dict[str, str], messages: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    from mistralai.client import Mistral

    chat: Any = Mistral(api_key="x", server_url=url).chat
    name = ("stream" if case.streamed else "complete") + ("_async" if case.is_async else "")
    arguments = {"model": "mistral-small-latest", "messages": messages, "http_headers": headers}
    return getattr(chat, name), arguments


def _cohere(url: str, case: Case, headers: dict[str, str], messages: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    import cohere

    make: Any = cohere.AsyncClientV2 if case.is_async else cohere.ClientV2
    client = make("x", base_url=url)
    arguments = {
        "model": "command-r7b-12-2024",
        "messages": messages,
        "request_options": {"additional_headers": headers, "max_retries": 0},
    }
    return client.chat_stream if case.streamed else client.chat, arguments


def _groq(url: str, case: Case, headers: dict[str, str], messages: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    import groq

    make: Any = groq.AsyncGroq if case.is_async else groq.Groq
    client = make(base_url=url, api_key="x", max_retries=0, default_headers=headers)
    stream = {"stream": True} if case.streamed else {}
    return client.chat.completions.create, {"model": "llama-3.3-70b-versatile", "messages": messages, **stream}


def _ollama(url: str, case: Case, headers: dict[str, str], messages: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    import ollama

    make: Any = ollama.AsyncClient if case.is_async else ollama.Client
    return make(url, headers=headers).chat, {"model": "llama3.1", "messages": messages, "stream": case.streamed}


_OTHERS: Final = {"mistral.chat": _mistral, "cohere.chat": _cohere, "groq.chat": _groq, "ollama.chat": _ollama}


def _sync_call(url: str, case: Case) -> str:
    method, arguments = _asked(url, case)
    result = method(**arguments)
    if not case.streamed:
        return _told(result)
    chunks = []
    for chunk in result:
        chunks.append(_told(chunk))
        if len(chunks) == case.number and case.outside in {"abandon", "close"}:
            if case.outside == "close":
                getattr(result, "close", lambda: None)()
            break
    return f"{type(result).__qualname__} {chunks}"


async def _async_call(url: str, case: Case) -> str:
    if case.outside != "cancel":
        return await _consumed(*_asked(url, case), case)
    for wait in _WAITS:
        try:
            whole = await _cancelled_at(wait, _consumed(*_asked(url, case), case))
        except asyncio.CancelledError:
            continue
        return f"cancelled at every wait before it had {whole}"
    return "cancelled at every wait"


_WAITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 150, 250, 500)


@types.coroutine
def _cancelled_at(wait: int, coroutine: Coroutine[Any, Any, str]) -> Generator[Any, Any, str]:
    """Awaits a coroutine, and cancels the task at the coroutine's `wait`th wait."""
    step, waits = partial(coroutine.send, None), 0
    while True:
        try:
            future = step()
        except StopIteration as done:
            return str(done.value)
        waits += 1
        task = asyncio.current_task()
        if waits == wait and task is not None:
            task.cancel()
        try:
            sent = yield future
            step = partial(coroutine.send, sent)
        except BaseException as error:
            step = partial(coroutine.throw, error)


async def _consumed(method: Any, arguments: dict[str, Any], case: Case) -> str:
    result = method(**arguments)
    # Cohere's and Mistral's streams are asked for in different ways.
    result = await result if inspect.isawaitable(result) else result
    if not case.streamed:
        return _told(result)
    chunks = []
    async for chunk in result:
        chunks.append(_told(chunk))
        if len(chunks) == case.number and case.outside in {"abandon", "close"}:
            closing = getattr(result, "close", None) or getattr(result, "aclose", None)
            if case.outside == "close" and closing is not None:
                await closing()
            break
    return f"{type(result).__qualname__} {chunks}"


def _told(value: Any) -> str:
    """A result in full, and which of its fields were set."""
    fields = sorted(getattr(value, "model_fields_set", ()))
    dump = value.model_dump_json(warnings=False) if hasattr(value, "model_dump_json") else repr(value)
    return f"{type(value).__qualname__} {fields} {_DATE.sub('', dump)}"


_DATE: Final = re.compile(r"""["']date["']:\s*["'][^"']*["']""", re.IGNORECASE)
"""The header that some SDKs keep with an answer or an error: the server's clock."""


MEASURES: Final[Mapping[str, Callable[[bool], Iterator[Bar]]]] = {"faults": faults}
"""Name for `--only` -> what measures it."""

if __name__ == "__main__":
    _main(*sys.argv[1:])
