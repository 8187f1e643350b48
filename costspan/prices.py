"""`costspan prices`: what the book knows, what is wrong with a file, and how a usage comes to its price."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, NoReturn, ParamSpec

import typer

from costspan.commands import fail, quiet_when_unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from costspan_pricing import PriceBook, RateCard, Usage
    from costspan_pricing.check import Problem
    from costspan_pricing.shelf import Match

P = ParamSpec("P")

app = typer.Typer(
    help="The price book: what it knows, what is wrong with a file of prices, how a usage comes to its price.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

At = Annotated[str | None, typer.Option(metavar="INSTANT", help="Prices of this instant (RFC 3339); by default now.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; prices are decimal text in USD.")]


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are one line, and that ends quietly when nobody reads on."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from costspan_pricing import BookError

        try:
            with quiet_when_unread():
                function(*args, **kwargs)
        except BookError as error:
            fail(f"costspan prices {function.__name__.rstrip('_')}", error)

    return run


def _book() -> PriceBook:
    """The book with the layers of this user's settings. Raises `BookError` for one that cannot be used."""
    from costspan.book import price_book
    from costspan.settings import load

    def refuse(error: Exception) -> NoReturn:
        raise error

    return price_book(load({}), refuse=refuse)


def _moment(command: str, at: str | None) -> int:
    from costspan.price import LineError, instant

    try:
        return int(time.time()) * 10**9 if at is None else instant(at)
    except LineError as error:
        fail(f"costspan prices {command}", f"--at: {error}")


def _check_provider(book: PriceBook, command: str, provider: str) -> None:
    from costspan_pricing.words import did_you_mean

    if not book.knows(provider):
        hint = did_you_mean(provider, book.providers, otherwise=True)
        fail(f"costspan prices {command}", f"the book knows no provider {provider!r}{hint}", 1)


# ---------------------------------------------------------------------- list


@app.command("list")
@_command
def list_(
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="Only its models.", show_default=False)
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only models with this in one of their names.")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="Only models that cost nothing.")] = False,
    at: At = None,
    as_json: Json = False,
) -> None:
    """The models that have a price, with that of today.

    Exit status 1 if there is none.
    """
    from costspan.rates import plural, print_json, show

    book, moment = _book(), _moment("list", at)
    providers = book.providers
    if provider is not None:
        _check_provider(book, "list", provider)
        providers = tuple(name for name in providers if book.canonical(name) == book.canonical(provider))
    rows = [row for name in providers for row in _rows(book, name, moment)]
    if match is not None:
        rows = [row for row in rows if any(match.strip().lower() in name for name in row.names)]
    if free:
        rows = [row for row in rows if row.card.free]
    if as_json:
        print_json([row.plain() for row in rows])
    elif rows:
        when = f"at {at}" if at else "now"
        note = f"{plural(len(rows), 'model')} {when} · USD per million tokens · book {book.version}"
        show([_models_table(rows, named=provider is None), note])
    if not rows:
        fail("costspan prices list", "no model that is asked for has a price", 1)


class _Row(NamedTuple):
    """A model at an instant."""

    provider: str
    model: str
    names: tuple[str, ...]
    """All that it may be called, in lower case."""
    card: RateCard
    since: int | None
    until: int | None
    windows: tuple[str, ...]
    """Names of the hours of the week at which it has other prices."""

    def plain(self) -> dict[str, Any]:
        from costspan.rates import decimal_text, instant_text, rates_of

        return {
            "provider": self.provider,
            "model": self.model,
            "free": self.card.free,
            "rates": {m: {"usd": decimal_text(rate), "per": per} for m, (rate, per) in rates_of(self.card).items()},
            "from": instant_text(self.since),
            "to": instant_text(self.until),
            "windows": list(self.windows),
            "layer": self.card.layer,
            "source": self.card.source or None,
        }


