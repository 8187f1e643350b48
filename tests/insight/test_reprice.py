"""`costspan reprice`: the calls of a ledger by another book, to the picodollar."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from costspan.cli import main
from costspan.insight.figures import Figures
from costspan.insight.reprice import compare, restate
from costspan_pricing import PriceBook
from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.rows import COLUMNS, batch_of, totals
from costspan_processor.ledger.schema import COMPONENTS, calls, hours, records, series, spenders
from costspan_processor.ledger.store import open_ledger
from tests.insight.ledgers import ledger
from tests.ledger.postgres import MISSING, PostgreSQL, binaries

ALWAYS = (0, 4_000_000_000)
BOOK = PriceBook.bundled()
CHEAPER = BOOK.with_prices({"anthropic/claude-sonnet-4-5": {"input": "2", "output": "10"}})
NEW_MODEL = BOOK.with_prices({"anthropic/claude-next": {"input": "1", "output": "2"}})


def rows(engine: Engine) -> dict[str, dict[str, Any]]:
    """The calls, by id."""
    with engine.connect() as connection:
        return {row["id"]: dict(row) for row in connection.execute(select(calls)).mappings()}


def totals_of(engine: Engine) -> tuple[set[Any], set[Any]]:
    """The totals as they stand in the ledger."""
    with engine.connect() as connection:
        named = {row[0]: tuple(row[1:]) for row in connection.execute(select(series))}
        of_hours = {(row[0], named[row[1]], *row[2:]) for row in connection.execute(select(hours))}
        return of_hours, {tuple(row) for row in connection.execute(select(spenders))}


def totals_from_calls(engine: Engine) -> tuple[set[Any], set[Any]]:
    """The totals that the calls make."""
    batch = batch_of([tuple(row[name] for name in COLUMNS) for row in rows(engine).values()])
    named = {id_: values for values, id_ in batch.series.items()}
    made = totals(batch)
    return {(row[0], named[row[1]], *row[2:]) for row in made.hours}, set(made.spenders)


def adds_up(engine: Engine) -> bool:
    """Whether totals are those of the calls, and every call's parts and lines are its cost."""
    for row in rows(engine).values():
        if row["cost"] is not None:
            assert sum(row[f"cost_{name}"] or 0 for name in COMPONENTS) == row["cost"]
            if row["source"] == "local" and row["lines"]:
                assert sum(line[5] or 0 for line in json.loads(row["lines"])) == row["cost"]
    return totals_of(engine) == totals_from_calls(engine)


# ---------------------------------------------------------------------- what another book says


def test_the_same_book_says_the_same(tmp_path: Path) -> None:
    made: list[dict[str, Any]] = [
        {},
        {"cache_read_tokens": 800, "cache_write_tokens": 100, "cache_write_1h": 60},
        {"model": "claude-next"},
        {"error_type": "Timeout", "input_tokens": 0, "output_tokens": 0},
        {"provider": "openai", "model": "gpt-4.1", "tier": "batch"},
        {"provider": "nobody", "model": "x"},
    ]
    engine = ledger(tmp_path / "ledger.db", made)
    found = compare(Figures(engine), BOOK, *ALWAYS)
    assert (found.plain()["calls"], found.changes) == (6, 0)
    assert found.plain()["difference"] == 0


def test_a_book_with_other_prices_says_by_how_much_and_for_which_models(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{}, {"output_tokens": 1_000}, {"provider": "openai", "model": "gpt-4.1"}])
    found = compare(Figures(engine), CHEAPER, *ALWAYS).plain()
    # 1,000 and 200 tokens; 1,000 and 1,000: $3 and $15 a million before, $2 and $10 now.
    assert found["by_model"][0] == {
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "calls": 2,
        "changed": 2,
        "recorded": Decimal("0.024"),
        "repriced": Decimal("0.016"),
        "difference": Decimal("-0.008"),
    }
    assert found["by_model"][1]["difference"] == 0
    assert found["books"] == [{"book": BOOK.version, "calls": 3, "cost": found["recorded"]}]


