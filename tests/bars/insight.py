"""The HTTP API: that it keeps to its description, how long it takes, and that slow questions hold nobody up."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from costspan.insight.serve.gate import BASE
from tests.bars.report import Bar, at_most, none_of, skipped
from tests.insight.ledgers import ledger
from tests.insight.served import BUDGETS, READS, fill, schemathesis, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE: Final = (
    "metrics?limit=8", "trend?period=30d&each=day&horizon=0", "budgets", "alerts?acknowledged=false",
    "suggestions?limit=8",
)  # fmt: skip
"""What the page asks for."""
_SLOW: Final = ("breakdown?period=30d&by=user,model", "breakdown?period=30d&by=day,feature,task", "trend?period=30d")


def described(full: bool) -> Iterator[Bar]:
    """Requests by the OpenAPI document, and beside it: none may be a server's error, undescribed, or without a key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "ledger.db")
        (folder / "costspan.toml").write_text(BUDGETS)
        with serving(folder, "--rate", "1000000") as server:
            said = schemathesis(
                server.url, folder, examples=200 if full else 3, phases="examples,coverage,fuzzing,stateful"
            ).stdout
    count = re.search(r"(\d+) generated", said)
    failures = re.findall(r"^\s+❌ (ST\d+ .*)$", said, re.MULTILINE)
    if count is None:
        yield Bar("insight.api", "-", "0", False, said[-300:])
        return
    yield none_of("insight.api", failures, f"{int(count[1]):,} requests")


def quick(full: bool) -> Iterator[Bar]:
    """What the page asks for over a month of calls, and what others wait meanwhile."""
    if not full:
        why = "with --full only: a wall time says something on an idle machine alone"
        yield from skipped(("insight.api.page", "insight.api.wait"), why)
        return
    calls = 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = time.time()
        step = 30 * 86_400 / calls
        models = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5")
        ledger(
            folder / "ledger.db",
            (
                {
                    "at": now - step * (calls - one),
                    "model": models[one % 3],
                    "user": f"user {one * 7919 % 500}",
                    "feature": f"feature {one % 11}",
                    "task": f"task {one % 5}",
                    "input_tokens": 1_000 + one % 4 * 500,
                }
                for one in range(calls)
            ),
        ).dispose()
        (folder / "costspan.toml").write_text(BUDGETS)
        with (
            serving(folder, "--rate", "1000000") as server,
            httpx.Client(
                base_url=f"{server.url}{BASE[1:]}/", headers={"Authorization": f"Bearer {READS}"}, timeout=120
            ) as client,
        ):
            for path in _PAGE:
                _timed(client, path)
            took = {path: min(_timed(client, path) for _ in range(3)) for path in _PAGE}
            slowest = max(took, key=lambda path: took[path])
            yield at_most("insight.api.page", took[slowest], 1.0, ".3f", f"s, {slowest} over {calls:,} calls")
            stop = threading.Event()

            def ask() -> None:
                with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=120) as mine:
                    while not stop.is_set():
                        for path in _SLOW:
                            _timed(mine, path)

            askers = [threading.Thread(target=ask) for _ in range(4)]
            for asker in askers:
                asker.start()
            time.sleep(1)
            waited = sorted(_timed(client, "key") for _ in range(300))
            stop.set()
            for asker in askers:
                asker.join()
            middle = waited[len(waited) // 2]
            note = f"s, the slowest of {len(waited)} small requests while four ask for slow ones; median {middle:.3f}"
            yield at_most("insight.api.wait", waited[-1], 0.5, ".3f", note)


def _timed(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path)
    if answer.status_code != 200:
        raise AssertionError(f"{path}: {answer.status_code} {answer.text[:200]}")
    return time.perf_counter() - began


MEASURES: Final = {"insight.api": described, "insight.api.quick": quick}
