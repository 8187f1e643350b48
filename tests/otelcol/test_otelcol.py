"""`costspan otelcol-config`: what it writes, run in the real collector, gives the dollars of the Python book.

All cases go through one collector in a few requests; what comes out is compared in picodollars.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from costspan.otelcol.config import config
from costspan.otelcol.table import METERS, SelectionError, table
from costspan.price import Pricer, span_attributes
from costspan_pricing import PriceBook
from costspan_processor import dialects as d
from costspan_processor.enrich import enrich
from costspan_processor.translation import in_convention
from tests.grafana.prometheus import binary
from tests.otelcol.stock import AT, Stock, Told, stock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costspan.otelcol.table import Table

HERE = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("COSTSPAN_VECTORS", HERE.parents[1] / "shared" / "vectors" / "pricing.jsonl"))
BOOK = PriceBook.bundled()
OURS = "costspan_instrumentation.engine"
PICO, STATUS, REASON = "costspan.cost.picodollars", "costspan.cost.status", "costspan.cost.reason"

# ---------------------------------------------------------------------- the vectors


class Vector(NamedTuple):
    name: str
    told: Told
    total: int | None
    """Picodollars, if the call used nothing but tokens of text and the book prices it."""


def vectors() -> list[Vector]:
    """Every vector as the span that our readers make of it."""
    files = [*sorted((HERE / "vectors").glob("*.jsonl")), *([SHARED] if SHARED.exists() else [])]
    found = []
    for file in files:
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            context = line.get("context") or {}
            if "override" in context:
                continue  # prices of its own, which no other line has
            priced, at, _ = Pricer(AT, BOOK).assess(line)
            usage = priced.reading.usage
            text = usage is not None and METERS.keys() >= usage.quantities.keys()
            alone = text and priced.reading.reported_cost is None and not priced.reading.parts
            told = Told(span_attributes(line, context), OURS, at)
            found.append(Vector(f"{file.stem}/{line['id']}", told, priced.total if alone else None))
    return found


def models_of(spans: Iterator[Mapping[str, Any]]) -> list[str]:
    """Models that the spans name and the book knows."""
    found = set()
    for said in spans:
        provider = said.get("gen_ai.provider.name") or said.get("gen_ai.system")
        for model in (said.get("gen_ai.response.model"), said.get("gen_ai.request.model")):
            match = BOOK.match(str(provider), str(model)) if provider and model else None
            if match is not None and match.rule not in {"free", "fallback"}:
                found.add(f"{provider}/{model}")
    return sorted(found)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    """A collector with the models of the vectors and the dialects' fixtures, and two providers that give some free."""
    models = models_of(vector.told.attributes for vector in vectors())
    models += models_of(in_convention(case.attributes, case.scope, case.resource) for _, case in fixtures())
    text = config(table(BOOK, models, ["ollama", "openrouter"]), "localhost:1")
    with stock(text, tmp_path_factory.mktemp("shop")) as it:
        yield it
        assert it.errors() == []


def test_every_vector_of_tokens_costs_what_the_book_says_to_the_picodollar(shop: Stock) -> None:
    cases = vectors()
    told = [case for case in cases if case.total is not None]
    found = {case.name: span.get(PICO) for case, span in zip(cases, shop.priced([c.told for c in cases]), strict=True)}
    assert {case.name: found[case.name] for case in told} == {case.name: case.total for case in told}
    assert len(told) > (50 if SHARED.exists() else 10)


def test_what_it_cannot_price_has_no_figure_and_says_why(shop: Stock) -> None:
    cases = [case for case in vectors() if case.total is None]
    for case, span in zip(cases, shop.priced([case.told for case in cases]), strict=True):
        assert span[STATUS] in {"partial", "unknown_model", "unknown_provider", "invalid_usage", "no_usage"}, case.name
        assert span[REASON]
        assert not {"costspan.cost.total", PICO, "gen_ai.usage.cost.amount"} & span.keys()


# ---------------------------------------------------------------------- the dialects


