"""What a provider says that it has charged: its cost exports, read from CSV.

A form is recognised by its columns. Where the names of the columns are from is in docs/reconcile.md. Amounts are
integer picodollars, days those of the provider's own clock.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from costspan_pricing import PriceBook

PICO: Final = 10**12
PACIFIC: Final = "America/Los_Angeles"
"""Where the days of Google's bills begin."""

Kind = Literal["usage", "credit", "tax", "other"]


class InvoiceError(ValueError):
    """What is wrong with an invoice: which file, where in it, and what to do."""


class Charge(NamedTuple):
    """What one line of an invoice is for."""

    first: date
    last: date
    """The days that it is for, this one included."""
    provider: str
    """As the price book calls it."""
    name: str
    """What the invoice calls it: `gpt-4.1-2025-04-14, input`; empty where it does not say."""
    kind: Kind


class Columns(NamedTuple):
    """The columns of a form that is not known, as the user names them."""

    date: str
    cost: str
    model: str | None
    provider: str


@dataclass(slots=True)
class Invoice:
    """One invoice. `charges` are in picodollars."""

    source: str
    """The file, or the service that was asked."""
    form: str
    zone: str = "UTC"
    """The clock whose days it has."""
    charges: dict[Charge, int] = field(default_factory=lambda: defaultdict(int))
    lines: int = 0
    left_out: int = 0
    """Lines that are for something else than models."""
    left_out_pico: int = 0
    whole_cents: bool = True
    """Whether every amount is one of whole cents: they have been rounded."""

    def add(self, charge: Charge, usd: Decimal) -> None:
        """Take up a line."""
        self.lines += 1
        self.charges[charge] += pico_of(usd)
        if usd != usd.quantize(_CENT):
            self.whole_cents = False

    def skip(self, usd: Decimal) -> None:
        """Count a line that is for something else."""
        self.left_out += 1
        self.left_out_pico += pico_of(usd)

    @property
    def total(self) -> int:
        """Picodollars of all charges."""
        return sum(self.charges.values())


_CENT: Final = Decimal("0.01")


def pico_of(usd: Decimal) -> int:
    """Picodollars of USD, rounded half-even where there are more digits.

    >>> pico_of(Decimal("0.8958740000000000")), pico_of(Decimal("-1E-13"))
    (895874000000, 0)
    """
    return int((usd * PICO).to_integral_value())