def _rows(book: PriceBook, provider: str, at_ns: int) -> Iterator[_Row]:
    names: dict[str, list[str]] = {}
    models = list(book.models(provider))
    for file in book.files(provider):
        for model, entry in file.get("models", {}).items():
            names.setdefault(model, []).extend((*entry.get("names", ()), *entry.get("versions_of", ())))
        endings = [""] if file.get("free") is True or "*" in file.get("models", {}) else file.get("free") or ()
        models += [f"*{ending}" for ending in endings]
    for model in dict.fromkeys(models):
        for period in book.periods(provider, model):
            if (period.start is None or period.start <= at_ns) and (period.end is None or at_ns < period.end):
                if period.card is not None:
                    called = (f"{provider}/{model}", *names.get(model, ()))
                    yield _Row(
                        provider,
                        model,
                        tuple(name.lower() for name in called),
                        period.card,
                        period.start,
                        period.end,
                        tuple(dict.fromkeys(card.window for card in period.windows)),
                    )
                break


def _models_table(rows: Sequence[_Row], *, named: bool) -> RenderableType:
    from costspan.rates import columns, decimal_text, instant_text, page, per_text, rates_of, table

    wide = columns() >= 100

    def cells(row: _Row) -> tuple[Any, ...]:
        rates = rates_of(row.card)
        others = [
            f"{m} {decimal_text(rate)} / {per_text(per, m)}" for m, (rate, per) in rates.items() if m not in _USUAL
        ]
        if len(others) > 2:
            others = [others[0], f"{len(others) - 1} more"]
        return (
            f"{row.provider}/{row.model}" if named else row.model,
            *(
                decimal_text(rates[meter][0]) if meter in rates else "free" if row.card.free else "—"
                for meter in ("input", "cache_read", "output")
            ),
            ", ".join((*others, *(f"{window} hours" for window in row.windows))),
            (instant_text(row.since) or "always").partition("T")[0],
            *([page(row.card.source)] if wide else ()),
        )

    headings = ("model", "input", "cache\nread", "output", "other prices", "since", *(["source"] if wide else ()))
    return table(headings, [cells(row) for row in rows], left=(0, 4, 5, 6))


_USUAL: Final = frozenset(
    ("input", "cache_read", "output", "output_reasoning", "input_image", "input_video", "cache_read_image",
     "cache_read_video", "cache_write_5m", "cache_write_30m", "cache_write_1h", "cache_write_12h")
)  # fmt: skip
"""Meters that do not tell one model from another: `show` has them."""


# ---------------------------------------------------------------------- show


@app.command()
@_command
def show(
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="As a call or a response names it.")],
    at: At = None,
    as_json: Json = False,
) -> None:
    """All that the book knows of one model: its names, and its prices over time, the newest first.

    With --at only the prices of that instant. Exit status 1 if the book does not know it.
    """
    from costspan.explain import unknown
    from costspan.rates import print_json
    from costspan.rates import show as print_all

    provider, slash, name = model.partition("/")
    if not (provider and slash and name):
        fail("costspan prices show", f"{model!r}: models are named provider/model, such as openai/gpt-4.1")
    book = _book()
    moment = None if at is None else _moment("show", at)
    match = book.match(provider, name)
    if match is None:
        fail("costspan prices show", unknown(book, provider, name), 1)
    known = _facts(book, match, name, moment)
    if as_json:
        print_json(known)
    else:
        print_all(_facts_view(known))


def _facts(book: PriceBook, match: Match, raw: str, at_ns: int | None) -> dict[str, Any]:
    """What is known of a matched model, ready for JSON."""
    from costspan.rates import decimal_text, instant_text, rates_of

    entries = list(_entries(book, match))
    files = book.files(match.provider)
    periods = [
        {
            "from": instant_text(period["from_ns"]),
            "to": instant_text(period["to_ns"]),
            **{key: value for key, value in period.items() if key not in _NOT_SHOWN},
        }
        for period in book.written(match)
        if at_ns is None or period["from_ns"] <= at_ns < period["to_ns"]
    ]
    fallback: dict[str, str] = {}
    for file, entry in entries:
        fallback |= {**file.get("fallback", {}), **entry.get("fallback", {})}
    own = book.own(match, raw)
    card = next((period.card for period in book.periods(match.provider, raw) if period.card is not None), None)
    rates = {} if card is None else rates_of(card)
    return {
        "provider": match.provider,
        "model": match.model,
        "rule": match.rule,
        "free": match.rule == "free",
        "names": sorted({name for _, entry in entries for name in entry.get("names", ())} - {match.model.lower()}),
        "versions_of": sorted({name for _, entry in entries for name in entry.get("versions_of", ())}),
        "released": next((entry["released"] for _, entry in reversed(entries) if "released" in entry), None),
        "fallback": fallback,
        "fees": [fee for file in files for fee in file.get("fees", ())],
        "multipliers": [m for file in files for m in file.get("multipliers", ()) if _meant(book, match, m)],
        "periods": periods,
        "own": {}
        if own is None
        else {
            own.layer: {
                m: {"usd": decimal_text(rate), "per": per} for m, (rate, per) in rates.items() if m in own.rates
            }
        },
        "book": book.version,
    }


