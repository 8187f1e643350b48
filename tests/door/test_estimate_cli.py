"""`costspan estimate` and `costspan.estimator()`: what calls will cost, for people, for programs and from Python."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import costspan
from costspan.cli import main

AT = "2025-11-23T05:00:00Z"
SONNET = "anthropic/claude-sonnet-4-5"


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        """What was printed, a list of words a line."""
        return [line.split() for line in self.out.splitlines() if line.strip()]


Run = Callable[..., Done]


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `costspan estimate` with prices of AT."""
    for name in list(os.environ):
        if name.startswith("COSTSPAN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")

    def run(command: str, *arguments: str, at: str = AT) -> Done:
        monkeypatch.setattr(sys, "argv", ["costspan", "estimate", command, *arguments, "--at", at])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


# ------------------------------------------------------------------ call


def test_a_call_expected_and_at_most(estimate: Run) -> None:
    done = estimate(
        "call", SONNET, "--input", "10000", "--cache-hit-rate", "0.8", "--output", "300", "--max-tokens", "500"
    )
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{SONNET}: 10,000 tokens in (8,000 from the cache), 300 out, 500 at most\n")
    assert done.lines[1:3] == [["expected", "at", "most"], ["─" * 33]]
    assert done.lines[3:8] == [
        ["input", "$0.006000", "$0.006000"],
        ["cache", "read", "$0.002400", "—"],
        ["cache", "write", "—", "$0.0300"],
        ["output", "$0.004500", "$0.007500"],
        ["total", "$0.0129", "$0.0435"],
    ]


def test_a_call_as_json_has_the_form_of_costspan_price(estimate: Run) -> None:
    done = estimate("call", "anthropic/claude-3-5-sonnet", "--input", "1000", "--output", "500", "--json")
    answer = json.loads(done.out)
    assert (done.status, answer["expected"]["usd"]) == (0, "0.0105")
    assert {key: answer[key] for key in ("model", "input_tokens", "output_tokens", "max_output_tokens")} == {
        "model": "anthropic/claude-3-5-sonnet",
        "input_tokens": 1000,
        "output_tokens": 500,
        "max_output_tokens": None,
    }
    assert [(line["meter"], line["usd"]) for line in answer["expected"]["lines"]] == [
        ("input", "0.003"),
        ("output", "0.0075"),
    ]
    assert answer["upper"] == {
        "usd": None,
        "status": "no_usage",
        "reason": "no_usage",
        "flags": ["upper_bound", "output_unbounded"],
        "period_source": None,
        "book": None,
        "lines": [],
    }


def test_what_was_assumed_is_said(estimate: Run) -> None:
    done = estimate("call", "groq/llama-3.1-8b-instant", "--characters", "4001", "--cache-hit-rate", "0.5")
    assert "1,001 tokens in, 1,024 out (assumed)" in done.out
    for note in (
        "groq/llama-3.1-8b-instant has no price for its cache: those tokens are plain input",
        "tokens are counted by characters, a rule for English text",
        "no upper bound: nothing limits the answer; give --max-tokens",
    ):
        assert f"\n{note}\n" in done.out
    done = estimate("call", "openai/gpt-4.1", "--input", "1", "--max-tokens", "1", "--tier", "platinum")
    assert "no price for this service tier: standard rates stand in" in done.out
    done = estimate("call", "openai/text-embedding-3-small", "--input", "1000")
    assert "has no price for output: for an embedding, give --max-tokens 0" in done.out


def test_characters_that_make_a_token_can_be_given(estimate: Run) -> None:
    done = estimate("call", "openai/gpt-4.1", "--characters", "7", "--characters-per-token", "3.5", "--json")
    assert json.loads(done.out)["input_tokens"] == 2


@pytest.mark.parametrize("command", [["call", "--input", "1"], ["conversation", "--messages", "2"]])
def test_a_model_without_a_price_ends_with_status_1(estimate: Run, command: list[str]) -> None:
    name, *options = command
    done = estimate(name, "openai/gpt-99", *options)
    assert done == (1, "", f"costspan estimate {name}: the book has no price of openai/gpt-99\n")
    done = estimate(name, "acme/large", *options, "--json")
    assert done.status == 1
    assert done.err == (f"costspan estimate {name}: the book has no provider 'acme'; models are named provider/model\n")
    assert (json.loads(done.out)["expected"]["usd"], json.loads(done.out)["expected"]["reason"]) == (
        None, "unknown_provider",
    )  # fmt: skip


