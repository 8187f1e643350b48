"""`costspan estimate`: what calls will cost, on the terminal and as JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from costspan.commands import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from costspan_pricing import Cost
    from costspan_pricing.estimate import Comparison, Conversation, Estimate, Estimator, Projection

app = typer.Typer(
    help="What calls will cost: one call, a conversation, the same usage on other models, a month.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="provider/model, such as openai/gpt-4.1.", show_default=False)
]
Output = Annotated[int | None, typer.Option("--output", min=0, help="Tokens of an answer; by default 1,024.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=0, help="Tokens of an answer at most.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="Seconds of a call, for models paid by the hour.")]
Use = Annotated[list[str] | None, typer.Option("--use", metavar="METER=N", help="Any other meter; repeat it.")]
Tier = Annotated[str | None, typer.Option(help="Service tier: batch, flex, priority, ...")]
Geo = Annotated[str | None, typer.Option(help="Region that the provider is asked to stay in: us, eu, ...")]
At = Annotated[str | None, typer.Option(metavar="INSTANT", help="Prices of this instant (RFC 3339); by default now.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, amounts as decimal text in USD.")]


@app.command()
def call(
    model: Model,
    input_tokens: Annotated[int | None, typer.Option("--input", min=0, help="Tokens of the prompt.")] = None,
    characters: Annotated[int | None, typer.Option(min=0, help="Characters of the prompt, instead of tokens.")] = None,
    characters_per_token: Annotated[float, typer.Option(help="Characters that make a token.")] = 4,
    output: Output = None,
    max_tokens: MaxTokens = None,
    cache_hit_rate: Annotated[float, typer.Option(min=0, max=1, help="Part of the prompt read from the cache.")] = 0,
    seconds: Seconds = None,
    tier: Tier = None,
    geo: Geo = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """What one call will cost, expected and at most.

    Without --max-tokens there is no upper bound; for an embedding it is 0. Exit status 1 if the book has no price.
    """
    if (input_tokens is None) == (characters is None):
        fail("costspan estimate call", "give --input or --characters, one of the two")
    try:
        found = _estimator(at, tier, geo).call(
            model,
            input_tokens=input_tokens,
            characters=characters,
            characters_per_token=characters_per_token,
            output_tokens=output,
            max_tokens=max_tokens,
            cache_hit_rate=cache_hit_rate,
            seconds=seconds,
        )
    except ValueError as error:
        fail("costspan estimate call", error)
    if as_json:
        tokens = {
            "input_tokens": found.input_tokens,
            "cached_tokens": found.cached_tokens,
            "output_tokens": found.output_tokens,
            "max_output_tokens": found.max_output_tokens,
        }
        _write({"model": model, **tokens, "expected": _answer(found.expected), "upper": _answer(found.upper)})
    elif found.expected.total is not None:
        _show(*_call_view(model, found))
    _end("call", model, found.expected)


@app.command()
def conversation(
    model: Model,
    messages: Annotated[int, typer.Option(min=1, help="Messages of each persona.")],
    personas: Annotated[int, typer.Option(min=1, help="Personas that take turns.")] = 1,
    system: Annotated[int, typer.Option(min=0, help="Tokens of the system prompt of each.")] = 0,
    message: Annotated[int, typer.Option(min=0, help="Tokens that come in before each answer.")] = 0,
    output: Output = None,
    max_tokens: MaxTokens = None,
    cache_hit_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Part of what was sent before that is read from the cache.")
    ] = None,
    seconds: Seconds = None,
    tier: Tier = None,
    geo: Geo = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """What a conversation will cost, in which each turn sends all that was said before.

    With --cache-hit-rate the rest of each prompt is written to the cache, where the provider charges for that; without
    it nothing is cached. Exit status 1 if the book has no price.
    """
    try:
        found = _estimator(at, tier, geo).conversation(
            model,
            messages=messages,
            personas=personas,
            system_tokens=system,
            message_tokens=message,
            output_tokens=output,
            max_tokens=max_tokens,
            cache_hit_rate=cache_hit_rate,
            seconds=seconds,
        )
    except ValueError as error:
        fail("costspan estimate conversation", error)
    if as_json:
        turns = [
            {
                "turn": turn.number,
                "input_tokens": turn.input_tokens,
                "cached_tokens": turn.cached_tokens,
                "output_tokens": turn.output_tokens,
                "expected": _usd(turn.expected),
                "upper": _usd(turn.upper),
            }
            for turn in found.turns
        ]
        tokens = {
            "input_tokens": found.input_tokens,
            "cached_tokens": found.cached_tokens,
            "output_tokens": found.output_tokens,
        }
        whole = {"expected": _answer(found.expected, lines=False), "upper": _answer(found.upper, lines=False)}
        _write({"model": model, **tokens, **whole, "turns": turns})
    elif found.expected.total is not None:
        _show(*_conversation_view(model, found))
    _end("conversation", model, found.expected)


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="provider/model; a provider alone is all its models.")
    ],
    input_tokens: Annotated[int, typer.Option("--input", min=0, help="Tokens of the prompt, cached ones too.")] = 0,
    cached: Annotated[int, typer.Option(min=0, help="Tokens of the prompt that are read from the cache.")] = 0,
    output: Annotated[int, typer.Option(min=0, help="Tokens of the answer.")] = 0,
    use: Use = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show; JSON has all.")] = 20,
    tier: Tier = None,
    geo: Geo = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """What the same usage costs on several models, the cheapest first.

    Exit status 1 if the book has a price for none.
    """
    from costspan_pricing import Usage

    if cached > input_tokens:
        fail("costspan estimate compare", f"--cached {cached} is more than --input {input_tokens}, which contains it")
    quantities = {"input": input_tokens - cached, "cache_read": cached, "output": output}
    try:
        usage = Usage.from_inclusive(extra={**quantities, **_quantities(use)})
        found = _estimator(at, tier, geo).compare(usage, models)
    except ValueError as error:
        fail("costspan estimate compare", error)
    if as_json:
        _write(
            {
                "priced": [{"model": o.model, "ratio": o.ratio, **_answer(o.cost)} for o in found.priced],
                "unpriced": [{"model": o.model, **_answer(o.cost)} for o in found.unpriced],
            }
        )
    else:
        _show(*_comparison_view(found, top))
    if not found.priced:
        fail("costspan estimate compare", "the book has a price for none of these", 1)


@app.command()
def month(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Lines of date,usd; - is standard input.", show_default=False)
    ] = None,
    day: Annotated[str | None, typer.Option(metavar="USD", help="Instead of a file: what a typical day costs.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Instead of a file: what a month of --use costs there.")
    ] = None,
    use: Use = None,
    which: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="The month to project.")] = None,
    confidence: Annotated[float, typer.Option(help="How often the month should end within the interval.")] = 0.8,
    tier: Tier = None,
    geo: Geo = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """What a month will have cost, from its days so far.

    A file has a line for each day, such as 2026-11-03,12.50; a day left out between others is one without spend, and
    one without an amount is unknown. With --model, what a month's usage costs after the free allowances of hosting.
    """
    if [file, day, model].count(None) != 2:
        fail("costspan estimate month", "give a FILE of daily amounts, --day, or --model with --use: one of the three")
    if (model is None) != (not use):
        fail("costspan estimate month", "--model and --use go together")
    try:
        estimator = _estimator(at, tier, geo)
        if model is not None:
            cost = estimator.monthly(model, _quantities(use))
            if as_json:
                _write({"model": model, **_answer(cost)})
            elif cost.total is not None:
                _show(*_bill_view(model, cost))
            _end("month", model, cost)
            return
        days = day if day is not None else _daily(file or "-")
        found = estimator.project(days, month=which, confidence=confidence)
    except ValueError as error:
        fail("costspan estimate month", error)
    if as_json:
        _write(
            {name: _plain(value) if isinstance(value, Decimal) else value for name, value in found._asdict().items()}
        )
    else:
        _show(*_projection_view(found))


def _estimator(at: str | None, tier: str | None, geo: str | None) -> Estimator:
    """Raises ``ValueError`` for an instant that is none."""
    from costspan.cli import _book
    from costspan.price import LineError, instant
    from costspan_pricing.estimate import Estimator

    try:
        moment = time.time_ns() if at is None else instant(at)
    except LineError as error:
        raise ValueError(f"--at: {error}") from None
    return Estimator(_book(), moment, tier=tier, geo=geo)


def _end(command: str, model: str, cost: Cost) -> None:
    """Nothing, if there is a figure; else says why there is none, and ends with status 1."""
    if cost.total is None:
        provider = model.partition("/")[0]
        why = {
            "unknown_model": f"the book has no price of {model}",
            "unknown_provider": f"the book has no provider {provider!r}; models are named provider/model",
        }.get(cost.status)
        why = why or f"{model}: {'; '.join(_notes(cost.flags, model)) or cost.status}"
        fail(f"costspan estimate {command}", why, 1)


def _quantities(given: Iterable[str] | None) -> dict[str, float]:
    """Meters and what is used of them, from `METER=NUMBER`. Raises ``ValueError`` that quotes the option."""
    from costspan_pricing import METERS

    quantities: dict[str, float] = {}
    for text in given or ():
        meter, _, number = text.partition("=")
        try:
            quantity = int(number) if number.isdecimal() else float(number)
        except ValueError:
            raise ValueError(f"--use {text}: write a meter and its quantity, such as web_searches=3") from None
        if meter not in METERS:
            raise ValueError(f"--use {text}: unknown meter {meter!r}; known are {', '.join(METERS)}")
        if meter in quantities:
            raise ValueError(f"--use {text}: {meter} is there twice")
        quantities[meter] = quantity
    return quantities


def _daily(file: str) -> dict[date, str | None]:
    """The amounts of a file by their days. Raises ``ValueError`` that names the line."""
    try:
        text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text in UTF-8") from None
    days: dict[date, str | None] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not row or (number == 1 and row[0].strip().lower() in {"date", "day"}):
            continue
        try:
            day = date.fromisoformat(row[0].strip())
        except ValueError:
            raise ValueError(f"{file}, line {number}: {row[0]!r} is no date such as 2026-11-03") from None
        if len(row) < 2:
            raise ValueError(f"{file}, line {number}: a line is date,usd such as 2026-11-03,12.50")
        if day in days:
            raise ValueError(f"{file}, line {number}: {day} is there twice")
        days[day] = row[1].strip() or None
    if not days:
        raise ValueError(f"{file} has no days; a line is date,usd such as 2026-11-03,12.50")
    return days


# ------------------------------------------------------------------ JSON


def _write(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer, indent=1))


def _answer(cost: Cost, *, lines: bool = True) -> dict[str, Any]:
    """A cost in the form that `costspan price` gives it."""
    from costspan.price import _line

    answer = {
        "usd": _usd(cost),
        "status": cost.status,
        "reason": cost.status if cost.total is None else None,
        "flags": list(cost.flags),
        "period_source": cost.period_source or None,
        "book": cost.book or None,
    }
    return {**answer, "lines": [_line(line) for line in cost.lines]} if lines else answer


def _usd(cost: Cost) -> str | None:
    return None if cost.usd is None else _plain(cost.usd)


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# ------------------------------------------------------------------ the terminal

_SAID: Final = {
    "cache_unpriced": "{model} has no price for its cache: those tokens are plain input",
    "duration_unknown": "{model} is paid by the hour: give --seconds",
    "fallback_price": "{model} is not in the book: a fallback price stands in",
    "input_by_characters": "tokens are counted by characters, a rule for English text",
    "output_unbounded": "no upper bound: nothing limits the answer; give --max-tokens",
    "tier_unpriced": "no price for this service tier: standard rates stand in",
    "unpriced:output": "{model} has no price for output: for an embedding, give --max-tokens 0",
}


def _notes(flags: Iterable[str], model: str) -> list[str]:
    """What the flags of a cost mean, as far as a reader would not expect it."""
    notes = []
    for flag in dict.fromkeys(flags):
        kind, _, meter = flag.partition(":")
        if flag in _SAID:
            notes.append(_SAID[flag].format(model=model))
        elif kind == "unpriced":
            notes.append(f"{model} has no price for {meter}")
        elif kind == "allowance":
            notes.append(f"the free allowance of {meter} is taken off")
    return notes


def _show(*parts: RenderableType) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, (str, Text)))


def _table(*headings: str, footer: Sequence[str] = ()) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, show_footer=bool(footer))
    for number, heading in enumerate(headings):
        left = number == 0
        table.add_column(
            heading,
            footer[number] if footer else "",
            justify="left" if left else "right",
            no_wrap=not left,
            footer_style="bold",
        )
    return table


def _below(model: str, *costs: Cost, more: Iterable[str] = ()) -> list[RenderableType]:
    """The notes under a table, and where the prices are from."""
    from rich.text import Text

    notes = [*more, *_notes((flag for cost in costs for flag in cost.flags), model)]
    source = next((cost.period_source for cost in costs if cost.period_source), "")
    book = next((cost.book for cost in costs if cost.book), "")
    last = [Text(f"price book {book} {source}".rstrip(), style="dim")] if book else []
    return [Text(), *(Text(note, style="yellow") for note in notes), *last]


def _call_view(model: str, found: Estimate) -> list[RenderableType]:
    from costspan.render import format_usd

    expected, upper = found.expected, found.upper
    read = f" ({found.cached_tokens:,} from the cache)" if found.cached_tokens else ""
    limit = "" if found.max_output_tokens is None else f", {found.max_output_tokens:,} at most"
    assumed = " (assumed)" if "output_assumed" in expected.flags else ""
    table = _table("", "expected", "at most", footer=("total", format_usd(expected.usd), format_usd(upper.usd)))
    parts = [_by_component(expected), _by_component(upper)]
    for component in ("input", "cache_read", "cache_write", "output", "other"):
        if any(component in part for part in parts):
            table.add_row(component.replace("_", " "), *(format_usd(part.get(component)) for part in parts))
    return [
        f"{model}: {found.input_tokens:,} tokens in{read}, {found.output_tokens:,} out{assumed}{limit}",
        "",
        table,
        *_below(model, expected, upper),
    ]


def _by_component(cost: Cost) -> dict[str, Decimal]:
    return {component: Decimal(pico).scaleb(-12) for component, pico in cost.components.items()}


_ENDS: Final = 5
"""Turns of a long conversation that are shown at its beginning and at its end."""


def _conversation_view(model: str, found: Conversation) -> list[RenderableType]:
    from costspan.render import format_tokens, format_usd

    table = _table(
        "turn", "tokens in", "from cache", "out", "expected", "at most",
        footer=(
            "total",
            format_tokens(found.input_tokens),
            format_tokens(found.cached_tokens),
            format_tokens(found.output_tokens),
            format_usd(found.expected.usd),
            format_usd(found.upper.usd),
        ),
    )  # fmt: skip
    turns = found.turns
    short = len(turns) <= 2 * _ENDS + 1
    for turn in turns if short else (*turns[:_ENDS], None, *turns[-_ENDS:]):
        if turn is None:
            table.add_row("…")
        else:
            table.add_row(
                f"{turn.number}",
                f"{turn.input_tokens:,}",
                f"{turn.cached_tokens:,}",
                f"{turn.output_tokens:,}",
                format_usd(turn.expected.usd),
                format_usd(turn.upper.usd),
            )
    saved = Decimal(found.expected.cache_savings).scaleb(-12)
    premium = Decimal(found.expected.cache_write_premium).scaleb(-12)
    more = [f"reading from the cache saves {format_usd(saved)}, writing to it adds {format_usd(premium)}"]
    return [f"{model}", "", table, *_below(model, found.expected, found.upper, more=more if saved or premium else ())]


def _comparison_view(found: Comparison, top: int) -> list[RenderableType]:
    from rich.text import Text

    from costspan.render import format_usd

    table = _table("", "cost", "×")
    for offer in found.priced[:top]:
        table.add_row(offer.model, format_usd(offer.cost.usd), f"{offer.ratio:,.1f}")
    below = [
        f"{offer.model}: {'; '.join(_reasons(offer.cost)) or offer.cost.status.replace('_', ' ')}"
        for offer in found.unpriced[:top]
    ]
    if len(found.priced) > top:
        below.insert(0, f"and {len(found.priced) - top} that cost more; --top shows them")
    if len(found.unpriced) > top:
        below.append(f"and {len(found.unpriced) - top} more without a full price")
    return [*((table, Text()) if found.priced else ()), *(Text(line, style="yellow") for line in below)]


def _reasons(cost: Cost) -> list[str]:
    return [f"no price for {flag.partition(':')[2]}" for flag in cost.flags if flag.startswith("unpriced:")]


def _bill_view(model: str, cost: Cost) -> list[RenderableType]:
    from costspan.render import format_usd

    table = _table(f"{model}, a month", "billed", "rate", "cost", footer=("total", "", "", format_usd(cost.usd)))
    for line in cost.lines:
        amount = None if line.pico is None else Decimal(line.pico).scaleb(-12)
        rate = "—" if line.rate is None else f"${_plain(line.rate)} per {line.per:,}"
        table.add_row(line.meter, _plain(Decimal(line.quantity)), rate, format_usd(amount))
    return [table, *_below(model, cost)]


def _projection_view(found: Projection) -> list[RenderableType]:
    from rich.text import Text

    from costspan.render import format_usd

    table = _table(found.month, "USD")
    if found.spent:
        table.add_row("spent so far", format_usd(found.spent))
    table.add_row(f"expected, with {_days(found.remaining)} to come", format_usd(found.expected))
    if found.confidence is not None:
        table.add_row(f"{100 * found.confidence:g} % between", f"{format_usd(found.low)} and {format_usd(found.high)}")
    notes = [found.method]
    if found.confidence is None and found.remaining:
        notes.append("no interval: give more days")
    if found.unobserved:
        notes.append(f"nothing is known of {_days(found.unobserved)} of the month, and nothing is counted for it")
    return [table, Text(), *(Text(note, style="dim") for note in notes)]


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