_NOT_SHOWN: Final = frozenset(("from", "to", "from_ns", "to_ns", "extends"))


def _entries(book: PriceBook, match: Match) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The files that list a model, and what they say of it; those of a provider it is inherited from first."""
    files = book.files(match.provider)
    for provider in dict.fromkeys(other for file in files for other in file.get("inherits", ())):
        inherited = [file for file in book.files(provider) if match.model in file.get("models", {})]
        if inherited:
            yield from ((file, file["models"][match.model]) for file in inherited)
            break
    yield from ((file, file["models"][match.model]) for file in files if match.model in file.get("models", {}))


def _meant(book: PriceBook, match: Match, multiplier: Mapping[str, Any]) -> bool:
    """Whether a multiplier is for a model in some region at some time: if so, it is in one of its cards."""
    geo = (multiplier.get("geo") or [""])[0].replace("*", "somewhere")
    return any(
        period.card is not None and multiplier["id"] in period.card.multipliers
        for period in book.periods(match.provider, match.model, None, geo)
    )


def _facts_view(known: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    from costspan.rates import facts

    yield Text(f"{known['provider']}/{known['model']}", style="bold")
    yield facts(_about(known))
    if known["free"]:
        yield Text("\nfree: the provider charges nothing for such models", style="green")
    for period in reversed(known["periods"]):
        yield from _period_view(period)


def _about(known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from costspan.rates import multiplier_text, rates_text

    if known["names"]:
        yield "names", ", ".join(known["names"])
    if known["versions_of"]:
        yield "versions of", ", ".join(known["versions_of"])
    if known["released"]:
        yield "released", known["released"]
    if known["fallback"]:
        yield "billed as", ", ".join(f"{meter} as {other}" for meter, other in known["fallback"].items())
    for fee in known["fees"]:
        yield "fees", rates_text(fee["rates"])
    for multiplier in known["multipliers"]:
        yield "factor", multiplier_text(multiplier)
    for layer, rates in known["own"].items():
        yield "own prices", f"{rates_text(rates)} ({layer}), whatever the date and the tier"
    yield "book", known["book"]


def _period_view(period: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    from costspan.rates import ends_text, in_order, price_text, table, unit_text, variants

    said = [period["layer"]]
    if period.get("checked"):
        said.append(f"checked {period['checked']}")
    if period.get("observed"):
        said.append("it begins on the day on which it was seen")
    yield Text.assemble("\n", (ends_text(period["from"], period["to"]), "bold"), " · ", " · ".join(said))
    for key in ("source", "comment"):
        if period.get(key):
            yield Text(str(period[key]), style="dim")
    if period.get("unpriced"):
        yield Text(f"no price: {period['unpriced']}", style="magenta")
        return
    if period.get("free"):
        yield Text("free, but for what is listed" if period.get("rates") else "free", style="green")
    listed = list(variants(period))
    if listed:
        meters = in_order(meter for _, rates in listed for meter in rates)
        yield table(
            ("", *("\n".join((*meter.split("_"), f"/ {unit_text(meter)}")) for meter in meters)),
            [
                (label, *(price_text(rates[m], m, unit=False) if m in rates else "" for m in meters))
                for label, rates in listed
            ],
        )


# ---------------------------------------------------------------------- diff


@app.command()
@_command
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A file of prices, or the word bundled.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    as_json: Json = False,
) -> None:
    """What differs between two books: models, and prices by time, tier and meter.

    Two files are compared as they stand. Beside the word bundled, a file counts as what it is over that book.
    """
    from costspan.difference import difference, view
    from costspan.rates import print_json, show

    found = difference(before, after)
    if as_json:
        print_json(found)
    else:
        show(view(found))


# ---------------------------------------------------------------------- check


@app.command()
@_command
def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="By default the data of the package, and all that is configured."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What is wrong with files of prices, and where.

    A line for each problem: file, provider and model, period, field, and what to do. Exit status 1 if there is one.
    """
    from costspan.rates import plural, print_json

    checked = files or _configured()
    problems = [problem for file in checked for problem in _wrong_with(file)]
    if not files:
        problems += _wrong_together(problems)
    if as_json:
        print_json({"files": checked, "problems": [problem._asdict() for problem in problems]})
    else:
        for problem in problems:
            print(problem)
    if problems:
        sys.stdout.flush()
        fail("costspan prices check", f"{plural(len(problems), 'problem')} in {plural(len(checked), 'file')}", 1)
    if not as_json:
        print(f"{plural(len(checked), 'file')}: nothing is wrong")


