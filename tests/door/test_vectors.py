"""Usage in, dollars out, to the last digit: every vector through `costspan price`, all in one go.

Ours are in tests/vectors, each with its arithmetic and the source of its rates. More of the same form are read from
COSTSPAN_VECTORS, a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("COSTSPAN_VECTORS", HERE.parent / "shared" / "vectors" / "pricing.jsonl"))
BOOKED = {"openai", "azure", "anthropic", "google", "gcp.gemini", "gcp.vertex_ai", "litellm", "acme-llm"}
"""Providers of the vectors that the book has, a gateway that names one of them, and one that nobody knows."""


def vectors() -> list[Any]:
    files = [*sorted((HERE / "tests" / "vectors").glob("*.jsonl")), *([SHARED] if SHARED.exists() else [])]
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            vector = json.loads(line)
            if vector["provider"] in BOOKED:
                found.append(pytest.param(vector, id=f"{file.stem}/{vector['id']}"))
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    """What `costspan price` says of all vectors, by their place and id."""
    names = [str(parameter.id) for parameter in vectors()]
    lines = "".join(json.dumps({**p.values[0], "id": name}) + "\n" for p, name in zip(vectors(), names, strict=True))
    done = subprocess.run(
        [sys.executable, "-m", "costspan", "price"],
        input=lines.encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in found] == names
    return {answer["id"]: answer for answer in found}


@pytest.mark.parametrize("vector", vectors())
def test_vector(vector: dict[str, Any], answers: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    answer = answers[request.node.callspec.id]
    expected = vector["expected_usd"]
    if expected is None:
        assert (answer["usd"], answer["reason"]) == (None, vector["expected_reason"])
        return
    assert answer["usd"] is not None, answer
    assert Decimal(answer["usd"]) == Decimal(expected), (vector["arithmetic"], answer["lines"])
    assert answer["reason"] is None
    if flag := vector.get("expected_flag"):
        assert flag in answer["flags"]
    # The lines are the sum.
    if answer["source"] == "local":
        assert sum(Decimal(line["usd"]) for line in answer["lines"]) == Decimal(answer["usd"])
