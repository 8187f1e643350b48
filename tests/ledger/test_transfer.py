"""What goes out of a ledger comes back exactly, and finance tools read what FOCUS says."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Text

from costspan_processor.ledger import focus
from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.rows import COLUMNS, PLACE, Row
from costspan_processor.ledger.schema import calls
from costspan_processor.ledger.store import Ledger, LedgerError, Writer, open_ledger
from costspan_processor.ledger.transfer import FORMATS, Format, export, load, rows_of
from tests.ledger.calls import AT, HOUR, cost, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

ME = Writer("writer", "host", 7, "shop", 1_795_435_000)


def written(some: Sequence[Row], form: Format) -> Any:
    file: Any = io.BytesIO() if form == "parquet" else io.StringIO(newline="")
    assert export(some, form, file) == len(some)
    file.seek(0)
    return file


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_makes_the_same_ledger_again(ledger: Ledger, tmp_path: Path, form: Format) -> None:
    ledger.write(rows(1_500), ME)
    ledger.write(rows(30, "other"), ME._replace(id="other"))
    out = list(rows_of(ledger))
    again = open_ledger(str(tmp_path / "again.db"))
    file = written(out, form)
    assert load(again, form, file) == (1_530, 1_530)
    assert list(rows_of(again)) == out
    assert verify(again).holds
    file.seek(0)
    assert load(again, form, file) == (0, 1_530)
    assert verify(again).holds
    again.close()


def test_hours_can_be_chosen(ledger: Ledger) -> None:
    ledger.write(rows(3_000), ME)
    assert sorted({row[PLACE["hour"]] for row in rows_of(ledger, HOUR + 1, HOUR + 1)}) == [HOUR + 1]
    assert len(list(rows_of(ledger, HOUR + 1))) == 2_000


# Any text that a database takes, and any number.
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def of_column(column: Any) -> st.SearchStrategy[Any]:
    kind = st.booleans() if isinstance(column.type, Boolean) else TEXTS if isinstance(column.type, Text) else NUMBERS
    return st.none() | kind if column.nullable else kind


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    row = [draw(of_column(column)) for column in calls.columns]
    row[PLACE["started"]] = draw(st.integers(0, 2**62))
    row[PLACE["hour"]] = row[PLACE["started"]] // (3_600 * 10**9)
    return tuple(row)


@pytest.mark.parametrize("form", FORMATS)
@given(some=st.lists(any_row(), max_size=4))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_file_holds_whatever_a_row_may(form: Format, some: list[Row]) -> None:
    from costspan_processor.ledger.transfer import _READ

    file = written(some, form)
    if form != "parquet":  # as it is on disk
        file = io.TextIOWrapper(io.BytesIO(file.getvalue().encode()), encoding="utf-8", newline="")
    if some or form != "jsonl":
        assert list(_READ[form](file)) == some


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("csv", "id,what\n", "no column 'what'"),
        ("csv", "id\n", "is missing"),
        ("csv", "{heading}\na,b\n", "line 2: 2 fields"),
        ("csv", "{heading}\n{row}\n{wrong}\n", "line 3: sequence is a number, not 'x'"),
        ("jsonl", "{row}\nno json\n", "line 2 is no JSON"),
        ("jsonl", '["a"]\n', "line 1 is no object"),
        ("jsonl", '{{"id": "a"}}\n', "line 1: the column"),
        ("jsonl", "{wrong}\n", "line 1: sequence is no whole number: 'x'"),
        ("jsonl", "{elsewhen}\n", "line 1: it did not start in hour 1"),
        ("parquet", "nothing of the kind", "no Parquet file"),
    ],
)
def test_what_is_no_export_is_said_with_its_line(tmp_path: Path, form: Format, text: str, said: str) -> None:
    (row,) = rows(1)
    wrong = (*row[: PLACE["sequence"]], "x", *row[PLACE["sequence"] + 1 :])
    elsewhen = (*row[: PLACE["hour"]], 1, *row[PLACE["hour"] + 1 :])
    parts = {}
    if form != "parquet":
        for name, one in {"row": row, "wrong": wrong, "elsewhen": elsewhen}.items():
            *_, parts[name] = written([one], form).getvalue().splitlines()
    content = text.format(heading=",".join(COLUMNS), **parts)
    file: Any = io.BytesIO(content.encode()) if form == "parquet" else io.StringIO(content, newline="")
    ledger = open_ledger(str(tmp_path / "ledger.db"))
    with pytest.raises(LedgerError, match=said):
        load(ledger, form, file)
    ledger.close()


# ---------------------------------------------------------------------- FOCUS


def in_focus(some: list[Row]) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    count, _ = focus.write(some, file)
    file.seek(0)
    found = list(csv.DictReader(file))
    assert len(found) == count
    return found


def test_focus_adds_up_to_the_picodollar() -> None:
    some = rows(2_500)
    found = in_focus(some)
    assert len(found) < 200  # and not a row a call
    for column in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
        assert sum(Decimal(row[column]) for row in found) == Decimal(cost(some)).scaleb(-12)
    for row in found:
        assert Decimal(row["PricingQuantity"]) * Decimal(row["ListUnitPrice"]) == Decimal(row["ListCost"])
    tokens = sum(row[PLACE["input_tokens"]] + row[PLACE["output_tokens"]] for row in some)
    assert sum(Decimal(row["ConsumedQuantity"]) for row in found) == tokens


def test_a_row_of_focus() -> None:
    row = next(row for row in in_focus(rows(10)) if row["SkuMeter"] == "cache_read")
    assert {name: value for name, value in row.items() if value} == {
        "BilledCost": "0.002",
        "BillingAccountId": "openai",
        "BillingAccountName": "openai",
        "BillingAccountType": "Provider",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": "gpt-4.1: cache read",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-23T13:00:00Z",
        "ChargePeriodStart": "2026-11-23T12:00:00Z",
        "ConsumedQuantity": "4000",
        "ConsumedUnit": "Tokens",
        "ContractedCost": "0.002",
        "ContractedUnitPrice": "0.5",
        "EffectiveCost": "0.002",
        "InvoiceIssuerName": "openai",
        "ListCost": "0.002",
        "ListUnitPrice": "0.5",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingQuantity": "0.004",
        "PricingUnit": "1000000 Tokens",
        "ProviderName": "openai",
        "PublisherName": "openai",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "gpt-4.1",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "openai/gpt-4.1/cache_read",
        "SkuMeter": "cache_read",
        "SkuPriceId": "openai/gpt-4.1/cache_read/0.5",
        "Tags": '{"service": "shop", "team": "search", "operation": "chat"}',
    }


def test_a_providers_own_figure_is_one_row_and_what_has_no_figure_is_none() -> None:
    (row, other) = rows(2)
    said = dict(zip(COLUMNS, row, strict=True))
    said |= {"source": "provider", "cost_book": said["cost"], "cost": 7 * 10**12}
    unknown = dict(zip(COLUMNS, other, strict=True)) | {"cost": None, "lines": None}
    file = io.StringIO(newline="")
    assert focus.write([tuple(one[name] for name in COLUMNS) for one in (said, unknown)], file) == (1, 1)
    file.seek(0)
    (found,) = csv.DictReader(file)
    assert (found["BilledCost"], found["SkuMeter"], found["ConsumedUnit"]) == ("7", "reported", "Requests")
    assert Decimal(found["ListCost"]) == Decimal(said["cost_book"]).scaleb(-12)
    assert json.loads(found["Tags"])["team"] == "search"
    assert AT // (3_600 * 10**9) == HOUR