def fixtures() -> list[tuple[str, Told]]:
    found = []
    for file in sorted((HERE / "dialects" / "fixtures").glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        for case in told["cases"]:
            for span in case["spans"]:
                name = f"{file.stem}-{case['name']}/{span['name']}"
                found.append((name, Told(span["attributes"], span["scope"]["name"], AT, told.get("resource", {}))))
    return found


UNSEEN = {"claude-code", "codex-cli", "ddtrace"}
"""Libraries whose spans no attribute of the conventions tells from any other span."""
PRICED = {
    "adk", "official", "official-openai-v2", "openinference", "openinference-langchain", "openinference-litellm",
    "openllmetry", "openllmetry-langchain", "openlit", "pydantic-ai", "sentry", "vercel-v4", "vercel-v5", "vercel-v6",
    "vercel-v7",
}  # fmt: skip
"""Files of which some spans at least have to get a price."""


def test_the_spans_of_every_library_cost_what_the_book_says_or_are_marked(shop: Stock) -> None:
    cases = fixtures()
    wrong, priced = [], set()
    for (name, told), span in zip(cases, shop.priced([told for _, told in cases]), strict=True):
        file = name.split("-" + name.partition("/")[0].rpartition("-")[2])[0]
        expected = enrich(told.attributes, AT, BOOK, told.scope, told.resource)
        if not expected or STATUS in told.attributes:
            right = STATUS not in span or STATUS in told.attributes
        elif PICO in span:
            right = span[PICO] == round(float(expected.get("costspan.cost.total", -1)) * 10**12)  # type: ignore[arg-type]
            right = right and span[STATUS] == expected[STATUS]
            priced |= {known for known in PRICED if name.startswith(f"{known}-")}
        else:
            right = REASON in span or file in UNSEEN or name.startswith(tuple(UNSEEN))
        if not right:
            wrong.append((name, expected, {key: value for key, value in span.items() if key.startswith("costspan.")}))
    assert wrong == []
    assert priced == PRICED


# ---------------------------------------------------------------------- by hand

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4.1"}
USED = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 500}
SONNET = CHAT | {"gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5"}
BATCH, PRIORITY = {"costspan.service_tier": "batch"}, {"openai.response.service_tier": "priority"}
SEARCHED = '{"anthropic": {"usage": {"server_tool_use": {"web_search_requests": 2}}}}'
READ, WRITTEN = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"

HAND: dict[str, tuple[Told, int | None, str]] = {
    # 1000 x $2 + 500 x $8 a million
    "older names of counts": (
        Told(CHAT | {"gen_ai.usage.prompt_tokens": 1000, "gen_ai.usage.completion_tokens": 500}),
        6_000_000_000,
        "priced",
    ),
    "counts as text and with a point": (
        Told(CHAT | {"gen_ai.usage.input_tokens": "1000", "gen_ai.usage.output_tokens": 500.0}),
        6_000_000_000,
        "priced",
    ),
    "a batch": (Told(CHAT | USED | BATCH), 3_000_000_000, "priced"),
    "priority": (Told(CHAT | USED | PRIORITY), 10_500_000_000, "priced"),
    "a tier that the provider may choose": (
        Told(CHAT | USED | {"openai.request.service_tier": "auto", "model_request_parameters": "{}"}, "pydantic-ai"),
        6_000_000_000,
        "priced",
    ),
    "searches that are in JSON": (
        Told(SONNET | USED | {"ai.response.providerMetadata": SEARCHED}, "ai"),
        None,
        "partial",
    ),
    "a tier that has no price": (
        Told(CHAT | USED | {"costspan.service_tier": "gold"}),
        6_000_000_000,
        "estimated",
    ),
    "a date behind the name": (
        Told(SONNET | USED | {"gen_ai.response.model": "claude-sonnet-4-5-20250929"}),
        10_500_000_000,
        "priced",
    ),
    "a gateway's name": (
        Told(CHAT | USED | {"gen_ai.provider.name": "litellm", "gen_ai.request.model": "openai/gpt-4.1"}),
        6_000_000_000,
        "priced",
    ),
    # 100 x $3 + 500 x $15 + 1000 x $0.30 + 300 x $3.75: beside the input, since nothing else can be.
    "cached tokens beside the input": (
        Told(SONNET | {**USED, "gen_ai.usage.input_tokens": 100, READ: 1000, WRITTEN: 300}),
        9_225_000_000,
        "estimated",
    ),
    "an agent": (Told(CHAT | USED | {"gen_ai.operation.name": "invoke_agent"}), None, ""),
    "no model call": (Told({"http.request.method": "GET"}), None, ""),
    "no usage": (Told(CHAT), None, "no_usage"),
    "a negative count": (Told(CHAT | USED | {"gen_ai.usage.input_tokens": -1}), None, "invalid_usage"),
    "half a token": (Told(CHAT | USED | {"gen_ai.usage.input_tokens": 1.5}), None, "invalid_usage"),
    "a count that is none": (Told(CHAT | USED | {"gen_ai.usage.output_tokens": "many"}), None, "invalid_usage"),
    "a count that would leave 64 bits": (Told(CHAT | USED | {READ: 2**62}), None, "invalid_usage"),
    "audio": (Told(CHAT | USED | {"gen_ai.usage.audio.input_tokens": 10}), None, "partial"),
    "searches": (Told(CHAT | USED | {"costspan.usage.web_searches": 1}, OURS), None, "partial"),
    "a model of nobody's": (Told(CHAT | USED | {"gen_ai.request.model": "gpt-99"}), None, "unknown_model"),
    "no provider": (Told({"gen_ai.request.model": "gpt-4.1"} | USED), None, "unknown_provider"),
    "attributes of the wrong kind": (
        Told(CHAT | USED | {"gen_ai.request.model": ["a"], "gen_ai.provider.name": 7}),
        None,
        "unknown_provider",
    ),
}


