"""The documentation says what the code does: its snippets run, its names exist, its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import types
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

import costspan
from costspan.cli import app
from costspan.demo.provider import Answer, DemoProvider
from costspan.doctor import sdks
from costspan.insight.serve.keys import VARIABLE as API_KEYS
from costspan.settings import variables
from costspan.startup import PROVIDERS
from costspan_instrumentation import semconv
from costspan_instrumentation.engine import Engine
from costspan_pricing import METERS, PriceBook, Status, Usage
from costspan_pricing.shelf import Library
from costspan_processor import Budget, Guard, Processing
from costspan_processor.attribution import KEYS
from costspan_processor.budgets import guard
from costspan_processor.budgets.routing import Routing
from costspan_processor.conventions import ROLLUP
from costspan_processor.enrich import enrich
from tests.docs.generate import (
    CALL,
    DOCS,
    ROOT,
    calls,
    collector_metrics,
    collector_options,
    generated,
    metrics,
    pages,
    serve_options,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FLOORS = ("costspan", "pricing", "instrumentation", "processor")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


class Snippet(NamedTuple):
    """A fenced block, and what the HTML comment before it says of it."""

    mark: str
    language: str
    text: str
    line: int


_FENCE = re.compile(r"(?:^<!-- ([\w ]+) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(found[1] or "", found[2], found[3], text.count("\n", 0, found.start(3)) + 1)
        for found in _FENCE.finditer(text)
    ]


def code(page: Path) -> list[str]:
    """What a page sets in code type."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"`([^`\n]+)`", text) + [s.text for s in snippets(page)]


# ------------------------------------------------------------------ what the code writes


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_generated_parts_are_what_the_code_says_now(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generated(text) == text, "python -m tests.docs.generate"


# ------------------------------------------------------------------ links


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    for text in code(page):
        if re.fullmatch(rf"(?:{'|'.join(FLOORS)}|tests|docs)/.*(?:\.\w+|/)", text) and not re.search("acme|<", text):
            assert (ROOT / text).exists(), text


# ------------------------------------------------------------------ Python


@every_page
def test_every_python_snippet_compiles(page: Path) -> None:
    for snippet in snippets(page):
        if snippet.language == "python":
            where = f"{name_of(page)}:{snippet.line}"
            compile(snippet.text, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


RUNNER = """
import contextlib, io, json, sys
import costspan
for program in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "snippet", "exec"), {"__name__": "__main__"})
    costspan.shutdown()
    print(json.dumps(out.getvalue()))
"""


@pytest.mark.parametrize("page", [page for page in PAGES if any(s.mark == "run" for s in snippets(page))], ids=name_of)
def test_snippets_marked_as_runnable_run(page: Path, tmp_path: Path) -> None:
    found = snippets(page)
    programs = [s.text for s in found if s.mark == "run"]
    with DemoProvider({"ping": Answer("pong")}) as provider:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))}
        environment |= {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OPENAI_BASE_URL": provider.openai,
            "OPENAI_API_KEY": "x",
        }
        done = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input=json.dumps(programs), capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    number = -1
    for snippet in found:
        number += snippet.mark == "run"
        if snippet.mark == "output":
            assert printed[number] == snippet.text


# ------------------------------------------------------------------ the command line


_COMMAND = re.compile(r"(?:^|\n|&& )(?:uvx? (?:run )?)?costspan ([a-z][\w-]*)(?: ([a-z][\w-]*))?([^\n#]*)")


def commands() -> list[tuple[str, tuple[str, ...], str]]:
    """Every command line of the documentation: its page, the command (of a group with its groups), and the rest."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    for page in PAGES:
        for text in code(page):
            for command, word, rest in _COMMAND.findall(text.replace("\\\n", " ")):
                path: tuple[str, ...] = (command, word) if word and is_group(command) else (command,)
                if len(path) == 2 and is_group(*path):
                    deeper, _, rest = rest.strip().partition(" ")
                    path = (*path, deeper) if deeper else path
                found.append((name_of(page), path, rest.partition(" -- ")[0]))
    return found


def is_group(*path: str) -> bool:
    return has_command(path[-1], *path[:-1]) and "COMMAND [ARGS]" in help_of(*path)


def has_command(command: str, *group: str) -> bool:
    return re.search(rf"^  {command} ", help_of(*group), re.MULTILINE) is not None


@cache
def help_of(*arguments: str) -> str:
    screen = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    shown = CliRunner(env=screen).invoke(app, [*arguments, "--help"], prog_name="costspan", catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_every_command_that_is_named_exists() -> None:
    assert any(len(path) == 2 for _, path, _ in commands())
    for page, path, rest in commands():
        line = f"{page}: costspan {' '.join(path)}"
        assert has_command(path[-1], *path[:-1]), line
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", rest):
            assert re.search(rf"(?<!\S){option}(?![\w-])", help_of(*path)), f"{line} {option}"


# ------------------------------------------------------------------ providers


@pytest.mark.timeout(400)  # SDKs take seconds to import, and there are many
def test_the_modes_of_the_calls_are_those_of_the_installed_sdks() -> None:
    installed = [fact for fact in sdks.look({})[0] if fact["version"] is not None]
    assert installed
    for fact in installed:
        written = {call.name: call.modes for call in calls(PROVIDERS[fact["instrumentor"]])}
        for call in fact["calls"]:
            # What several methods send through one is known by the name of what they send.
            if call["lacking"] is None and call["name"] in written:
                modes = {mode: call[mode] for mode in ("sync", "async", "raw")}
                assert modes.items() <= written[call["name"]].items(), f"{fact['package']}: {call['name']}"


# ------------------------------------------------------------------ names


@cache
def literals() -> frozenset[str]:
    """Every dotted name that stands in the code as text."""
    found = set()
    for floor in FLOORS:
        for file in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.update(re.findall(r"^[a-z_]+(?:\.[a-z0-9_]+)+$", node.value))
    return frozenset(found)


@cache
def metric_names() -> dict[str, str]:
    """The metrics of both generations and of the collector, with their names in Prometheus."""
    of_processes = [metric for which in ("current", "next") for metric in metrics(which)]
    return {metric.name: metric.prometheus for metric in (*of_processes, *collector_metrics())}


def is_python(name: str) -> bool:
    """Whether a name is one of the package's own: `costspan.init`, `costspan.auto`."""
    owner: Any = costspan
    for part in name.split(".")[1:]:
        module = f"{getattr(owner, '__name__', '')}.{part}"
        if hasattr(owner, part):
            owner = getattr(owner, part)
        elif importlib.util.find_spec(module) is None:
            return False
        elif len(name) > len(module):  # `costspan.auto` patches whoever imports it
            owner = importlib.import_module(module)
    return name.startswith("costspan.")


@every_page
def test_every_attribute_metric_and_function_that_is_named_exists(page: Path) -> None:
    known = literals() | metric_names().keys() | {f"costspan.usage.{meter}" for meter in METERS}
    for text in code(page):
        for name in re.findall(r"(?<![\w.`/-])(?:costspan|gen_ai)\.[A-Za-z_][\w.]*", text):
            if name.endswith("."):  # `costspan.budget.*`, `costspan.tag.<name>`
                assert any(other.startswith(name) for other in known | {"costspan.tag."}), name
            else:
                assert name in known or name.startswith("costspan.tag.") or is_python(name), name