def test_what_can_be_priced_now_and_what_no_longer_can(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"model": "claude-next"}], book=BOOK)
    found = compare(Figures(engine), NEW_MODEL, *ALWAYS).plain()
    named = {"provider": "anthropic", "model": "claude-next", "calls": 1}
    assert found["now_priced"] == [named | {"status": "unknown_model", "cost": Decimal("0.0014")}]
    assert found["difference"] == Decimal("0.0014")

    engine = ledger(tmp_path / "other.db", [{"model": "claude-next"}], book=NEW_MODEL)
    found = compare(Figures(engine), BOOK, *ALWAYS).plain()
    assert found["no_longer_priced"] == [named | {"status": "unknown_model", "cost": Decimal("0.0014")}]
    # Nothing known is forgotten: restating would change nothing.
    assert (found["difference"], found["changed"]) == (0, 0)


def test_a_call_costs_what_its_day_cost(tmp_path: Path) -> None:
    """Its instant decides, not the day on which it is priced again."""
    model = {"provider": "openai", "model": "o3"}
    made = [model | {"at": "2025-06-01 12:00"}, model | {"at": "2025-07-01 12:00"}]
    engine = ledger(tmp_path / "ledger.db", made)
    costs = [row["cost"] for row in rows(engine).values()]
    assert costs[0] == 5 * costs[1]  # OpenAI cut the price by 80 % on 10 June 2025
    assert compare(Figures(engine), BOOK, *ALWAYS).changes == 0


def test_usage_of_several_models_and_fractions_comes_back_from_the_row(tmp_path: Path) -> None:
    usage = {
        "input": 1000,
        "parts": [{"model": "claude-haiku-4-5", "usage": {"output": 500}}, {"model": None, "usage": {"output": 10}}],
    }
    engine = ledger(
        tmp_path / "ledger.db",
        [
            {"cost": 1, "usage": json.dumps(usage), "status": "priced"},
            {
                "cost": 1,
                "provider": "openai",
                "model": "whisper-1",
                "usage": '{"audio_seconds": 90.5}',
                "status": "priced",
            },
        ],
    )
    found = compare(Figures(engine), BOOK, *ALWAYS).plain()
    by_model = {line["model"]: line["repriced"] for line in found["by_model"]}
    assert by_model["claude-sonnet-4-5"] == Decimal("0.003") + Decimal("0.0025") + Decimal("0.00015")
    assert by_model["whisper-1"] == Decimal("90.5") * Decimal("0.006") / 60


def test_only_the_calls_that_are_asked_for(tmp_path: Path) -> None:
    engine = ledger(
        tmp_path / "ledger.db", [{"team": "core"}, {"team": "growth"}, {"at": "2026-12-01 00:00", "team": "core"}]
    )
    end = 1_796_083_200  # 1 December 2026
    assert compare(Figures(engine), CHEAPER, 0, end, {"team": "core"}).plain()["calls"] == 1
    assert compare(Figures(engine), CHEAPER, end, end + 3600).plain()["calls"] == 1


# ---------------------------------------------------------------------- restating


def test_restating_writes_calls_and_totals_and_a_second_time_nothing(tmp_path: Path) -> None:
    made = [
        {"user": "ann"},
        {"user": "ben", "at": "2026-11-05 10:00"},
        {"model": "claude-next", "user": "ann", "session": "s"},
    ]
    engine = ledger(tmp_path / "ledger.db", made)
    book = CHEAPER.with_prices({"anthropic/claude-next": {"input": "1", "output": "2"}})
    done = restate(Figures(engine), book, *ALWAYS)
    assert done == (3, 2, 2 * (4_000_000_000 - 6_000_000_000) + 1_400_000_000)
    assert adds_up(engine)
    first, _, third = rows(engine).values()
    assert (first["cost"], first["cost_input"], first["cost_output"]) == (4_000_000_000, 2_000_000_000, 2_000_000_000)
    assert (third["status"], third["flags"], third["layer"]) == ("priced", "repriced", "code")
    assert json.loads(first["lines"])[0] == ["claude-sonnet-4-5", "input", 1000, "2", 1_000_000, 2_000_000_000]
    before = rows(engine)
    assert restate(Figures(engine), book, *ALWAYS) == (0, 0, 0)
    assert rows(engine) == before
    found = verify(open_ledger(str(tmp_path / "ledger.db")))
    assert [check.problems for check in found.checks] == [[]] * len(found.checks)