def test_cases_by_hand(shop: Stock) -> None:
    spans = shop.priced([told for told, _, _ in HAND.values()])
    found = {name: (span.get(PICO), span.get(STATUS, "")) for name, span in zip(HAND, spans, strict=True)}
    assert found == {name: (pico, status) for name, (_, pico, status) in HAND.items()}


def test_plain_calls_get_from_few_statements_what_all_of_them_would_give(tmp_path: Path) -> None:
    """The file has a short way for them, made of the same statements; a collector without it is the measure."""
    spans = [told for _, told in fixtures()]
    spans += [Told(said, scope) for said in variations() for scope in ("tests", "openlit", "traceloop.sdk", OURS)]
    models = models_of(in_convention(told.attributes, told.scope, told.resource) for told in spans)
    text = config(table(BOOK, models), "localhost:1")
    with stock(without(text, 0), tmp_path / "long") as long, stock(without(text, 1), tmp_path / "short") as short:
        found = list(zip(spans, short.priced(spans), long.priced(spans), strict=True))
        assert (long.errors(), short.errors()) == ([], [])
    taken = [(told, few, all_of_it) for told, few, all_of_it in found if few.keys() - told.attributes.keys()]
    assert [(told, few) for told, few, all_of_it in taken if few != all_of_it] == []
    assert 150 < len(taken) < len(spans) / 2


def variations() -> list[dict[str, Any]]:
    """Calls that are plain, and such as are not by one thing that they say."""
    counts: dict[str, tuple[Any, ...]] = {
        d.CACHE_READ: (0, 200, 5000, -1, "7"),
        d.CACHE_WRITE: (0, 300),
        d.REASONING: (0, 100, 900),
    }
    names: dict[str, tuple[Any, ...]] = {
        "gen_ai.response.model": ("gpt-4.1-2025-04-14", "gpt-4.1-20250414", "nobodys", 4),
        "gen_ai.operation.name": ("embeddings", "plan", "completion"),
        "server.address": ("api.openai.com", "eu.api.openai.com", "api.deepseek.com", "https://api.x.ai", "localhost"),
        "openai.response.service_tier": ("default", "flex", "Batch"),
        "openai.api.type": ("chat_completions", "responses"),
        "gen_ai.provider.name": ("OpenAI", "openai.chat", "azure", "anthropic"), "costspan.geo": ("eu",),
        "gen_ai.usage.total_tokens": (1500, 1500.0, 1700, 1400, "1500"), "gen_ai.tool.definitions": ("[]",),
        "gen_ai.usage.input_tokens": (0, 1e3, 2**40), "costspan.usage.estimated": (True,),
    }  # fmt: skip
    once: list[dict[str, Any]] = [
        CHAT | USED | {key: value} for key, values in {**counts, **names}.items() for value in values
    ]
    combined = [
        CHAT | USED | dict(zip(counts, values, strict=True)) | {"gen_ai.usage.total_tokens": total}
        for values in product(*counts.values())
        for total in (1500, 1600)
    ]
    old = {"gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4.1"} | USED
    sonnet = SONNET | USED | {READ: 400, WRITTEN: 300}
    dated = [
        sonnet | {"gen_ai.response.model": f"claude-sonnet-4-5{end}"} for end in ("-20250929", "-20250929-x", "-9")
    ]
    return [CHAT | USED, sonnet, *dated, old, *once, *combined]