@every_page
def test_every_prometheus_series_that_is_named_exists(page: Path) -> None:
    series = set(metric_names().values())
    labels = {name.replace(".", "_") for name in literals()}
    for text in code(page):
        for name in re.findall(r"(?<![\w.:-])costspan_[a-zA-Z_]+\w", text):
            if name in {"costspan_pricing", "costspan_processor", "costspan_instrumentation"}:
                continue
            assert name in series | labels or any(one.startswith(name) for one in series), name


@every_page
def test_every_variable_that_is_named_exists(page: Path) -> None:
    ours = {name for name, _, _ in variables()} | {
        option.variable for option in (*collector_options(), *serve_options())
    }
    ours.add(API_KEYS)
    for text in code(page):
        for name in re.findall(r"\bCOSTSPAN_[A-Z_]+\b", text):
            assert name in ours, name


def test_the_standard_variables_that_are_read_are_listed() -> None:
    listed = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for file in (ROOT / "costspan").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = node.value if isinstance(node, ast.Constant) else None
            if isinstance(name, str) and re.fullmatch(r"OTEL_[A-Z_]+[A-Z]", name):
                assert f"`{name}`" in listed, f"{name} ({file.name})"


# ------------------------------------------------------------------ attributes


def emitted() -> set[str]:
    """Every attribute that is put on spans: those of the readers, and what the observer adds to some calls."""
    found = set(KEYS.values())
    for file in (ROOT / "instrumentation").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "semconv":
                found.add(getattr(semconv, node.attr))
    processing = Processing(TracerProvider(), budgets=[Budget("b", limit=Decimal(1), policy="block")])
    examples = [
        CALL,
        {**CALL, "costspan.usage.web_searches": 2},
        {**CALL, "costspan.usage.reported_cost": 0.5, "gen_ai.usage.input_tokens": 1},
    ]
    for attributes in examples:
        found.update(processing.observer.after(None, attributes, time.time_ns(), 1.0, None, None))
        refused = processing.observer.before({**attributes, "gen_ai.request.max_tokens": 10**9}, lambda: 0)
        assert refused is not None
        assert refused.refuse is not None
        found.update(refused.attributes)
    book = PriceBook.bundled()
    steps = [
        {"above": 0.5, "model": "anthropic/claude-sonnet-4-5"},
        {"above": 0, "model": "anthropic/claude-haiku-4-5"},
    ]
    routing = Routing.read({"paths": {"anthropic": steps}}, "costspan.toml").check(book, time.time())
    cheaper = Guard([Budget("b", limit="0.000001", policy="downgrade")], book, routing=routing)
    for _ in range(2):
        said = cheaper.admit(CALL, None, lambda: 400, lambda: True)
        assert isinstance(said, guard.Admission)
        found.update(said.attributes)
    unknown = {**CALL, "gen_ai.usage.cache_read.input_tokens": 10**6}
    found.update(enrich(unknown, time.time_ns(), PriceBook.bundled(), scope="acme"))
    return {name for name in found | {ROLLUP} if "." in name}