def test_a_providers_own_figure_stays(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"source": "provider", "cost": 7_000_000_000, "usage": '{"input": 1000}'}])
    found = compare(Figures(engine), CHEAPER, *ALWAYS).plain()
    assert found["provider_figures"] == {"calls": 1, "cost": Decimal("0.007")}
    assert restate(Figures(engine), CHEAPER, *ALWAYS).calls == 0


def test_what_the_usage_is_worth_stays_said(tmp_path: Path) -> None:
    """A usage that was estimated is estimated by every book; flags of the old price go."""
    call = {"flags": "unpriced:input estimated", "status": "partial", "cost": 5, "usage": '{"input": 1000}'}
    engine = ledger(tmp_path / "ledger.db", [call])
    restate(Figures(engine), BOOK, *ALWAYS)
    (row,) = rows(engine).values()
    assert (row["status"], row["flags"], row["cost"]) == ("estimated", "estimated repriced", 3_000_000_000)
    assert adds_up(engine)


def restate_twice_at_once(engine: Engine) -> list[int]:
    """How many calls each of two wrote."""
    done: list[int] = []
    both = [
        threading.Thread(target=lambda: done.append(restate(Figures(engine), CHEAPER, *ALWAYS).calls)) for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    return done


MANY = [{"user": f"u{number % 3}"} for number in range(300)]


def test_two_who_restate_at_once_write_it_once(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", MANY)
    assert sum(restate_twice_at_once(engine)) == 300
    assert adds_up(engine)


@pytest.mark.skipif(binaries() is None and os.environ.get("CI") != "true", reason=MISSING)
def test_the_same_in_postgresql() -> None:
    with PostgreSQL() as server:
        url = server.database()
        engine = ledger(url, [*MANY, {"model": "claude-next"}, {"tags": {"tenant": "acme"}}])
        assert compare(Figures(engine), CHEAPER, *ALWAYS, {"tag.tenant": "acme"}).changes == 1
        assert sum(restate_twice_at_once(engine)) == 301
        assert adds_up(engine)
        assert verify(open_ledger(url)).holds
        engine.dispose()


def test_calls_that_retention_removed_stay_in_the_totals(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-02 09:00"}, {"at": "2026-11-04 09:00"}])
    with engine.connect().execution_options(costspan_writes=True) as connection, connection.begin():
        connection.execute(delete(records).where(records.c.started < 1_793_750_000 * 10**9))
    found = compare(Figures(engine), CHEAPER, *ALWAYS).plain()
    assert (found["calls"], found["forgotten"]) == (1, {"calls": 1, "cost": Decimal("0.006")})
    restate(Figures(engine), CHEAPER, *ALWAYS)
    assert Figures(engine).total(*ALWAYS).usd == Decimal("0.010")


CALLS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["claude-sonnet-4-5", "claude-haiku-4-5", "claude-next", "made-up"]),
        "at": st.integers(1_793_500_000, 1_793_520_000),
        "input_tokens": st.integers(0, 300_000),
        "output_tokens": st.integers(0, 9_000),
        "cache_read_tokens": st.integers(0, 4_000),
        "user": st.sampled_from(["ann", "ben"]),
        "team": st.sampled_from(["core", "growth"]),
        "tier": st.sampled_from(["batch", "priority"]),
        "error_type": st.just("Timeout"),
        "aborted": st.booleans(),
    },
)


@given(st.lists(CALLS, max_size=12), st.sampled_from([BOOK, CHEAPER, NEW_MODEL]))
@settings(max_examples=20, deadline=None)
def test_a_restated_ledger_adds_up_and_is_what_the_comparison_said(
    tmp_path_factory: pytest.TempPathFactory, made: list[Mapping[str, Any]], book: PriceBook
) -> None:
    engine = ledger(tmp_path_factory.mktemp("ledger") / "ledger.db", made)
    found = compare(Figures(engine), book, *ALWAYS).plain()
    done = restate(Figures(engine), book, *ALWAYS)
    assert done.calls == found["changed"]
    assert adds_up(engine)
    assert Figures(engine).total(*ALWAYS).usd == found["repriced"]
    assert compare(Figures(engine), book, *ALWAYS).changes == 0
    engine.dispose()