def _wrong_with(file: str) -> list[Problem]:
    from costspan_pricing import BookError
    from costspan_pricing.check import Problem, contents, decoded
    from costspan_pricing.check import check as problems_of

    try:
        return problems_of(decoded(contents(file), file), file)
    except BookError as error:
        return [Problem(file, "", "", "", "", str(error).removeprefix(file).lstrip(" ,:"))]


def _configured() -> list[str]:
    """The price files of the package, and those of this user."""
    from costspan.book import DOWNLOADED, folder
    from costspan.settings import load
    from costspan_pricing.book import DATA

    settings = load({})
    bundled = Path(DATA)
    found = sorted(bundled.glob("*.json")) + sorted(bundled.glob("overlay/*.json"))
    found.remove(bundled / "index.json")
    downloaded = folder(settings) / DOWNLOADED
    if downloaded.exists():
        found.append(downloaded)
    if settings.price_file:
        found.append(Path(settings.price_file).expanduser())
    return [str(file) for file in found]


def _wrong_together(known: Sequence[Problem]) -> Iterator[Problem]:
    """What is wrong with layers on top of each other: settings that cannot be read, and time without a price."""
    from costspan.book import price_book
    from costspan.difference import timelines
    from costspan.rates import day_text, instant_text
    from costspan.settings import load
    from costspan_pricing import BookError, PriceBook
    from costspan_pricing.check import Problem

    refused: list[BookError] = []
    price_book(load({}), refuse=refused.append)
    for error in refused:
        if not any(str(error).startswith(problem.file) for problem in known):
            yield Problem("settings", "", "", "", "", str(error))
    book = PriceBook.bundled()
    for provider in book.providers:
        for model, periods in timelines(provider, book.files(provider)).items():
            for period, later in pairwise(periods):
                if period["to_ns"] < later["from_ns"]:
                    since = day_text(instant_text(later["from_ns"]))
                    yield Problem(
                        "the book", provider, model, since, "from", "there is a gap before it, without a price"
                    )


# ---------------------------------------------------------------------- explain


@app.command()
@_command
def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROVIDER MODEL | FILE]",
            help="A model; or lines as costspan price takes them, - from standard input.",
        ),
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--input", min=0, help="Tokens of the prompt, with those of the cache.")
    ] = None,
    output: Annotated[int | None, typer.Option(min=0, help="Tokens of the answer, with its reasoning.")] = None,
    cache_read: Annotated[int | None, typer.Option(min=0, help="Tokens of the prompt read from the cache.")] = None,
    cache_write: Annotated[int | None, typer.Option(min=0, help="Tokens of the prompt written to the cache.")] = None,
    reasoning: Annotated[int | None, typer.Option(min=0, help="Tokens of the answer that are reasoning.")] = None,
    use: Annotated[list[str] | None, typer.Option(metavar="METER=N", help="Any other meter; repeat it.")] = None,
    tier: Annotated[str | None, typer.Option(help="Service tier: batch, flex, priority, ...")] = None,
    geo: Annotated[str | None, typer.Option(help="Region that the provider is asked to stay in: us, eu, ...")] = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """How a usage comes to its price: how the model was found, which prices hold and why, and the sum line by line.

    The usage is given by options, or as lines of JSON. Exit status 1 where there is no figure.
    """
    from costspan.explain import of_lines, of_usage, view
    from costspan.price import LineError
    from costspan.rates import show

    book, moment = _book(), _moment("explain", at)
    named = what or []
    counts: dict[str, int | None] = {
        "input": input_tokens,
        "output": output,
        "cache_read": cache_read,
        "cache_write": cache_write,
        "reasoning": reasoning,
    }
    given = {name: count for name, count in counts.items() if count is not None}
    priced = True

    def tell(explanation: Mapping[str, Any]) -> None:
        nonlocal priced
        priced = priced and explanation["usd"] is not None
        if as_json:
            print(json.dumps(explanation, ensure_ascii=False), flush=True)
        else:
            show(view(explanation))

    if given or use:
        provider, _, model = "/".join(named).partition("/")
        if not provider or not model:
            fail("costspan prices explain", "name a provider and a model, such as openai gpt-4.1")
        tell(of_usage(book, provider, model, _usage(given, use or []), moment, tier, geo))
    elif len(named) > 1 or (named and "/" in named[0] and not Path(named[0]).exists()):
        fail("costspan prices explain", f"give a usage of {'/'.join(named)}, such as --input 1000 --output 500")
    elif tier is not None or geo is not None:
        fail("costspan prices explain", "a line of usage says its own tier, and its region as context.inference_geo")
    else:
        from costspan.cli import _opened

        file = named[0] if named else "-"
        try:
            with _opened(file) as source:
                for explanation in of_lines(source, book, moment):
                    tell(explanation)
        except LineError as error:
            fail("costspan prices explain", f"{file}, {error}", 1)
    if not priced:
        raise typer.Exit(1)