def read_invoice(path: Path, book: PriceBook, columns: Columns | None = None) -> Invoice:
    """The invoice in a CSV file (also gzipped, also separated by tabs or semicolons).

    `columns` name those of a form that is not known. Raises `InvoiceError`.
    """
    try:
        with _opened(path) as file:
            return _read(path.name, _rows(file), book, columns)
    except OSError as error:
        raise InvoiceError(f"{path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InvoiceError(f"{path} is no text in UTF-8: save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise InvoiceError(f"{path} is no CSV: {error}") from None


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _rows(file: Iterable[str]) -> Iterator[list[str]]:
    lines = iter(file)
    head = []
    for line in lines:
        head.append(line)
        if line.strip() or len(head) >= _PREAMBLE:
            break
    first = head[-1] if head else ""
    delimiter = max(",\t;", key=first.count)
    yield from csv.reader(_chained(head, lines), delimiter=delimiter)


def _chained(head: list[str], rest: Iterator[str]) -> Iterator[str]:
    yield from head
    yield from rest


_PREAMBLE: Final = 40
"""Lines that may stand before the headings."""


class _Table:
    """The lines of a file under their headings, looked up without regard to case."""

    def __init__(self, name: str, headings: list[str], rows: Iterator[list[str]], first: int) -> None:
        self.name = name
        self.headings = headings
        self.places = {heading.strip().lower(): place for place, heading in reversed(list(enumerate(headings)))}
        self.preamble: dict[str, str] = {}
        self._rows = rows
        self.number = first

    def has(self, *headings: str) -> bool:
        """Whether all of these columns are there."""
        return all(heading in self.places for heading in headings)

    def any_of(self, *headings: str) -> str | None:
        """The first of these columns that is there."""
        return next((heading for heading in headings if heading in self.places), None)

    def lines(self) -> Iterator[_Line]:
        """The lines that are not blank."""
        for cells in self._rows:
            self.number += 1
            if any(cell.strip() for cell in cells):
                yield _Line(self, cells)

    def wrong(self, problem: str) -> InvoiceError:
        """An error that names the file and the line."""
        return InvoiceError(f"{self.name}, line {self.number}: {problem}")


class _Line:
    """One line."""

    def __init__(self, table: _Table, cells: Sequence[str]) -> None:
        self._table = table
        self.cells = cells

    def text(self, *headings: str | None) -> str:
        """What stands under the first of these columns that is there and not empty."""
        for heading in headings:
            place = None if heading is None else self._table.places.get(heading)
            if place is not None and place < len(self.cells) and (text := self.cells[place].strip()):
                return text
        return ""

    def usd(self, heading: str) -> Decimal | None:
        """An amount; None where there is none."""
        text = self.text(heading)
        if not text:
            return None
        try:
            return amount(text)
        except ValueError as error:
            raise self._table.wrong(f"{heading}: {error}") from None

    def day(self, heading: str) -> date:
        """A day."""
        text = self.text(heading)
        try:
            return day(text)
        except ValueError:
            raise self._table.wrong(f"{heading}: {text!r} is no day such as 2026-11-03") from None

    def in_usd(self, heading: str | None) -> None:
        """Refuse a line in another currency."""
        if heading is not None and (currency := self.text(heading)):
            refuse_currency(currency, self._table.wrong)


_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")


def amount(text: str) -> Decimal:
    """USD as people and programs write them. Raises ValueError for what is no amount, or could be two.

    >>> amount("$1,234.50"), amount("-0.10"), amount("1e-7")
    (Decimal('1234.50'), Decimal('-0.10'), Decimal('1E-7'))
    """
    bare = text.strip()
    sign = "-" if bare.startswith("-") or (bare.startswith("(") and bare.endswith(")")) else ""
    bare = bare.strip("()-+").replace("$", "").strip()
    if "," in bare:
        if not _GROUPED.fullmatch(bare):
            raise ValueError(f"{text!r} is no amount such as 1234.50")
        bare = bare.replace(",", "")
    try:
        figure = Decimal(sign + bare)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount such as 1234.50") from None
    if not figure.is_finite() or abs(figure) >= PICO:
        raise ValueError(f"{text!r} is no amount such as 1234.50")
    return figure


def day(text: str) -> date:
    """The day of a date, of an instant (in UTC), or of unix seconds. Raises ValueError.

    >>> day("2026-11-03"), day("2026-11-03T23:30:00-01:00"), day("1759622400")
    (datetime.date(2026, 11, 3), datetime.date(2026, 11, 4), datetime.date(2025, 10, 5))
    """
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return datetime.fromtimestamp(float(text), UTC).date()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return date.fromisoformat(text)
    instant = datetime.fromisoformat(text.removesuffix(" UTC"))
    return (instant if instant.tzinfo is None else instant.astimezone(UTC)).date()


def refuse_currency(currency: str, wrong: Callable[[str], InvoiceError] = InvoiceError) -> None:
    """Raise for every currency but US dollars: no rate of exchange is known here."""
    if currency.strip().upper() not in {"USD", "US$", "$"}:
        raise wrong(f"the invoice is in {currency}: the ledger is in USD, and amounts are not converted")


# ---------------------------------------------------------------------- forms


def _read(name: str, rows: Iterator[list[str]], book: PriceBook, columns: Columns | None) -> Invoice:
    before: dict[str, str] = {}
    first: list[str] | None = None
    for number, cells in enumerate(rows, 1):
        if not any(cell.strip() for cell in cells):
            continue
        if first is None or len(cells) > len(first):
            first = cells
        table = _Table(name, cells, rows, number)
        table.preamble = before
        if columns is not None:
            if table.has(columns.date.lower(), columns.cost.lower()):
                return _generic(table, book, columns)
        else:
            for form, recognised, read in _FORMS:
                if recognised(table):
                    invoice = Invoice(name, form)
                    read(table, invoice, book)
                    return invoice
        if len(cells) > 1:
            before[cells[0].strip().lower()] = cells[1].strip()
        if number >= _PREAMBLE:
            break
    if first is None:
        raise InvoiceError(f"{name} is empty")
    found = ", ".join(cell.strip() for cell in first if cell.strip())
    if columns is not None:
        raise InvoiceError(f"{name} has no columns {columns.date!r} and {columns.cost!r}; it has {found}")
    raise InvoiceError(
        f"{name} has the columns {found}, which are no known cost export; name its columns with --date-column, "
        "--cost-column and --model-column, and whose invoice it is with --provider"
    )


def _generic(table: _Table, book: PriceBook, columns: Columns) -> Invoice:
    invoice = Invoice(table.name, "generic")
    if columns.model is not None and not table.has(columns.model.lower()):
        raise InvoiceError(f"{table.name} has no column {columns.model!r}; it has {', '.join(table.headings)}")
    provider = book.canonical(columns.provider)
    currency = table.any_of("currency", "billingcurrency", "currency_code")
    model = None if columns.model is None else columns.model.lower()
    for line in table.lines():
        usd = line.usd(columns.cost.lower())
        if usd is None:
            continue
        line.in_usd(currency)
        at = line.day(columns.date.lower())
        invoice.add(Charge(at, at, provider, line.text(model), "usage"), usd)
    return invoice


def _openai(table: _Table, invoice: Invoice, _: PriceBook) -> None:
    start = "start_time" if table.has("start_time") else "start_time_iso"
    for line in table.lines():
        usd = line.usd("amount_value")
        if usd is None:  # a day without costs
            continue
        line.in_usd("amount_currency")
        at = line.day(start)
        invoice.add(Charge(at, at, "openai", line.text("line_item"), "usage"), usd)


def _openai_usage(table: _Table, _: Invoice, __: PriceBook) -> None:
    raise InvoiceError(f"{table.name} is OpenAI's export of usage, which has no costs: export the costs instead")


def _anthropic(table: _Table, invoice: Invoice, _: PriceBook) -> None:
    for line in table.lines():
        usd = line.usd("cost_usd")
        if usd is None:
            continue
        at = line.day("usage_date_utc")
        name = line.text("model", "cost_type", "token_type", "usage_type")
        kind = line.text("cost_type").lower()
        if "search" in kind or "search" in line.text("token_type").lower():
            name = "web_search"
        invoice.add(Charge(at, at, "anthropic", name, "usage"), usd)


_GOOGLES: Final = re.compile(r"gemini|vertex|generative language|\b(?:claude|imagen|veo|lyria|gemma)\b", re.IGNORECASE)
_MONEY: Final = re.compile(r"^(unrounded subtotal|subtotal|unrounded cost|cost) \((.+)\)$")
_NO_CHARGE: Final = frozenset({"total", "rounding error"})


def _google_column(table: _Table) -> tuple[str, str] | None:
    found = {match[1]: (heading, match[2]) for heading in table.places if (match := _MONEY.fullmatch(heading))}
    return next(
        (found[name] for name in ("unrounded subtotal", "subtotal", "unrounded cost", "cost") if name in found), None
    )


def _is_google(table: _Table) -> bool:
    dated = table.any_of("usage start date", "date", "day", "month") is not None
    return dated and table.has("service description", "sku description") and _google_column(table) is not None


def _google(table: _Table, invoice: Invoice, _: PriceBook) -> None:
    column = _google_column(table)
    assert column is not None
    heading, sign = column
    refuse_currency(table.preamble.get("currency") or sign, table.wrong)
    invoice.zone = PACIFIC
    start = table.any_of("usage start date", "date", "day", "month") or ""
    for line in table.lines():
        usd = line.usd(heading)
        kind = line.text("cost type").lower()
        # The last line has the sum of all others.
        if usd is None or kind in _NO_CHARGE or not line.text(start):
            continue
        sku = line.text("sku description")
        if not _GOOGLES.search(f"{line.text('service description')} {sku}"):
            invoice.skip(usd)
            continue
        first, last = _month(line.text("month")) if start == "month" else (line.day(start), None)
        if last is None:
            last = line.day("usage end date") if line.text("usage end date") else first
        charged: Kind = "tax" if kind == "tax" else "credit" if line.text("credit type") else "usage"
        invoice.add(Charge(first, last, "google", sku, charged), usd)


def _month(text: str) -> tuple[date, date]:
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise InvoiceError(f"{text!r} is no month such as 2026-11") from None
    return first, month_end(first)


def month_end(at: date) -> date:
    """The last day of a month.

    >>> month_end(date(2028, 2, 3))
    datetime.date(2028, 2, 29)
    """
    return (at.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)


_AWS_KINDS: Final[Mapping[str, Kind]] = {"usage": "usage", "tax": "tax", "credit": "credit", "refund": "credit"}
_EDITION: Final = re.compile(r"\s*\(Amazon Bedrock(?: Edition)?\)", re.IGNORECASE)


def _cur(table: _Table, invoice: Invoice, _: PriceBook) -> None:
    legacy = table.has("lineitem/unblendedcost")

    def column(old: str, new: str) -> str:
        return old if legacy else new

    cost = column("lineitem/unblendedcost", "line_item_unblended_cost")
    start = column("lineitem/usagestartdate", "line_item_usage_start_date")
    currency = column("lineitem/currencycode", "line_item_currency_code")
    kind = column("lineitem/lineitemtype", "line_item_line_item_type")
    usage_type = column("lineitem/usagetype", "line_item_usage_type")
    code = column("lineitem/productcode", "line_item_product_code")
    product = column("product/productname", "product_product_name")
    for line in table.lines():
        usd = line.usd(cost)
        if usd is None:
            continue
        name = line.text(product) or _product_name(line.text("product"))
        used = line.text(usage_type)
        if "bedrock" not in f"{name} {line.text(code)} {used} {line.text('product')}".lower():
            invoice.skip(usd)
            continue
        line.in_usd(currency)
        at = line.day(start)
        model = _EDITION.sub("", name)
        if not model or model.lower() == "amazon bedrock":
            model = used
        said = line.text(kind).lower() or "usage"
        charged: Kind = "credit" if said.endswith("discount") else _AWS_KINDS.get(said, "other")
        invoice.add(Charge(at, at, "aws", model, charged), usd)


def _product_name(text: str) -> str:
    """The name in the `product` of CUR 2.0, which is a map."""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return str(found.get("product_name", "")) if isinstance(found, dict) else ""


def _is_cost_explorer(table: _Table) -> bool:
    return len(table.headings) > 1 and table.headings[-1].strip().lower().startswith("total costs(")


def _cost_explorer(table: _Table, invoice: Invoice, _: PriceBook) -> None:
    if table.headings[0].strip().lower() != "service":
        raise InvoiceError(f"{table.name} is grouped by {table.headings[0]}: export it grouped by Service")
    refuse_currency(table.headings[-1].strip()[len("total costs(") :].rstrip(")"))
    cells: list[tuple[date, str, Decimal]] = []
    for line in table.lines():
        if not re.match(r"\d", line.cells[0].strip()):
            continue  # the sums
        at = line.day("service")
        for heading in table.headings[1:-1]:
            usd = line.usd(heading.strip().lower())
            if usd is None:
                continue
            name = re.sub(r"\(.{1,3}\)$", "", heading.strip())
            if "bedrock" in name.lower():
                cells.append((at, _EDITION.sub("", name), usd))
            else:
                invoice.skip(usd)
    # By month and by day look alike, but that months begin on the first.
    monthly = bool(cells) and all(at.day == 1 for at, _, _ in cells)
    for at, name, usd in cells:
        invoice.add(Charge(at, month_end(at) if monthly else at, "aws", name, "usage"), usd)


_FOCUS_KINDS: Final[Mapping[str, Kind]] = {"usage": "usage", "tax": "tax", "credit": "credit"}
_CLOUDS: Final = {"aws": r"amazon|aws", "google": r"google", "azure": r"microsoft|azure"}
_MODELS_OF_CLOUDS: Final = re.compile(
    r"bedrock|vertex|gemini|generative language|openai|foundry|cognitive|\bclaude\b", re.IGNORECASE
)


def _focus(table: _Table, invoice: Invoice, book: PriceBook) -> None:
    for line in table.lines():
        usd = line.usd("billedcost")
        if usd is None:
            continue
        service = line.text("servicename")
        named = ("skuid", "skumeter", "resourcename", "chargedescription", "skupriceid", "resourceid")
        provider = None
        for heading in ("providername", "serviceprovidername", "publishername", "invoiceissuername"):
            if text := line.text(heading):
                provider = _provider(text, book)
                if provider is not None:
                    break
        texts = [text for heading in named if (text := line.text(heading))]
        if provider is None or (provider in _CLOUDS and not _MODELS_OF_CLOUDS.search(" ".join((service, *texts)))):
            invoice.skip(usd)
            continue
        line.in_usd("billingcurrency")
        first = line.day("chargeperiodstart")
        last = max(first, _last_day(line.text("chargeperiodend"), first))
        kind: Kind = _FOCUS_KINDS.get(line.text("chargecategory").lower() or "usage", "other")
        # The lot: whoever matches names finds the model in it.
        invoice.add(Charge(first, last, provider, " | ".join(texts) or service, kind), usd)


def _provider(text: str, book: PriceBook) -> str | None:
    if book.knows(text):
        return book.canonical(text)
    return next((name for name, words in _CLOUDS.items() if re.search(words, text, re.IGNORECASE)), None)


def _last_day(text: str, first: date) -> date:
    """The day in which a period lies that ends before this instant."""
    if not text:
        return first
    try:
        end = datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return first
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    return (end - timedelta(microseconds=1)).date()


_Form = tuple[str, "Callable[[_Table], bool]", "Callable[[_Table, Invoice, PriceBook], Any]"]

_FORMS: Final[tuple[_Form, ...]] = (
    ("OpenAI costs", lambda table: table.has("amount_value", "amount_currency", "line_item"), _openai),
    ("OpenAI usage", lambda table: table.has("num_model_requests", "input_tokens", "model"), _openai_usage),
    ("Anthropic costs", lambda table: table.has("usage_date_utc", "cost_usd"), _anthropic),
    ("FOCUS", lambda table: table.has("billedcost", "chargeperiodstart", "billingcurrency"), _focus),
    ("Google Cloud costs", _is_google, _google),
    (
        "AWS Cost and Usage Report",
        lambda table: (
            table.has("lineitem/unblendedcost", "lineitem/usagestartdate")
            or table.has("line_item_unblended_cost", "line_item_usage_start_date")
        ),
        _cur,
    ),
    ("AWS Cost Explorer", _is_cost_explorer, _cost_explorer),
)