def test_the_prices_of_the_environment_hold(estimate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_PRICES", '{"acme/large": {"input": "2.50", "output": "10"}}')
    done = estimate("call", "acme/large", "--input", "1000000", "--max-tokens", "0", "--json")
    assert json.loads(done.out)["expected"]["usd"] == "2.5"


# ------------------------------------------------------------------ conversation


def test_a_conversation_turn_by_turn(estimate: Run) -> None:
    arguments = [
        "--messages",
        "3",
        "--system",
        "1000",
        "--message",
        "100",
        "--output",
        "200",
        "--max-tokens",
        "500",
        "--cache-hit-rate",
        "1",
    ]
    done = estimate("conversation", SONNET, *arguments)
    assert (done.status, done.err) == (0, "")
    assert done.lines[3:7] == [
        ["1", "1,100", "0", "200", "$0.007125", "$0.0116"],
        ["2", "1,400", "1,100", "200", "$0.004455", "$0.0139"],
        ["3", "1,700", "1,400", "200", "$0.004545", "$0.0161"],
        ["total", "4.2k", "2.5k", "600", "$0.0161", "$0.0416"],
    ]
    assert "reading from the cache saves $0.006750, writing to it adds $0.001275" in done.out
    answer = json.loads(estimate("conversation", SONNET, *arguments, "--json").out)
    assert (answer["expected"]["usd"], answer["upper"]["usd"]) == ("0.016125", "0.041625")
    assert [turn["expected"] for turn in answer["turns"]] == ["0.007125", "0.004455", "0.004545"]
    assert sum(Decimal(turn["upper"]) for turn in answer["turns"]) == Decimal("0.041625")


def test_of_a_long_conversation_both_ends_are_shown_and_json_has_all(estimate: Run) -> None:
    arguments = ["--messages", "10", "--personas", "3", "--system", "10", "--output", "20"]
    done = estimate("conversation", "openai/gpt-4.1", *arguments)
    assert [line[0] for line in done.lines[3:15]] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "…",
        "26",
        "27",
        "28",
        "29",
        "30",
        "total",
    ]
    assert "cache saves" not in done.out
    assert len(json.loads(estimate("conversation", "openai/gpt-4.1", *arguments, "--json").out)["turns"]) == 30


# ------------------------------------------------------------------ compare


def test_a_comparison_begins_with_the_cheapest(estimate: Run) -> None:
    models = (SONNET, "openai/gpt-4.1", "google/gemini-2.5-pro", "openai/gpt-99", "openai/tts-1")
    done = estimate("compare", *models, "--input", "1000", "--output", "500")
    assert done.status == 0
    assert done.lines[2:5] == [
        ["openai/gpt-4.1", "$0.006000", "1.0"],
        ["google/gemini-2.5-pro", "$0.006250", "1.0"],
        [SONNET, "$0.0105", "1.8"],
    ]
    assert "openai/gpt-99: unknown model\nopenai/tts-1: no price for input; no price for output\n" in done.out
    answer = json.loads(estimate("compare", *models, "--input", "1000", "--output", "500", "--json").out)
    assert [(o["model"], o["usd"], o["ratio"]) for o in answer["priced"]][::2] == [
        ("openai/gpt-4.1", "0.006", 1.0),
        (SONNET, "0.0105", 1.75),
    ]
    assert [(o["model"], o["reason"]) for o in answer["unpriced"]] == [
        ("openai/gpt-99", "unknown_model"),
        ("openai/tts-1", "partial"),
    ]


def test_all_models_of_a_provider_are_cut_where_it_is_said(estimate: Run) -> None:
    done = estimate(
        "compare", "anthropic", "--input", "1000", "--cached", "400", "--use", "web_searches=2", "--top", "3"
    )
    shown = [line for line in done.lines if line[0].startswith("anthropic/")]
    assert len(shown) == 3
    assert "that cost more; --top shows them" in done.out
    answer = json.loads(estimate("compare", SONNET, "--input", "1000", "--cached", "400", "--use", "web_searches=2",
                                 "--json").out)  # fmt: skip
    assert answer["priced"][0]["usd"] == "0.02192", "600 at 3, 400 at 0.30, 2 searches at 0.01"


def test_a_comparison_of_unknown_models_ends_with_status_1(estimate: Run) -> None:
    done = estimate("compare", "openai/gpt-99", "gpt-4.1", "--input", "1")
    assert done.status == 1
    assert done.out == "gpt-4.1: unknown provider\nopenai/gpt-99: unknown model\n"
    assert done.err == "costspan estimate compare: the book has a price for none of these\n"


# ------------------------------------------------------------------ month


