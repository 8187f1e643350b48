"""`costspan ledger`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costspan.cli import main
from costspan_processor.ledger.counts import Counts
from costspan_processor.ledger.store import Writer, open_ledger
from tests.ledger.calls import HOUR, rows

ME = Writer("writer", "host", 7, "shop", 1_795_435_000)


class Command:
    """`costspan ledger ARGUMENTS` on a ledger of 2,500 calls in three hours."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        ledger = open_ledger(str(folder / "ledger.db"))
        ledger.write(rows(2_500), ME)
        ledger.close()

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        import sys

        before, sys.argv = sys.argv, ["costspan", "ledger", *arguments]
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            sys.argv = before
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def json(self, *arguments: str) -> Any:
        status, out, err = self(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COSTSPAN_LEDGER", "ledger.db")
    return Command(tmp_path, capsys)


def test_verify(ledger: Command) -> None:
    status, out, _ = ledger("verify")
    assert status == 0
    assert out.count("holds") == 7
    assert out.splitlines()[-1] == (
        "2,500 calls; 0 removed with time; 0 dropped; 0 lost with processes that were killed; 0 came twice; "
        "1 processes have not ended"
    )


def test_verify_notes_what_processes_that_died_had_not_written(ledger: Command) -> None:
    counts = Counts(ledger.folder / "ledger.db-writers", ME)
    counts.values[0] = 2_505
    counts.values[1] = 2
    counts.leave()
    found = ledger.json("verify")
    assert (found["holds"], found["written"], found["dropped"], found["lost"]) == (True, 2_500, 2, 3)


def test_verify_fails_where_something_is_wrong(ledger: Command) -> None:
    opened = open_ledger("ledger.db")
    with opened.writing() as connection:
        connection.exec_driver_sql("UPDATE hours SET cost = cost + 1")
    opened.close()
    status, out, err = ledger("verify")
    assert (status, err) == (1, "")
    assert "hourly totals        FAILS" in out
    assert "the total says cost" in out


def test_backup_and_restore(ledger: Command) -> None:
    assert ledger.json("backup", "copy.db")["bytes"] > 0
    assert ledger.json("forget", "2100-01-01") == {"removed": 2_500}
    # A ledger that has nothing to lose is given the backup without being asked.
    assert ledger.json("restore", "copy.db") == {"calls": 2_500, "replaced": 0}
    status, _, err = ledger("restore", "copy.db")
    assert (status, err.count("\n")) == (2, 1)
    assert "--replace" in err
    assert ledger.json("restore", "copy.db", "--replace") == {"calls": 2_500, "replaced": 2_500}
    assert ledger.json("verify")["holds"]


def test_forget(ledger: Command) -> None:
    import datetime

    instant = datetime.datetime.fromtimestamp((HOUR + 1) * 3600, datetime.UTC).isoformat()
    assert ledger.json("forget", instant) == {"removed": 1_000}
    assert ledger.json("forget", "36500d") == {"removed": 0}
    assert ledger.json("verify")["removed"] == 1_000


@pytest.mark.parametrize("file", ["calls.csv", "calls.jsonl", "calls.parquet"])
def test_export_and_import(ledger: Command, file: str) -> None:
    assert ledger.json("export", file) == {"file": file, "rows": 2_500, "without_figure": 0}
    assert ledger.json("import", file, "--ledger", "again.db") == {"rows": 2_500, "new": 2_500}
    assert ledger.json("import", file, "--ledger", "again.db") == {"rows": 2_500, "new": 0}
    assert ledger.json("verify", "--ledger", "again.db")["holds"]


def test_export_for_finance(ledger: Command) -> None:
    found = ledger.json("export", "focus.csv", "--format", "focus", "--to", "2026-11-23T13:00Z")
    lines = (ledger.folder / "focus.csv").read_text().splitlines()
    assert lines[0].startswith("BilledCost,")
    assert found["rows"] == len(lines) - 1 > 0


def test_migrate_makes_a_ledger(ledger: Command) -> None:
    found = ledger.json("migrate", "--ledger", "new.db")
    assert found["ledger"] == str(ledger.folder / "new.db")
    assert ledger.json("verify", "--ledger", "new.db")["rows"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "--ledger", "nowhere.db"), "there is no ledger at"),
        (("verify", "--ledger", "mysql://x"), "SQLite or PostgreSQL"),
        (("verify", "--ledger", ""), "--ledger, or COSTSPAN_LEDGER"),
        (("backup", "ledger.db"), "name a new file"),
        (("restore", "nowhere.db", "--replace"), "there is no ledger at"),
        (("forget", "yesterday"), "no day or instant"),
        (("export", "calls.xls"), "give --format csv"),
        (("export", "calls", "--format", "xls"), "none of csv, jsonl, parquet, focus"),
        (("export", "no/such/calls.csv"), "folder that exists"),
        (("export", "calls.csv", "--from", "2026-11-23T12:30Z"), "whole hours"),
        (("import", "nowhere.csv"), "cannot be read"),
        (("import", "ledger.db", "--format", "csv"), "costspan ledger import: "),
    ],
)
def test_mistakes_are_told_in_a_line(ledger: Command, arguments: tuple[str, ...], said: str) -> None:
    status, out, err = ledger(*arguments)
    assert status == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
