"""The calls of a ledger as files, and back: CSV, JSON lines and Parquet. What comes back is what went out, exactly.

Files are written and read a few thousand rows at a time, whatever their size.
"""

from __future__ import annotations

import csv
import json
from importlib import import_module
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import BigInteger, Boolean, Integer, select

from costspan_processor.ledger.rows import COLUMNS, Row
from costspan_processor.ledger.schema import calls
from costspan_processor.ledger.store import LedgerError, is_about_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from costspan_processor.ledger.store import Ledger

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

AT_ONCE: Final = 5_000
_HOUR_NS: Final = 3_600 * 10**9
_MISSING_PYARROW: Final = "Parquet needs pyarrow: pip install 'costspan[report]'"

_kinds: Final = [
    int if isinstance(column.type, (Integer, BigInteger)) else bool if isinstance(column.type, Boolean) else str
    for column in calls.columns
]
_needed: Final = {column.name for column in calls.columns if not column.nullable}


def rows_of(ledger: Ledger, first: int | None = None, last: int | None = None) -> Iterator[Row]:
    """The rows, hour by hour, as one state of the ledger; `first` and `last` are hours since 1970."""
    asked = select(*calls.columns).order_by(calls.c.hour, calls.c.id)
    if first is not None:
        asked = asked.where(calls.c.hour >= first)
    if last is not None:
        asked = asked.where(calls.c.hour <= last)
    with ledger.engine.connect() as connection:
        found = connection.execute(asked, execution_options={"stream_results": True, "yield_per": AT_ONCE})
        yield from map(tuple, found)


def export(rows: Iterable[Row], form: Format, file: IO[Any]) -> int:
    """Write rows to a file, which is a binary one for Parquet and a text one without newline translation else."""
    return _WRITE[form](rows, file)


def load(ledger: Ledger, form: Format, file: IO[Any]) -> tuple[int, int]:
    """Add the rows of a file to a ledger; returns how many were new, and how many there were.

    What is there already stays as it is. Raises LedgerError that names the line of what cannot be read; what came
    before it has been added.
    """
    rows = _READ[form](file)
    new = count = 0
    while batch := list(islice(rows, AT_ONCE)):
        try:
            new += ledger.write(batch).new
        except Exception as error:
            if not is_about_rows(error):
                raise
            raise LedgerError(f"rows {count + 1} to {count + len(batch)} cannot be written: {error}") from error
        count += len(batch)
    return new, count


# ---------------------------------------------------------------------- CSV


def _to_csv(rows: Iterable[Row], file: IO[str]) -> int:
    writer = csv.writer(file)  # whose lines end in CR LF: fields with one of them are quoted then
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        writer.writerow([_field(value) for value in row])
        count += 1
    return count


def _field(value: Any) -> Any:
    """An empty field is what is not known; so a text that is empty, or begins with a backslash, gets one in front."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"\\{value}" if isinstance(value, str) and (not value or value[0] == "\\") else value


def _from_csv(file: IO[str]) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(file)
    columns = next(reader, [])
    _check_columns(columns)
    made = _maker(columns)
    for fields in reader:
        if len(fields) != len(columns):
            raise LedgerError(f"line {reader.line_num}: {len(fields)} fields, the heading has {len(columns)}")
        values = {}
        for name, field in zip(columns, fields, strict=True):
            values[name] = _value(name, field, reader.line_num)
        yield made(values, f"line {reader.line_num}")


def _value(name: str, field: str, line: int) -> Any:
    if not field:
        return None
    kind = _kinds[COLUMNS.index(name)]
    if kind is bool and field in {"true", "false"}:
        return field == "true"
    if kind is int:
        try:
            return int(field)
        except ValueError:
            pass
    if kind is not str:
        raise LedgerError(f"line {line}: {name} is {'a number' if kind is int else 'true or false'}, not {field!r}")
    return field[1:] if field[0] == "\\" else field


# ---------------------------------------------------------------------- JSON lines


def _to_jsonl(rows: Iterable[Row], file: IO[str]) -> int:
    count = 0
    for row in rows:
        said = {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
        file.write(json.dumps(said, ensure_ascii=False) + "\n")
        count += 1
    return count


def _from_jsonl(file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as error:
            raise LedgerError(f"line {number} is no JSON: {error}") from None
        if not isinstance(said, dict):
            raise LedgerError(f"line {number} is no object")
        _check_columns(said, f"line {number}: ")
        yield _maker(said)(said, f"line {number}")


# ---------------------------------------------------------------------- Parquet


def _arrow() -> Any:
    try:
        import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError(_MISSING_PYARROW) from None
    return import_module("pyarrow")


def _to_parquet(rows: Iterable[Row], file: IO[bytes]) -> int:
    arrow = _arrow()
    types = {int: arrow.int64(), bool: arrow.bool_(), str: arrow.string()}
    schema = arrow.schema([(name, types[kind]) for name, kind in zip(COLUMNS, _kinds, strict=True)])
    some = iter(rows)
    count = 0
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(some, 10 * AT_ONCE)):
            columns = [
                arrow.array(column, field.type) for column, field in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            count += len(batch)
    return count


def _from_parquet(file: IO[bytes]) -> Iterator[Row]:
    arrow = _arrow()
    try:
        source = arrow.parquet.ParquetFile(file)
    except (arrow.ArrowInvalid, OSError) as error:
        raise LedgerError(f"this is no Parquet file: {error}") from None
    columns = source.schema_arrow.names
    _check_columns(columns)
    made = _maker(columns)
    count = 0
    for batch in source.iter_batches(AT_ONCE):
        for row in batch.to_pylist():
            count += 1
            yield made(row, f"row {count}")


# ---------------------------------------------------------------------- rows that come from elsewhere


def _check_columns(columns: Iterable[str], where: str = "") -> None:
    names = list(columns)
    if unknown := [name for name in names if name not in COLUMNS]:
        raise LedgerError(f"{where}there is no column {unknown[0]!r} in a ledger: this is no export of one")
    if missing := sorted(_needed.difference(names)):
        raise LedgerError(f"{where}the column {missing[0]!r} is missing: this is no export of a ledger")


def _maker(columns: Iterable[str]) -> Callable[[dict[str, Any], str], Row]:
    """Rows of what a file says, in the order of the columns; what no ledger could have written is refused."""
    said = set(columns)
    places: Sequence[tuple[str, type, bool]] = [
        (name, kind, name in _needed) for name, kind in zip(COLUMNS, _kinds, strict=True)
    ]

    def made(values: dict[str, Any], where: str) -> Row:
        row = []
        for name, kind, needed in places:
            value = values.get(name) if name in said else None
            if value is None and needed:
                raise LedgerError(f"{where}: {name} must be known")
            if value is not None and type(value) is not kind:
                raise LedgerError(f"{where}: {name} is no {_WORDS[kind]}: {value!r}")
            row.append(value)
        if values["started"] // _HOUR_NS != values["hour"]:
            raise LedgerError(f"{where}: it did not start in hour {values['hour']}")
        return tuple(row)

    return made


_WORDS: Final[dict[type, str]] = {int: "whole number", bool: "true or false", str: "text"}
_WRITE: Final[dict[Format, Callable[[Iterable[Row], IO[Any]], int]]] = {
    "csv": _to_csv,
    "jsonl": _to_jsonl,
    "parquet": _to_parquet,
}
_READ: Final[dict[Format, Callable[[IO[Any]], Iterator[Row]]]] = {
    "csv": _from_csv,
    "jsonl": _from_jsonl,
    "parquet": _from_parquet,
}