def without(text: str, number: int) -> str:
    """The file without the statements for plain calls (0), or those for all others (1)."""
    marks = ("      # Plain calls: ", "      # All other calls.", "      - statements:\n          - 'delete_key(scope.")
    places = [text.index(mark) for mark in marks]
    return text[: places[number]] + text[places[number + 1] :]


def test_a_span_that_has_been_priced_comes_out_as_it_went_in(shop: Stock) -> None:
    told = CHAT | USED | {STATUS: "priced", "costspan.cost.total": 1.5}
    assert shop.priced([Told(told, OURS)]) == [told]


def test_a_price_has_the_attributes_that_ours_has(shop: Stock) -> None:
    told = CHAT | {**USED, READ: 400}
    (span,) = shop.priced([Told(told, OURS)])
    ours = {key: value for key, value in enrich(told, AT, BOOK).items() if not key.startswith("gen_ai.")}
    added = {key: span[key] for key in span.keys() - told.keys()}
    tokens = {"input": 600, "cache_read": 400, "output": 500}
    assert added == ours | {PICO: 5_400_000_000} | {f"costspan.tokens.{key}": n for key, n in tokens.items()}


def test_a_price_that_has_changed_is_that_of_the_instant_at_which_the_call_began(shop: Stock) -> None:
    # o3 cost five times as much before 10 June 2025.
    change = 1_749_513_600_000_000_000
    o3 = CHAT | USED | {"gen_ai.request.model": "o3"}
    instants = (change - 1, change, change + 1)
    found = [span[PICO] for span in shop.priced([Told(o3, OURS, at) for at in instants])]
    assert found == [round(float(enrich(o3, at, BOOK)["costspan.cost.total"]) * 10**12) for at in instants]  # type: ignore[arg-type]
    assert found[0] == 5 * found[1] == 30_000_000_000


def test_counters_have_our_names_and_what_was_spent(tmp_path: Path) -> None:
    with stock(config(table(BOOK, ["openai/gpt-4.1"]), "localhost:1"), tmp_path) as till:
        team = {"costspan.team": "search"}
        till.priced([Told(CHAT | {**USED, READ: 400} | team), Told(CHAT | {**USED, READ: 400} | team)])
        till.priced([Told(CHAT | {**USED, READ: 400} | team), Told(CHAT | USED | {STATUS: "priced"}), Told(CHAT)])
        text = till.metrics()
    found = {}
    for name, labels, value in re.findall(r"^(costspan_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        said = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert (said["job"], said["gen_ai_provider_name"], said["gen_ai_request_model"]) == (
            "shop",
            "openai",
            "gpt-4.1",
        )
        key = said.get("costspan_component") or said.get("costspan_cost_status") or ""
        found[name, key, said.get("costspan_team", "")] = float(value)
    assert found == {
        ("costspan_cost_USD_total", "input", "search"): pytest.approx(3 * 0.0012, rel=1e-12),
        ("costspan_cost_USD_total", "cache_read", "search"): pytest.approx(3 * 0.0002, rel=1e-12),
        ("costspan_cost_USD_total", "output", "search"): pytest.approx(3 * 0.004, rel=1e-12),
        ("costspan_tokens_total", "input", "search"): 1800,
        ("costspan_tokens_total", "cache_read", "search"): 1200,
        ("costspan_tokens_total", "output", "search"): 1500,
        ("costspan_calls_total", "priced", "search"): 3,
        ("costspan_calls_total", "no_usage", ""): 1,
        ("costspan_cache_saved_USD_total", "", "search"): pytest.approx(3 * 0.0006, rel=1e-12),
    }


