"""`costspan price`: one answer a line, and a line that cannot be read spoils no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costspan.price import CONTEXT, LineError, Pricer, instant

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
COMMAND = [sys.executable, "-m", "costspan"]
AT = "2026-11-23T05:00:00Z"
LINE: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4.1",
    "usage_format": "openai.chat",
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500},
}


def costspan(*arguments: str, given: str | bytes = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        env=ENVIRONMENT,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def price(**changes: Any) -> dict[str, Any]:
    return Pricer(instant(AT)).price({**LINE, **changes})


def test_an_answer() -> None:
    assert price(id="a", usage={"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 999}}) == {
        "id": "a",
        "usd": "0.0005015",
        "status": "priced",
        "reason": None,
        "flags": [],
        "source": "local",
        "period_source": "https://developers.openai.com/api/docs/pricing",
        "book": price()["book"],
        "lines": [
            {"model": "gpt-4.1", "meter": "input", "quantity": 1, "rate": "2", "per": 1_000_000, "usd": "0.000002"},
            {
                "model": "gpt-4.1",
                "meter": "cache_read",
                "quantity": 999,
                "rate": "0.5",
                "per": 1_000_000,
                "usd": "0.0004995",
            },
        ],
    }


def test_what_the_provider_reports_wins() -> None:
    answer = price(usage={"prompt_tokens": 1000, "completion_tokens": 500, "cost": 0.0061})
    assert (answer["usd"], answer["source"]) == ("0.0061", "provider")
    # The book's own lines stay beside it.
    assert [line["usd"] for line in answer["lines"]] == ["0.002", "0.004"]


def test_unknown_is_never_zero() -> None:
    answer = price(model="gpt-99-hyper")
    assert (answer["usd"], answer["status"], answer["reason"]) == (None, "unknown_model", "unknown_model")
    assert (answer["book"], answer["lines"]) == (None, [])


def test_a_tier_without_rates_is_said() -> None:
    answer = price(tier="platinum")
    assert (answer["usd"], answer["status"], answer["flags"]) == ("0.006", "estimated", ["tier_unpriced"])


def test_a_span_needs_nothing_beside_its_attributes() -> None:
    span = {
        "gen_ai.system": "openai",
        "gen_ai.request.model": "prod",
        "gen_ai.response.model": "gpt-4.1",
        "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.output_tokens": 500,
    }
    answer = Pricer(instant(AT)).price({"usage_format": "otel.genai", "usage": span})
    assert answer["usd"] == "0.006"


def test_the_price_is_that_of_the_instant() -> None:
    o3 = {"model": "o3", "usage": {"prompt_tokens": 1000}}
    assert price(**o3, at="2025-05-01T00:00:00Z")["usd"] == "0.01"
    assert price(**o3, at="2026-05-01T00:00:00+02:00")["usd"] == "0.002"
    given = json.dumps({**LINE, **o3})
    assert '"usd": "0.01"' in costspan("price", "--at", "2025-05-01", given=given).stdout


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"provider": None}, "provider is missing"),
        ({"model": ""}, "model is missing"),
        ({"model": 7}, "model must be text, not 7"),
        ({"usage_format": None}, "usage_format is missing"),
        ({"usage_format": "openai.chatt"}, "usage_format 'openai.chatt'"),
        ({"usage": "lots"}, "usage must be an object"),
        (
            {"usage_format": "google.generate_content", "usage": {"promptTokensDetails": 5}},
            "usage does not have the form of google.generate_content",
        ),
        ({"at": "yesterday"}, "at: 'yesterday' is no instant such as"),
        ({"at": "2026-11-23T05:00:00"}, "at: "),
        ({"at": "2026-13-01T00:00:00Z"}, "at: "),
        ({"at": 1763874000}, "at: 1763874000 is no instant"),
        ({"tier": ["batch"]}, "tier must be text"),
        ({"context": "eu"}, "context must be an object"),
        ({"context": {"server": "x"}}, "context.server is not known"),
        ({"context": {"speed": 2}}, "context.speed must be text"),
        ({"context": {"override": {"gpt-4.1": {"input": "1"}}}}, "named provider/model"),
        ({"context": {"override": {"openai/gpt-4.1": {"inptu": "1"}}}}, "unknown meter 'inptu'"),
        ({"context": {"override": {"openai/gpt-4.1": "1"}}}, "context.override: openai/gpt-4.1"),
        ({"context": {"deployment_type": "ProvisionedManaged"}}, "no price a call"),
        ({"usage_format": "otel.genai", "usage": {"gen_ai.operation.name": "execute_tool"}}, "'execute_tool'"),
    ],
)
def test_what_cannot_be_read_is_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(LineError) as raised:
        price(**changes)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bad_line_spoils_no_other() -> None:
    lines = [
        b"\xef\xbb\xbf" + json.dumps({**LINE, "id": 1}).encode(),
        b"",
        b"{not json",
        json.dumps({**LINE, "id": "three", "usage": 3}).encode(),
        b"[1, 2]",
        b'{"id": "\xff"}',
        b"[" * 100_000,
        json.dumps({**LINE, "id": 6}).encode(),  # the last one has no line end
    ]
    done = costspan("price", "-", given=b"\r\n".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [(a["id"], a.get("line"), a.get("usd")) for a in answers] == [
        (1, None, "0.006"), (None, 3, None), ("three", 4, None), (None, 5, None), (None, 6, None), (None, 7, None),
        (6, None, "0.006"),
    ]  # fmt: skip
    assert done.stderr == "costspan price: 5 of 8 lines could not be read; each says why under `error`\n"


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "usage.jsonl").write_text(json.dumps(LINE) + "\n", encoding="utf-8")
    done = costspan("price", str(tmp_path / "usage.jsonl"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["usd"] == "0.006"


def test_it_answers_while_its_input_is_still_open() -> None:
    with subprocess.Popen(
        [*COMMAND, "price"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(2):
            process.stdin.write(json.dumps(LINE).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["usd"] == "0.006"
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    given = (json.dumps(LINE) + "\n") * 5_000
    with subprocess.Popen(
        [*COMMAND, "price"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        try:
            process.stdin.write(given.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass
        assert (process.wait(10), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["price", "/nowhere/usage.jsonl"], "costspan price: /nowhere/usage.jsonl cannot be read (No such file"),
        (["price", "--at", "noon"], "costspan price: --at: 'noon' is no instant such as"),
        (["price", "--att", "noon"], "costspan price: No such option: --att"),
        (["prise"], "costspan: No such command 'prise'"),
        (["run"], "costspan run: Missing argument"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str) -> None:
    done = costspan(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1


def test_every_fact_of_the_context_is_read() -> None:
    for fact in CONTEXT:
        price(context={fact: {} if fact == "override" else "global"})


def test_importing_costspan_imports_no_command_line() -> None:
    code = "import sys, costspan; print(sorted({'typer', 'rich', 'click'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "[]\n"
