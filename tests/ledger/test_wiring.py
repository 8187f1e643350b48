"""Whatever way a call comes, it is in the ledger, and the ledger agrees with the spans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import select

from costspan_processor import Processing
from costspan_processor.ledger.schema import calls, events, writers
from costspan_processor.ledger.store import open_ledger
from costspan_processor.ledger.writer import begin
from tests.ledger.calls import AT, BOOK

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))},
    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
}


def python(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return ran(command, folder, **environment)


def ran(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=100,
        env={**ENVIRONMENT, "XDG_DATA_HOME": str(folder / "data"), **environment},
    )


def rows(url: Path | str, table: Any = calls) -> list[Mapping[str, Any]]:
    ledger = open_ledger(str(url), create=False)
    with ledger.engine.connect() as connection:
        found: list[Mapping[str, Any]] = [dict(row) for row in connection.execute(select(table)).mappings()]
    ledger.close()
    return found


def test_a_foreign_span_is_a_row(tmp_path: Path) -> None:
    ledger = begin(str(tmp_path / "ledger.db"), service="ours")
    tracers = TracerProvider(resource=Resource({"service.name": "theirs"}))
    reader = InMemoryMetricReader()
    processing = Processing(tracers, MeterProvider([reader]), book=BOOK, ledger=ledger)
    processing.start()
    span = tracers.get_tracer("openinference.instrumentation.openai").start_span(
        "ChatCompletion",
        start_time=AT,
        attributes={
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4.1",
            "llm.provider": "openai",
            "llm.token_count.prompt": 1_000,
            "llm.token_count.completion": 10,
            "session.id": "s-1",
            "user.id": "u-1",
            "costspan.tag.tenant": "acme",
        },
    )
    span.end(AT + 2 * 10**9)
    processing.shutdown()
    (row,) = rows(tmp_path / "ledger.db")
    context = span.get_span_context()
    assert row["id"] == f"{context.trace_id:032x}:{context.span_id:016x}"
    assert (row["service"], row["session"], row["user"], row["tags"]) == ("theirs", "s-1", "u-1", '{"tenant": "acme"}')
    assert (row["started"], row["duration"], row["cost"]) == (AT, 2 * 10**9, 2_080_000_000)
    assert row["cost"] == round((span.attributes or {})["costspan.cost.total"] * 10**12)  # type: ignore[attr-defined]


def test_what_is_recorded_by_hand_is_a_row_and_an_event_of_its_budget_is_noted(tmp_path: Path) -> None:
    done = python(
        """
        import costspan
        costspan.init(budgets=[costspan.Budget("all", limit="0.01")], on_budget_event=lambda event: print(event.type))
        with costspan.track(team="search", user="u-1"):
            cost = costspan.record("openai", "gpt-4.1", {"prompt_tokens": 4400}, "openai.chat")
        assert costspan.flush()
        """,
        tmp_path,
        COSTSPAN_LEDGER="ledger.db",
    )
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "ledger.db")
    assert (row["team"], row["user"], row["cost"]) == ("search", "u-1", 8_800_000_000)
    (writer,) = rows(tmp_path / "ledger.db", writers)
    assert (writer["written"], writer["dropped"], writer["ended"] is None) == (1, 0, False)
    noted = rows(tmp_path / "ledger.db", events)
    assert "threshold" in {event["type"] for event in noted}
    assert sorted(event["type"] for event in noted) == sorted(done.stdout.split())
    assert all(json.loads(event["event"])["budget"] == event["budget"] == "all" for event in noted)


def test_a_ledger_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    done = python(
        """
        import costspan
        costspan.init()
        print(costspan.record("openai", "gpt-4.1", {"prompt_tokens": 1000}, "openai.chat").usd)
        """,
        tmp_path,
        COSTSPAN_LEDGER="no/such/folder/ledger.db",
    )
    assert done.returncode == 0
    assert done.stdout == "0.002000000000\n"
    assert done.stderr.count("no ledger is kept") == 1
    assert "Traceback" not in done.stderr


def test_without_a_ledger_nothing_of_one_is_imported(tmp_path: Path) -> None:
    done = python("import sys, costspan; costspan.init(); print('sqlalchemy' in sys.modules)", tmp_path)
    assert done.stdout == "False\n"


def test_without_the_extra_that_is_said(tmp_path: Path) -> None:
    done = python(
        "import sys; sys.modules['sqlalchemy'] = None; import costspan; costspan.init(ledger='l.db')", tmp_path
    )
    assert done.returncode == 0
    assert "pip install 'costspan[ledger]'" in done.stderr


# ---------------------------------------------------------------------- costspan run

APP = """
import os, sys
import costspan
os.chdir("/")
for _ in range(3):
    costspan.record("openai", "gpt-4.1", {"prompt_tokens": 1000, "completion_tokens": 500}, "openai.chat")
"""


def test_a_run_keeps_a_ledger_of_a_program_that_does_not_know_of_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "costspan", "run", "--ledger", "ledger.db", "--", sys.executable, "app.py"]
    for _ in range(2):
        done = ran(command, tmp_path)
        assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "ledger.db")
    assert [row["cost"] for row in found] == [6_000_000_000] * 6
    assert len({row["writer"] for row in found}) == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [("no/such/ledger.db", "name a file in a folder that exists"), ("mysql://host/db", "not in 'mysql'")],
)
def test_a_mistake_is_told_before_the_program_runs(url: str, said: str, tmp_path: Path) -> None:
    done = ran([sys.executable, "-m", "costspan", "run", "--ledger", url, "--", "echo", "I ran"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