# ---------------------------------------------------------------------- the file


@pytest.mark.parametrize("provider", ["anthropic", "aws.bedrock", "deepseek", "ollama"])
def test_the_collector_takes_the_file_of_a_whole_provider(provider: str, tmp_path: Path) -> None:
    file = tmp_path / "otelcol.yaml"
    done = costspan("--provider", provider, "--endpoint", "https://traces.example/otlp", "--out", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    subprocess.run([binary("otelcol"), "validate", f"--config={file}"], check=True)
    assert yaml.safe_load(file.read_text())["exporters"]["otlp_http"]


def costspan(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "costspan", "otelcol-config", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment | more)


def test_a_file_is_the_same_whenever_it_is_written() -> None:
    """Python orders sets anew in each process, and the file may lie in a repository."""
    asked = ("--models", "openai/gpt-4.1")
    one, other = (costspan(*asked, PYTHONHASHSEED=seed).stdout for seed in ("1", "2"))
    assert one
    assert one == other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing is chosen"),
        (["--models", "openai/gpt-4.11"], "did you mean 'gpt-4.1'"),
        (["--models", "gpt-4.1"], "openai/gpt-4.1"),
        (["--models", "opneai/gpt-4.1"], "did you mean 'openai'"),
        (["--provider", "opneai"], "did you mean 'openai'"),
        (["--models", "openai/whisper-1"], "no price by the token"),
        (["--models", "openai/gpt-4.1", "--out", "/nowhere/otelcol.yaml"], "cannot be written"),
        (["--models", "openai/gpt-4.1", "--endpoint", "a b"], "is no host:port"),
        (["--models", "openai/gpt-4.1", "--endpoint", "a:1", "--lookup"], "says nothing of --lookup"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(arguments: list[str], said: str) -> None:
    done = costspan(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("costspan otelcol-config: ")
    assert said in done.stderr


def test_prices_for_the_lookup_processor_are_those_of_the_book() -> None:
    done = costspan("--lookup", "--models", "openai/gpt-4.1")
    prices = yaml.safe_load(done.stdout)
    assert {"openai/gpt-4.1", "openai/gpt-4.1-2025-04-14"} <= prices.keys()
    assert prices["openai/gpt-4.1"]["input"] == 2_000_000


def test_prices_of_your_own_and_names_of_your_own_are_in_the_table() -> None:
    book = BOOK.with_prices({"openai/gpt-4.1": {"input": "1.80"}}).with_names({"azure/prod-chat": "gpt-4o"})
    made = table(book, ["openai/gpt-4.1", "azure/gpt-4o"])
    assert made.cards["openai/gpt-4.1##"]["i"] == 1_800_000
    assert made.listed["azure"]["prod-chat"] == "azure/gpt-4o"


def test_a_price_that_is_no_integer_of_picodollars_is_no_price_for_a_collector() -> None:
    made = table(BOOK, ["openrouter/google/gemini-2.5-flash"])
    assert {key for card in made.cards.values() for key in card.get("x", {})} >= {"w"}


def test_every_card_that_a_card_leads_to_is_there() -> None:
    made = table(BOOK, providers=["deepseek", "google", "openai"])
    assert missing(made) == set()
    del made.cards[next(card["l"] for card in made.cards.values() if "l" in card)]
    assert len(missing(made)) == 1


def missing(made: Table) -> set[str]:
    leads = {key for card in made.cards.values() for key in card if key in {"b", "l"} or re.fullmatch(r"w\d+", key)}
    return {card[key] for card in made.cards.values() for key in leads & card.keys()} - made.cards.keys()


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(SelectionError, match="nothing is chosen"):
        table(BOOK)