def _usage(counts: Mapping[str, Any], more: Sequence[str]) -> Usage:
    from costspan_pricing import METERS, Usage, UsageError
    from costspan_pricing.words import did_you_mean

    extra: dict[str, float] = {}
    for text in more:
        meter, _, quantity = text.partition("=")
        if meter not in METERS:
            fail("costspan prices explain", f"--use {text}: unknown meter{did_you_mean(meter, METERS, otherwise=True)}")
        try:
            extra[meter] = int(quantity) if quantity.isdigit() else float(quantity)
        except ValueError:
            fail("costspan prices explain", f"--use {text}: write a meter and its quantity, such as web_searches=3")
    try:
        return Usage.from_inclusive(**counts, extra=extra)
    except UsageError as error:
        fail("costspan prices explain", error)


# ---------------------------------------------------------------------- update


@app.command()
@_command
def update(
    source: Annotated[
        str, typer.Option("--from", metavar="URL|FILE", help="An https:// address or a file: a book of prices.")
    ],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Take the file only if it has this sha256.", show_default=False)
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Check it, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take a newer book of prices over that of the package.

    It is checked, and takes the place of the one before in one step; that one stays beside it as book.previous.json.
    An older book than the one that is there is refused. Programs read it when they start. Exit status 1 if it is not
    taken.
    """
    from costspan.book import folder
    from costspan.download import PREVIOUS, UpdateError
    from costspan.download import update as take
    from costspan.rates import plural, print_json
    from costspan.settings import load
    from costspan_pricing import PriceBook

    if sha256 is not None and (len(sha256.strip()) != 64 or set(sha256.strip().lower()) - set("0123456789abcdef")):
        fail("costspan prices update", f"--sha256 {sha256!r} are not 64 hexadecimal digits")
    try:
        with _progress() as progress:
            done = take(
                source,
                folder(load({})),
                PriceBook.bundled().version,
                sha256=sha256,
                check_only=check_only,
                progress=progress,
            )
    except UpdateError as error:
        fail("costspan prices update", error, 1)
    if as_json:
        print_json({**done._asdict(), "path": str(done.path)})
        return
    what = f"book {done.version}: {plural(done.models, 'model')} of {plural(done.providers, 'provider')}, "
    if done.outcome == "unchanged":
        print(f"{what}in {done.path} already")
    elif done.outcome == "checked":
        print(f"{what}good; nothing is changed")
    else:
        print(f"{what}now in {done.path}{f'; {done.before} is kept as {PREVIOUS}' if done.before else ''}")
    print(f"sha256 {done.sha256}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """Shows how far a download is, where somebody looks on."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = TextColumn("downloading"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


# ---------------------------------------------------------------------- schema


@app.command()
@_command
def schema() -> None:
    """Print the JSON Schema of price files, for an editor."""
    from costspan_pricing.check import SCHEMA

    print(SCHEMA.read_text(encoding="utf-8"), end="")