# ---------------------------------------------------------------------- the command


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def reprice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `costspan reprice` on the ledger of the test's folder."""
    for name in list(os.environ):
        if name.startswith("COSTSPAN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*arguments: str, ledger: str | None = "ledger.db") -> Done:
        named = () if ledger is None else ("--ledger", str(tmp_path / ledger))
        monkeypatch.setattr(sys, "argv", ["costspan", "reprice", *arguments, *named])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


PRICES = """{"schema_version": 1, "provider": "anthropic", "models": {"claude-sonnet-4-5":
    {"periods": [{"rates": {"input": "2", "output": "10"}, "source": "https://example.com/prices"}]}}}"""


def test_the_command_compares_by_default_with_the_users_own_book(
    reprice: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger(tmp_path / "ledger.db", [{}, {"provider": "openai", "model": "gpt-4.1"}])
    monkeypatch.setenv("COSTSPAN_PRICES", '{"anthropic/claude-sonnet-4-5": {"input": "2"}}')
    told = json.loads(reprice("--json").out)
    assert (told["changed"], told["difference"], told["restated"]) == (1, "-0.001", None)
    assert json.loads(reprice("--json", "--book", "bundled").out)["changed"] == 0


def test_the_command_shows_a_table_and_what_it_would_do(reprice: Run, tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [{}, {"model": "claude-next"}])
    (tmp_path / "prices.json").write_text(PRICES)
    done = reprice("--book", str(tmp_path / "prices.json"))
    lines = [line.split() for line in done.out.splitlines()]
    assert ["anthropic/claude-sonnet-4-5", "1", "1", "$0.006000", "$0.004000", "-$0.002000"] in lines
    # What nobody knows is no zero.
    assert ["anthropic/claude-next", "1", "0", "—", "—", "$0.000000"] in lines
    assert "anthropic/claude-next (unknown_model): 1 call still without a price" in done.out
    assert done.out.endswith("--apply would restate 1 call.\n")


def test_apply_asks_first_and_changes_nothing_without_a_yes(
    reprice: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ledger(tmp_path / "ledger.db", [{}])
    (tmp_path / "prices.json").write_text(PRICES)
    book = "--book", str(tmp_path / "prices.json")
    (tmp_path / "no").write_text("n\n")
    with (tmp_path / "no").open() as answer:
        monkeypatch.setattr(sys, "stdin", answer)
        done = reprice(*book, "--apply")
    assert done.status == 1
    assert done.err.startswith("Restate 1 call in 1 hour of this ledger? [y/N]:")
    assert done.err.endswith("costspan reprice: nothing was changed\n")
    assert Figures(engine).total(*ALWAYS).usd == Decimal("0.006")
    told = json.loads(reprice(*book, "--apply", "--yes", "--json").out)
    assert told["restated"] == {"calls": 1, "hours": 1, "difference": "-0.002"}
    assert Figures(engine).total(*ALWAYS).usd == Decimal("0.004")
    assert json.loads(reprice(*book, "--apply", "--yes", "--json").out)["restated"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--yes"], "--yes is for --apply"),
        (["--apply", "--json"], "--apply asks first, which --json cannot: add --yes"),
        (["--from", "yesterday"], "--from must be a day such as 2026-11-28, not 'yesterday'"),
        (["--from", "2026-11-05", "--to", "2026-11-04"], "there is no time between 2026-11-05 and 2026-11-04"),
        (["--where", "team"], "--where team: it is NAME=VALUE, with one of service, "),
        (["--book", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_a_line(reprice: Run, tmp_path: Path, arguments: list[str], problem: str) -> None:
    ledger(tmp_path / "ledger.db", [{}])
    done = reprice(*arguments)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("costspan reprice: ")
    assert problem in done.err


def test_a_ledger_that_is_not_there_is_a_line(reprice: Run, tmp_path: Path) -> None:
    assert "there is no ledger at" in reprice().err
    assert "name a ledger with --ledger" in reprice(ledger=None).err
    ledger(tmp_path / "ledger.db")
    assert reprice().err == "costspan reprice: the ledger is empty: nothing has been recorded yet\n"