def test_the_page_of_attributes_lists_exactly_what_is_emitted() -> None:
    text = (DOCS / "attributes.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\|([^|]+)\|", text, re.MULTILINE)
    names = {name for cell in cells for name in re.findall(r"`([a-z_]+(?:\.[a-z0-9_]+)+)`", cell)}
    meters = {f"costspan.usage.{meter.id}" for meter in METERS.values() if meter.component == "other"}
    assert names == emitted() | meters


def test_the_page_of_attributes_explains_every_status() -> None:
    text = (DOCS / "attributes.md").read_text(encoding="utf-8")
    table = text.partition("| `costspan.cost.status` | meaning")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(get_args(Status))
    row = next(line for line in text.splitlines() if line.startswith("| `costspan.budget.status`"))
    assert set(get_args(guard.Status)) <= set(re.findall(r"`(\w+)`", row))


# ------------------------------------------------------------------ the examples of CONTRIBUTING.md


def example(mark: str) -> str:
    return next(s.text for s in snippets(ROOT / "CONTRIBUTING.md") if s.mark == mark)


class Chat:
    """The SDK that the example provider is for."""

    client = types.SimpleNamespace(base_url="https://api.acme.example/v1")
    answer = types.SimpleNamespace(
        model="acme-large-2", usage=types.SimpleNamespace(input_tokens=100, cached_tokens=900, output_tokens=50)
    )

    def complete(self, *, model: str, messages: list[Any], stream: bool = False) -> Any:
        return iter([types.SimpleNamespace(text="Hi", usage=None), self.answer]) if stream else self.answer