def test_a_month_from_a_file_of_days(estimate: Run, tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    file.write_text("\ufeffdate,usd,calls\n2025-11-01,10,7\n2025-11-02, 14.00\n\n2025-11-03,\n2025-11-04,12\n", "utf-8")
    done = estimate("month", str(file))
    assert (done.status, done.err) == (0, "")
    assert done.lines[:5] == [
        ["2025-11", "USD"],
        ["─" * len(done.out.splitlines()[1])],
        ["spent", "so", "far", "$36.00"],
        ["expected,", "with", "26", "days", "to", "come", "$348.00"],
        ["80", "%", "between", "$288.21", "and", "$407.79"],
    ]
    assert "nothing is known of 1 day of the month" in done.out
    answer = json.loads(estimate("month", str(file), "--json", "--confidence", "0.95").out)
    assert {key: answer[key] for key in ("month", "spent", "expected", "confidence", "days", "remaining")} == {
        "month": "2025-11", "spent": "36", "expected": "348", "confidence": 0.95, "days": 3, "remaining": 26,
    }  # fmt: skip
    assert Decimal(answer["low"]) < Decimal("288.21")


def test_a_month_from_standard_input(estimate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"2025-11-22,10\n2025-11-23,4\n")))
    answer = json.loads(estimate("month", "-", "--json").out)
    # The 23rd is the day of --at, and still running.
    assert (answer["spent"], answer["expected"], answer["low"]) == ("14", "90", None)


def test_a_month_from_a_typical_day(estimate: Run) -> None:
    done = estimate("month", "--day", "12.40", "--month", "2026-02")
    assert ["expected,", "with", "28", "days", "to", "come", "$347.20"] in done.lines
    assert "no interval: give more days" in done.out


def test_a_month_of_usage(estimate: Run) -> None:
    done = estimate("month", "--model", "openai/gpt-4.1", "--use", "web_searches=2000", "--use", "input=1000000")
    assert done.lines[2:5] == [
        ["input", "1000000", "$2", "per", "1,000,000", "$2.00"],
        ["web_searches", "2000", "$10", "per", "1,000", "$20.00"],
        ["total", "$22.00"],
    ]
    done = estimate("month", "--model", "openai/gpt-99", "--use", "input=1", "--json")
    assert (done.status, json.loads(done.out)["usd"]) == (1, None)


