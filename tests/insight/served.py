"""A running `costspan serve`, for tests and bars, with a ledger and budgets to show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import insert

from costspan_processor.ledger.schema import events
from tests.bars.report import on_path
from tests.grafana.prometheus import free_ports
from tests.insight.ledgers import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

READS: Final = "csk_a-key-that-may-read-0000"
WRITES: Final = "csk_a-key-that-may-write-000"
KEYS: Final = f"reader:read:{READS},writer:write:{WRITES}"

BUDGETS: Final = """\
# Kept by hand.
[[budgets]]
name = "all"
limit = "0.05"
policy = "block"

[[budgets]]
name = "search, a day"
limit = "1"
period = "day"
scope = {feature = "search"}

[[budgets]]
name = "each user"
limit = "2"
per = "user"
"""


MARKUP: Final = '<img src=x onerror="document.title=1">'
"""A user whom a page must show and not run."""


class Server(NamedTuple):
    """A server that runs."""

    url: str
    """Ends with a slash."""
    process: subprocess.Popen[str]
    log: Path


def event(number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """A row of `events`."""
    said = {
        "type": "threshold", "severity": "warning", "budget": "all", "period": f"{at:%Y-%m}", "threshold": 80,
        "limit": "0.05", "current": "0.0401", "remaining": "0.0099", "overage": "0", "advice": "look who spends it",
        "at": at.isoformat(), "value": None, "reason": None, **more,
    }  # fmt: skip
    return {
        "id": f"{said['budget']}:{number}", "at": int(at.timestamp()), "type": said["type"],
        "severity": said["severity"], "budget": said["budget"], "event": json.dumps(said),
    }  # fmt: skip


def fill(path: Path, days: int = 40) -> None:
    """A ledger with calls of the last days, some of them without a price, and events of budgets."""
    now = datetime.now(UTC).replace(microsecond=0)
    calls: list[dict[str, Any]] = []
    for back in range(days, -1, -1):
        for number in range(6):
            at = now - timedelta(days=back, seconds=3 * (6 - number) + 1)
            sonnet = {"cache_read_tokens": 400, "feature": "search", "user": "ann@example.com"}
            mini = {"provider": "openai", "model": "gpt-4.1-mini", "user": f"user {back % 9}", "feature": "summary"}
            if number == 4 and back == 2:
                mini = {**mini, "user": MARKUP}
            own = {"provider": "acme", "model": "a-model-of-our-own-with-a-rather-long-name", "user": "bob"}
            kind = own if number == 5 and back % 5 == 0 else mini if number % 3 else sonnet
            calls.append({"at": at, "input_tokens": 1_000 * (1 + (back * 7 + number) % 5), **kind})
    engine = ledger(path, calls)
    with engine.begin() as connection:
        told = [
            event(1, now - timedelta(hours=1), severity="critical", type="exceeded", threshold=100, overage="0.001"),
            event(2, now - timedelta(hours=5)),
            event(
                3, now - timedelta(hours=9), severity="info", threshold=50, budget="each user", value="ann@example.com"
            ),
        ]
        connection.execute(insert(events), told)
    engine.dispose()


def dear() -> list[dict[str, Any]]:
    """Calls of nine days, for which a cheaper model can be suggested."""
    now = time.time()
    opus = {"model": "claude-opus-4-5", "task": "summary", "input_tokens": 20_000, "output_tokens": 500}
    return [{"at": now - 600 * back, **opus} for back in range(1400, 0, -7)]


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, keys: str = KEYS, **environment: str) -> Iterator[Server]:
    """`costspan serve` over `ledger.db` in a folder, which is also where its budgets are."""
    (port,) = free_ports(1)
    log = folder / "serve.log"
    told = {**on_path(), "COSTSPAN_API_KEYS": keys, "XDG_DATA_HOME": str(folder / "data"), **environment}
    command = [sys.executable, "-m", "costspan", "serve", "--ledger", "ledger.db", "--port", str(port), *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=told, stdout=out, stderr=out, text=True)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}healthz", timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"costspan serve did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield Server(url, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def chromium() -> str | None:
    """The browser of Debian."""
    return next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if os.access(path, os.X_OK)), None)


def schemathesis(url: str, folder: Path, *, examples: int, phases: str) -> subprocess.CompletedProcess[str]:
    """Asks a server everything that its OpenAPI document lets one ask, and much that it does not.

    No answer may be a server's error, or anything that is not described; and none may be given without the key.
    What a description cannot say (a day besides a period) may be refused with 422. It keeps notes in the folder.
    """
    # Without 414 it takes an address that is too long to be read for one that was.
    refusals = [400, 401, 403, 404, 405, 409, 414, 415, 422, 429]
    (folder / "schemathesis.toml").write_text(f"[checks]\nnegative_data_rejection.expected-statuses = {refusals}\n")
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}api/v1/cost/openapi.json",
        "--header", f"Authorization: Bearer {WRITES}", "--phases", phases, "--max-examples", str(examples),
        "--checks", "all", "--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--seed", "1",
        "--suppress-health-check", "all", "--warnings", "off",
    ]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