class AsyncChat(Chat):
    """The same, asynchronous."""

    async def complete(self, *, model: str, messages: list[Any], stream: bool = False) -> Any:
        async def chunks() -> AsyncIterator[Any]:
            yield types.SimpleNamespace(text="Hi", usage=None)
            yield self.answer

        return chunks() if stream else self.answer


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The example provider at work; its spans."""
    module: Any = types.ModuleType("acme.chat")
    module.Chat, module.AsyncChat = Chat, AsyncChat
    monkeypatch.setitem(sys.modules, "acme.chat", module)
    namespace: dict[str, Any] = {"__name__": "acme"}
    exec(compile(example("toy provider"), "CONTRIBUTING.md", "exec"), namespace)
    exporter, provider, engine = InMemorySpanExporter(), TracerProvider(), Engine()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine.start(provider.get_tracer("test"))
    engine.instrument(namespace["ACME"])
    yield exporter
    engine.uninstrument(namespace["ACME"])


def test_the_example_provider_is_all_it_takes(acme: InMemorySpanExporter) -> None:
    question: dict[str, Any] = {"model": "acme-large", "messages": []}

    async def ask() -> None:
        await AsyncChat().complete(**question)
        async for _ in await AsyncChat().complete(**question, stream=True):
            pass

    Chat().complete(**question)
    list(Chat().complete(**question, stream=True))
    asyncio.run(ask())

    spans = acme.get_finished_spans()
    assert [span.name for span in spans] == ["chat acme-large"] * 4
    for span in spans:
        attributes = dict(span.attributes or {})
        attributes.pop("gen_ai.response.time_to_first_chunk", None)
        assert attributes == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "acme",
            "gen_ai.request.model": "acme-large",
            "gen_ai.response.model": "acme-large-2",
            "server.address": "api.acme.example",
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.cache_read.input_tokens": 900,
            "gen_ai.usage.output_tokens": 50,
        }


def test_the_example_price_is_one_that_the_book_reads(tmp_path: Path) -> None:
    index = {"book_version": "1", "dated": "2026-11-01", "providers": {"acme": {"files": ["overlay/acme.json"]}}}
    (tmp_path / "overlay").mkdir()
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / "overlay" / "acme.json").write_text(example("toy price"))
    book = PriceBook(Library(tmp_path))

    def usd(model: str, day: int, tokens: int, tier: str | None = None) -> str:
        card = book.card("acme", model, 1_790_000_000 * 10**9 + day * 86_400 * 10**9, tier)
        assert card is not None
        return f"{card.cost(Usage.from_inclusive(input=tokens, output=1_000)).usd:f}".rstrip("0")

    assert usd("acme-large", 0, 1_000) == "0.015", "21 September 2026"
    assert usd("acme-large-latest", 30, 1_000) == "0.0125"
    assert usd("acme-large-20260901", 30, 300_000) == "1.515"
    assert usd("acme-large", 30, 1_000, "batch") == "0.00625"


# ------------------------------------------------------------------ what no file may hold


# A letter in brackets keeps a pattern from matching itself.
UNWANTED = {
    "a path of one machine": r"(?<![\w.$}~])/(?:wor[k]|tm[p]|hom[e]|roo[t]|User[s]|op[t]/wheel)s?/[\w.]",
    "a package index": r"index-ur[l]|/simpl[e]/|pythonhosted\.or[g]|registry\.npmj[s]|tool\.uv\.(inde[x]|source[s])",
    "a trace of how it was made": r"\bhelper [A-Z]{4,}\b|\bsub-?agent[s]?\b|(?i:co-authored-b[y])"
    r"|(?i:generated wit[h] \w+ code)|(?:CLAUDE|AGENTS|contracts)\.m[d]",
}


@cache
def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in done.stdout.split("\0") if name]


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_holds(what: str) -> None:
    if not tracked():
        pytest.skip("not a git work tree")
    pattern = re.compile(UNWANTED[what])
    found = []
    for file in tracked():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [f"{name_of(file)}:{number}: {line}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert found == []
