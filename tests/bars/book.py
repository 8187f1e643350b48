"""The bars of the price book: exact, complete, fast and small."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from costspan_instrumentation.providers.openai import reported_cost
from costspan_pricing import METERS, PriceBook, Usage
from tests.bars.load import ROOT
from tests.bars.report import (
    CACHE,
    SHARED,
    Bar,
    at_most,
    environment,
    none_of,
    on_path,
    python,
    skipped,
    without_program,
)
from tests.bench.instructions import available, instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NOW: Final = 1_795_392_000 * 10**9
"""23 November 2026."""


def vectors(full: bool) -> Iterator[Bar]:
    """Usage in the providers' own form through `costspan price`: dollars to the last digit."""
    source = SHARED / "vectors" / "pricing.jsonl"
    if not source.is_file():
        yield from skipped(("vectors",), "no vectors beside this checkout")
        return
    cases = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    told = ("id", "provider", "model", "usage_format", "usage", "at", "tier", "context")
    answers = _priced([{key: case[key] for key in told if key in case} for case in cases])
    wrong = [f"{case['id']}: {mistake}" for case in cases if (mistake := _mistake(case, answers.get(case["id"])))]
    yield none_of("vectors", wrong, f"{len(cases)} wrong", "of all providers")


def _priced(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Line by line through `costspan price`: the answers by their id."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "asked.jsonl"
        asked.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
        # The exit status is 1 if a line cannot be read; the line says so itself.
        out = subprocess.run(
            [sys.executable, "-m", "costspan", "price", str(asked)],
            capture_output=True,
            check=False,
            env=on_path(),
            cwd=ROOT,
        ).stdout
    return {answer["id"]: answer for answer in map(json.loads, out.splitlines())}


def _mistake(case: dict[str, Any], answer: dict[str, Any] | None) -> str | None:
    if answer is None or "error" in answer:
        return f"no answer ({answer})"
    usd, expected = answer["usd"], case["expected_usd"]
    if (usd is None) != (expected is None) or (usd is not None and Decimal(usd) != Decimal(expected)):
        return f"{usd}, expected {expected}"
    if answer["reason"] != case.get("expected_reason"):
        return f"reason {answer['reason']}, expected {case.get('expected_reason')}"
    flag = case.get("expected_flag")
    if flag is not None and flag not in answer["flags"]:
        return f"flags {answer['flags']} without {flag}"
    return None


def reported(full: bool) -> Iterator[Bar]:
    """What providers charged for recorded calls, as their responses say, and what the book makes of the same usage."""
    folders = [Path(folder) for folder in os.environ.get("COSTSPAN_EXCHANGES", "").split(os.pathsep) if folder]
    charged: dict[str, tuple[Decimal, str | None]] = {}
    lines: list[dict[str, Any]] = []
    for file in sorted(file for folder in folders for file in folder.glob("*.json")):
        exchange = json.loads(file.read_text(encoding="utf-8"))
        usage = exchange["usage"]
        told = reported_cost(usage).get("costspan.usage.reported_cost") if isinstance(usage, dict) else None
        if told is None:
            continue
        charged[exchange["id"]] = Decimal(str(told)), _why_else(exchange)
        lines.append(_as_asked(exchange))
    if not lines:
        yield from skipped(("reported",), "no recorded exchanges (COSTSPAN_EXCHANGES)")
        return
    for name, answer in _priced(lines).items():
        theirs, reason = charged[name]
        ours = None if answer["usd"] is None else Decimal(answer["usd"])
        agree = ours is not None and abs(ours - theirs) * 100 <= theirs
        figure = f"ours {answer['status'] if ours is None else f'${ours:f}'}"
        note = name if agree else f"{name}: {reason or 'NOT EXPLAINED'}"
        yield Bar("reported", figure, f"${theirs:f}", agree or reason is not None, note)


def _as_asked(exchange: Mapping[str, Any]) -> dict[str, Any]:
    """A line for `costspan price`: the usage without its cost, on the day of the call."""
    usage = {key: value for key, value in exchange["usage"].items() if not key.startswith(("cost", "estimated_cost"))}
    usage_format = f"openai.{exchange['api'].partition('.')[2]}"
    if usage_format == "openai.rerank":
        usage_format = "cohere.rerank" if "search_units" in usage else "openai.embeddings"
        usage = {"billed_units": usage} if "search_units" in usage else usage
    elif "prompt_tokens" in usage and usage_format != "openai.embeddings":
        usage_format = "openai.chat"
    asked = {
        "id": exchange["id"],
        "provider": exchange["provider"],
        "model": exchange["response_model"] or exchange["model"] or "unnamed",
        "usage_format": usage_format,
        "usage": usage,
        "tier": usage.get("service_tier") or "standard",
    }
    # Its moment in an SSE stream is in text, in a plain answer in JSON.
    moment = re.search(r'\\?"created(?:_at)?\\?":\s*(\d{10})', json.dumps(exchange["response"]["body"]))
    return asked if moment is None else {**asked, "at": datetime.fromtimestamp(int(moment[1]), UTC).isoformat()}


def _why_else(exchange: Mapping[str, Any]) -> str | None:
    """Why the price of a call may differ from the book's, where that is known."""
    provider, model = exchange["provider"], str(exchange["response_model"] or exchange["model"])
    if "no-request-recorded" in exchange["tags"] and "image-generation-call" in exchange["tags"]:
        return "a figure made up for a test: 123,456 ticks"
    if provider == "openrouter" and model.startswith(("qwen/", "deepseek/", "openai/gpt-oss")):
        return "open weights: the router chose a host, and each has a price of its own"
    return {
        "openai_compatible": "a host that nobody names",
        "huggingface": "the router chose a host that the model's name does not tell",
        "xai.images": "xAI's images report no usage, only the cost",
        "openrouter.transcription": "names no model",
    }.get(exchange["api"] if exchange["api"] in {"xai.images", "openrouter.transcription"} else provider)


def contents(full: bool) -> Iterator[Bar]:
    """How much the book knows."""
    book = PriceBook.bundled()
    models = sum(len(book.models(provider)) for provider in book.providers)
    yield Bar("book.providers", str(len(book.providers)), ">= 45", len(book.providers) >= 45)
    yield Bar("book.models", f"{models:,}", ">= 2,300", models >= 2_300)


def arithmetic(full: bool) -> Iterator[Bar]:
    """Picodollars of random usages of random models against the same sum in `Decimal`."""
    count = 100_000 if full else 10_000
    chance = random.Random(20261128)
    book = PriceBook.bundled()
    names = [(provider, model) for provider in book.providers for model in book.models(provider)]
    wrong: list[str] = []
    made = 0
    while made < count:
        provider, model = chance.choice(names)
        card = book.card(provider, model, NOW)
        if card is None or card.free:
            continue
        made += 1
        meters = chance.sample(sorted(METERS), chance.randint(1, 6))
        used = {meter: chance.choice((1, 7, 10**3, 10**6, 10**9)) * chance.randint(1, 999) for meter in meters}
        cost = card.cost(Usage(used))
        prompt = sum(n for m, n in used.items() if METERS[m].component in {"input", "cache_read", "cache_write"})
        exact = sum(_exact(card.rates(prompt), meter, quantity) for meter, quantity in used.items())
        if (cost.usd or 0) != exact:
            wrong.append(f"{provider}/{model} {used}: {cost.usd}, not {exact}")
    yield none_of("arithmetic", wrong, f"{count:,} cases", "against Decimal")


def _exact(rates: Mapping[str, Any], meter: str, quantity: int) -> Decimal:
    rate = rates.get(meter)
    if rate is None:
        return Decimal(0)
    pico = Decimal(max(quantity, rate.minimum)) * rate.numerator / rate.denominator
    exact: Decimal = (pico / 10**12).quantize(Decimal("1e-12"), ROUND_HALF_EVEN)
    return exact


def speed(full: bool) -> Iterator[Bar]:
    """Instructions of a price once its name has been seen."""
    names = ("instructions.book", "instructions.card", "instructions.unknown")
    if not available():
        yield from without_program(names, "valgrind")
        return
    for name, statement, limit in (
        (names[0], 'book.cost("openai", "gpt-4.1", usage)', 7_000),
        (names[1], "card.cost(usage)", 5_000),
        (names[2], 'book.cost("openai", "gpt-99", usage)', 10_000),
    ):
        yield at_most(name, instructions(statement, _SEEN, 2_000, on_path()), limit)


_SEEN: Final = """\
from costspan_pricing import PriceBook, Usage
book = PriceBook.bundled()
card = book.card("openai", "gpt-4.1", 1_795_392_000 * 10**9)
usage = Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000)
"""


def footprint(full: bool) -> Iterator[Bar]:
    """What importing the package and pricing one call adds to a bare interpreter."""
    runs = [
        json.loads(python("-c", _FIRST, provider, model, environment=on_path()))
        for provider, model in (("openai", "gpt-4.1"), ("openrouter", "openai/gpt-4o"))
        for _ in range(10 if full else 3)
    ]
    yield at_most("book.first_price", median(run["ms"] for run in runs), 60, ".0f", "ms of processor time")
    yield at_most("book.memory", max(run["mib"] for run in runs), 12, ".1f", "MiB")


_FIRST: Final = """\
import sys, time
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Rss:"))
before, started = resident(), time.process_time()
from costspan_pricing import PriceBook, Usage
assert PriceBook.bundled().cost(sys.argv[1], sys.argv[2], Usage({"input": 1000, "output": 10})).total
ms, mib = (time.process_time() - started) * 1000, (resident() - before) / 1024
import json
print(json.dumps({"ms": ms, "mib": mib}))
"""


def peers(full: bool) -> Iterator[Bar]:
    """The same call priced by us and by other price tables in one run: how many times our instructions they take."""
    names = ("peers.genai-prices", "peers.litellm", "peers.tokencost")
    if not full:
        yield from skipped(names, "with --full only")
        return
    if not available():
        yield from without_program(names, "valgrind")
        return
    if shutil.which("uv") is None:
        yield from without_program(names, "uv")
        return
    ours = instructions('book.cost("openai", "gpt-4.1", usage)', _SEEN, 2_000, on_path())
    for name, (package, setup, statement, least) in zip(names, _PEERS, strict=True):
        interpreter = environment(CACHE / "peers" / package, package)
        theirs = instructions(statement, setup, 100, {**on_path(), "PYTHONPATH": ""}, interpreter)
        times = theirs / ours
        note = f"{theirs:,.0f} to {ours:,.0f} instructions"
        yield Bar(name, f"{times:.0f} times", f">= {least}", times >= least, note)


_PEERS: Final = (
    (
        "genai-prices",
        "from genai_prices import Usage, calc_price\n"
        "usage = Usage(input_tokens=10_000, cache_read_tokens=8_000, output_tokens=1_000)",
        'calc_price(usage, model_ref="gpt-4.1", provider_id="openai")',
        100,
    ),
    (
        "litellm",
        'import os\nos.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"\nimport litellm',
        'litellm.cost_per_token(model="gpt-4.1", prompt_tokens=10_000, completion_tokens=1_000, '
        "cache_read_input_tokens=8_000)",
        100,
    ),
    (
        "tokencost",
        "from tokencost import calculate_cost_by_tokens",
        'calculate_cost_by_tokens(10_000, "gpt-4.1", "input") + calculate_cost_by_tokens(1_000, "gpt-4.1", "output")',
        1,
    ),
)
"""Package, setup, statement, and how many times as fast we mean to be."""


MEASURES: Final[Mapping[str, Callable[[bool], Iterator[Bar]]]] = {
    "vectors": vectors,
    "reported": reported,
    "book.contents": contents,
    "arithmetic": arithmetic,
    "instructions.book": speed,
    "book.footprint": footprint,
    "peers": peers,
}
"""Name for `--only` -> what measures it."""
