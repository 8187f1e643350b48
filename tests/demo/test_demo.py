"""`costspan demo` as a user meets it: a process of its own, the real SDK clients, real figures."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from decimal import Decimal
from typing import Any

import pytest

from costspan.demo import conversation
from costspan.demo.script import AUDITOR, TURNS
from costspan.render import format_usd

CALLS = [turn for turn in TURNS if turn.persona is not AUDITOR]


def demo(arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`run(arguments)` in a process of its own, which finds what this one finds."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path; from costspan.demo import run; run({arguments})"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """What it prints; it must end well and complain of nothing."""
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    return out


def complaint_of(process: subprocess.Popen[str]) -> str:
    """What it complains of; it must not end well."""
    _, err = process.communicate(timeout=100)
    assert process.returncode != 0
    return err


DEAD_PROXY = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `costspan demo --json --svg` gives, run once for all the tests here; a proxy is none of its business."""
    svg = tmp_path_factory.mktemp("demo") / "demo.svg"
    out = output_of(demo(f"as_json=True, svg=Path({str(svg)!r})", **DEAD_PROXY, NO_PROXY="", no_proxy=""))
    found: dict[str, Any] = json.loads(out)
    found["svg"] = svg.read_text(encoding="utf-8")
    return found


def test_every_call_is_counted_once_and_priced(summary: dict[str, Any]) -> None:
    assert summary["total"]["calls"] == len(CALLS)
    assert summary["statuses"] == {"priced": len(CALLS)}
    assert summary["unpriced"] == []
    assert {name: line["calls"] for name, line in summary["by_provider"].items()} == {
        "openai": 5,
        "anthropic": 3,
        "gcp.gemini": 3,
    }
    assert {name: line["calls"] for name, line in summary["by_feature"].items()} == {
        "lookup": 1,
        "planning": 3,
        "review": 3,
        "minutes": 4,
    }


@pytest.mark.parametrize(
    ("model", "fresh", "cached", "output"),
    # USD per million tokens, as published by the providers
    [
        ("openai/gpt-5.4", "2.50", "0.25", "15"),
        ("openai/text-embedding-3-small", "0.02", "0", "0"),
        ("gcp.gemini/gemini-3.5-flash", "1.50", "0.15", "9"),
    ],
)
def test_the_cost_is_tokens_times_price(
    summary: dict[str, Any], model: str, fresh: str, cached: str, output: str
) -> None:
    line = summary["by_model"][model]
    tokens = line["tokens"]
    assert Decimal(line["cost"]) * 1_000_000 == (
        (tokens["input"] - tokens["cache_read"]) * Decimal(fresh)
        + tokens["cache_read"] * Decimal(cached)
        + tokens["output"] * Decimal(output)
    )
    assert Decimal(line["saved"]) * 1_000_000 == tokens["cache_read"] * (Decimal(fresh) - Decimal(cached))


def test_the_caches_of_all_three_providers_are_hit(summary: dict[str, Any]) -> None:
    for provider in ("openai", "anthropic", "gcp.gemini"):
        line = summary["by_provider"][provider]
        assert 0.4 < line["cache_hit_rate"] < 0.9
        assert Decimal(line["saved"]) > 0
    assert summary["by_provider"]["anthropic"]["tokens"]["cache_write"] > 1024


def test_the_picture_shows_the_calls_the_refusal_and_the_sum(summary: dict[str, Any]) -> None:
    svg = summary["svg"]
    shown = re.sub(r"<[^>]*>", " ", svg).replace("&#160;", " ")
    for persona in {turn.persona.name for turn in TURNS}:
        assert persona in shown
    assert "refused before it was sent" in shown
    assert format_usd(Decimal(summary["total"]["cost"])) in shown


def test_the_picture_needs_nothing_from_the_net(summary: dict[str, Any]) -> None:
    assert set(re.findall(r"https?://[^\s\"')]+", summary["svg"])) == {"http://www.w3.org/2000/svg"}


def test_on_a_terminal_the_money_arrives_while_they_speak() -> None:
    code = "fast=True, console=__import__('rich.console').console.Console(force_terminal=True, width=100, height=50)"
    shown = output_of(demo(code))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert plain.count("costspan demo") > 2  # frames, and the picture at the end
    assert "importing openai" in plain
    assert plain.index("Session: $0.000000 | Calls: 0") < plain.index("Calls: 11") < plain.index("by provider")


def test_served_metrics_agree_with_the_summary_and_go_on_growing() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = demo(f"as_json=True, serve=True, port={port}")
    try:
        assert serving.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = serving.stdout.readline()
            assert line, serving.communicate()[1]
            text += line
        total = json.loads(text)["total"]
        first = scrape(port)
        assert sum_of(first, "costspan_calls_total") == total["calls"]
        assert sum_of(first, "costspan_cost_USD_total") == pytest.approx(float(total["cost"]))
        assert sum_of(first, "costspan_budget_spent_USD") == pytest.approx(float(total["cost"]))
        assert sum_of(first, "costspan_budget_decisions_total", 'decision="refused"') == 1
        deadline = time.monotonic() + 60
        while sum_of(scrape(port), "costspan_calls_total") < 2 * len(CALLS):
            assert time.monotonic() < deadline, "the conversation does not go on"
            time.sleep(0.2)
        serving.send_signal(signal.SIGINT)
        assert serving.wait(20) == 0
    finally:
        serving.kill()
        serving.communicate()


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def sum_of(metrics: str, name: str, label: str = "") -> float:
    """The sum of all series of that name, and with that label."""
    series = (line for line in metrics.splitlines() if line.startswith(name + "{") and label in line)
    return sum(float(line.rsplit(" ", 1)[1]) for line in series)


def test_a_missing_sdk_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(conversation.MissingSDKError, match=r"anthropic.*pip install 'costspan\[demo\]'"):
        conversation.load("anthropic")


def test_a_port_in_use_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        complaint = complaint_of(demo(f"serve=True, port={taken.getsockname()[1]}"))
    assert "choose another with --port" in complaint


def test_switched_off_the_demo_says_so() -> None:
    assert "COSTSPAN_ENABLED" in complaint_of(demo("as_json=True", COSTSPAN_ENABLED="false"))