# ------------------------------------------------------------------ what cannot be read


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["call", SONNET], "call: give --input or --characters, one of the two"),
        (["call", SONNET, "--input", "1", "--characters", "1"], "call: give --input or --characters, one of the two"),
        (["call", SONNET, "--input", "-5"], "call: Invalid value for '--input'"),
        (["call", SONNET, "--input", "many"], "call: Invalid value for '--input'"),
        (["call", SONNET, "--input", "1", "--cache-hit-rate", "2"], "call: Invalid value for '--cache-hit-rate'"),
        (["call", SONNET, "--characters", "1", "--characters-per-token", "0"], "call: characters_per_token must be"),
        (["call", "openai/", "--input", "1"], "call: 'openai/': models are named provider/model"),
        (["call", "--input", "1"], "call: Missing argument"),
        (["call", SONNET, "--input", "1", "--outptu", "1"], "call: No such option"),
        (["conversation", SONNET], "conversation: Missing option '--messages'"),
        (["conversation", SONNET, "--messages", "99999"], "conversation: personas x messages are 99,999 turns"),
        (["compare", SONNET], "compare: a usage of nothing costs nothing anywhere"),
        (["compare", SONNET, "--input", "1", "--cached", "2"], "compare: --cached 2 is more than --input 1"),
        (["compare", SONNET, "--use", "searches=2"], "compare: --use searches=2: unknown meter 'searches'"),
        (["compare", SONNET, "--use", "images"], "compare: --use images: write a meter and its quantity"),
        (["compare", SONNET, "--use", "images=x"], "compare: --use images=x: write a meter and its quantity"),
        (["compare", SONNET, "--use", "images=1.5"], "compare: images must be a whole number"),
        (
            ["compare", SONNET, "--use", "images=1", "--use", "images=2"],
            "compare: --use images=2: images is there twice",
        ),
        (["month"], "month: give a FILE of daily amounts, --day, or --model with --use: one of the three"),
        (["month", "days.csv", "--day", "1"], "month: give a FILE of daily amounts"),
        (["month", "--model", SONNET], "month: --model and --use go together"),
        (["month", "--day", "1", "--use", "input=1"], "month: --model and --use go together"),
        (["month", "--day", "much"], "month: the amount of a day: an amount is USD such as 12.50, not 'much'"),
        (["month", "--day", "1", "--month", "May"], "month: month must be written as 2026-12, not 'May'"),
        (["month", "--day", "1", "--confidence", "80"], "month: confidence must be between 0 and 1"),
        (["month", "/nowhere/days.csv"], "month: /nowhere/days.csv cannot be read (No such file or directory)"),
    ],
)
def test_bad_input_is_one_line_and_status_2(estimate: Run, arguments: list[str], complaint: str) -> None:
    done = estimate(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"costspan estimate {complaint}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no days; a line is date,usd such as 2026-11-03,12.50"),
        (b"date,usd\n", "has no days"),
        (b"2025-11-01\n", "line 1: a line is date,usd such as 2026-11-03,12.50"),
        (b"2025-11-01,1\nNovember 2,1\n", "line 2: 'November 2' is no date such as 2026-11-03"),
        (b"2025-11-01,1\n2025-11-01,2\n", "line 2: 2025-11-01 is there twice"),
        (b"2025-11-01,ten\n", "2025-11-01: an amount is USD such as 12.50, not 'ten'"),
        (b"2025-11-01,\n", "days must have at least one amount"),
        (b"2025-12-01,1\n", "2025-12-01 lies in the future: today is 2025-11-23"),
        (b"\xff\xfe1", "is no text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    estimate: Run, tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "days.csv").write_bytes(content)
    done = estimate("month", str(tmp_path / "days.csv"))
    assert (done.status, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1


def test_an_instant_that_is_none_is_named(estimate: Run) -> None:
    done = estimate("call", SONNET, "--input", "1", at="noon")
    assert done.err.startswith("costspan estimate call: --at: 'noon' is no instant such as")


def test_help_is_for_every_command(estimate: Run) -> None:
    for command in ("call", "conversation", "compare", "month"):
        done = estimate(command, "--help")
        assert done.status == 0
        assert done.out.startswith(f"Usage: costspan estimate {command}")


# ------------------------------------------------------------------ the documentation

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"<!-- estimate -->\n```sh\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


def plain(text: str) -> list[str]:
    """Lines without trailing spaces, and without the version of the prices, which is another every week."""
    return [re.sub(r"^price book [\d.]+", "price book", line.rstrip()) for line in text.splitlines()]


@pytest.mark.parametrize("page", ["cli.md", "estimates.md"])
def test_the_examples_of_the_documentation_are_what_the_command_prints(estimate: Run, page: str) -> None:
    examples = EXAMPLE.findall((DOCS / page).read_text(encoding="utf-8"))
    assert examples
    for command, printed in examples:
        costspan_, estimate_, *arguments, at_option, at = shlex.split(command.replace("\\\n", " "))
        assert (costspan_, estimate_, at_option) == ("costspan", "estimate", "--at")
        assert plain(estimate(*arguments, at=at).out) == plain(printed)


def test_the_options_that_the_documentation_lists_exist(estimate: Run) -> None:
    section = (DOCS / "cli.md").read_text(encoding="utf-8").partition("## costspan estimate")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+) .*$", section, re.MULTILINE)
    assert set(rows) == {"call", "conversation", "compare", "month"}
    for row in re.finditer(r"^\| `(\w+) .*$", section, re.MULTILINE):
        options = re.findall(r"--[a-z-]+", row[0])
        shown = estimate(row[1], "--help").out
        assert [option for option in options if f"{option} " not in shown] == []


# ------------------------------------------------------------------ from Python


def test_the_estimator_takes_the_prices_of_its_instant_and_tier() -> None:
    may = costspan.estimator(at=datetime(2025, 5, 1, tzinfo=UTC))
    assert may.call("openai/o3", input_tokens=1_000, max_tokens=0).expected.usd == Decimal("0.01")
    batch = costspan.estimator(at=datetime(2025, 5, 1, tzinfo=UTC), tier="batch")
    assert batch.call("openai/o3", input_tokens=1_000, max_tokens=0).expected.usd == Decimal("0.005")
    with pytest.raises(ValueError, match="at needs a time zone"):
        costspan.estimator(at=datetime(2025, 5, 1))  # noqa: DTZ001


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def test_the_estimator_takes_the_prices_of_init() -> None:
    code = """
import costspan
costspan.init(prices={"acme/large": {"input": "2.50"}})
print(costspan.estimator().call("acme/large", input_tokens=1_000_000, max_tokens=0).expected.usd)
"""
    assert Decimal(python(code)) == Decimal("2.5")


def test_importing_costspan_loads_no_estimates() -> None:
    code = (
        "import sys, costspan; print(sorted({'costspan.estimate', 'costspan_pricing.estimate'} & sys.modules.keys()))"
    )
    assert python(code) == "[]\n"


def test_all_figures_of_a_program_come_from_the_same_rates(estimate: Run) -> None:
    arguments: dict[str, Any] = {"input_tokens": 12_345, "output_tokens": 678, "max_tokens": 999}
    found = costspan.estimator(at=datetime(2025, 11, 23, 5, tzinfo=UTC)).call(SONNET, **arguments)
    done = estimate("call", SONNET, "--input", "12345", "--output", "678", "--max-tokens", "999", "--json")
    answer = json.loads(done.out)
    assert Decimal(answer["expected"]["usd"]) == found.expected.usd
    assert Decimal(answer["upper"]["usd"]) == found.upper.usd
