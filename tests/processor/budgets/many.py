"""Many processes that spend from one limit and are killed meanwhile; afterwards the store is held against their logs.

`python -m tests.processor.budgets.many SETUP` with a `Setup` as JSON prints an `Outcome` as JSON.

Each process has a log of its own, to which it appends a line before and after each step, so that for every call it is
known how far it has come: `r` about to reserve, `a` admitted, `x` refused, `s` about to settle, `d` settled.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from costspan_processor.budgets.store import Balance, Claim, Settlement, Store, StoreError
from costspan_processor.budgets.stores import open_store
from tests.bars.load import ROOT
from tests.bars.report import on_path

LIMITED: Final = "team"
WHOLE: Final = "all"
MOST: Final = 1000
"""Estimates are up to so many nanodollars."""
EXCESS: Final = 300
"""An actual may be that much above its estimate, where they are not exact."""


@dataclass
class Setup:
    """What is to be done."""

    url: str
    folder: str
    processes: int
    calls: int
    """Of each process."""
    exact: bool
    """Whether a call costs what was estimated."""
    kill_seconds: float
    hold_seconds: float

    @property
    def limit(self) -> int:
        """About two thirds of what all calls would cost."""
        return self.processes * self.calls * MOST // 3


@dataclass
class Outcome:
    """What came of it."""

    wrong: list[str] = field(default_factory=list)
    """What store and logs do not agree on."""
    over: int = 0
    """The most that was ever committed above the limit, nanodollars."""
    admitted: int = 0
    refused: int = 0
    orphans: int = 0
    kills: int = 0
    errors: int = 0
    """Steps that ended in StoreError."""
    seconds: float = 0.0


def run(setup: Setup) -> Outcome:
    """Do it in a process of its own, which may fork."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.processor.budgets.many", json.dumps(asdict(setup))],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=on_path(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Outcome(**json.loads(done.stdout))


def work(setup: Setup, slot: int) -> None:
    """The calls of one process, from where its log ends."""
    path = Path(setup.folder) / f"{slot}.log"
    began = path.read_text().count("r ") if path.exists() else 0
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(*words: object) -> None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())

    chance = random.Random(os.getpid())
    store = open_store(setup.url)
    claims = (Claim(LIMITED, setup.limit), Claim(WHOLE))
    for number in range(began, setup.calls):
        key, estimate = f"{slot}-{number}", chance.randint(1, MOST)
        actual = estimate if setup.exact else chance.randint(estimate // 2, estimate + EXCESS)
        note("r", key, estimate)
        try:
            admitted = store.reserve(key, estimate, claims, setup.hold_seconds).admitted
        except StoreError:
            note("e", key)
            continue
        note("a" if admitted else "x", key)
        if admitted:
            note("s", key, actual)
            while True:
                try:
                    store.settle([Settlement(key, actual, claims)])
                    break
                except StoreError:
                    note("e", key)
            note("d", key)
    os._exit(0)


def spend(setup: Setup) -> Outcome:
    """Keep the processes going until all calls are made; kill one of them now and then."""
    outcome = Outcome()
    # Before any fork, so that what it imports is imported once.
    watch = open_store(setup.url)
    running: dict[int, int] = {}

    def start(slot: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                work(setup, slot)
            finally:
                os._exit(1)
        running[pid] = slot

    started = time.monotonic()
    for slot in range(setup.processes):
        start(slot)
    killing = time.monotonic() + setup.kill_seconds
    while running:
        time.sleep(0.02)
        if time.monotonic() >= killing and running:
            os.kill(random.choice(list(running)), signal.SIGKILL)
            killing += setup.kill_seconds
            outcome.kills += 1
        for pid, slot in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                if os.WIFSIGNALED(status):
                    start(slot)
                elif status:
                    outcome.wrong.append(f"process {slot} failed")
        outcome.over = max(outcome.over, _over(watch, setup))
    outcome.seconds = time.monotonic() - started
    _compare(watch, setup, outcome)
    outcome.over = max(outcome.over, _over(watch, setup))
    return outcome


def _balance(store: Store, account: str) -> Balance:
    while True:
        try:
            return store.read([Claim(account)]).balances[account]
        except StoreError:
            pass


def _over(store: Store, setup: Setup) -> int:
    spent, held, _ = _balance(store, LIMITED)
    return spent + held - setup.limit


def _compare(store: Store, setup: Setup, outcome: Outcome) -> None:
    """Each call by its log and by the store; the sums to the nanodollar; then once more when all holds have expired."""
    estimates: dict[str, int] = {}
    actuals: dict[str, int] = {}
    last: dict[str, str] = {}
    for path in Path(setup.folder).glob("*.log"):
        for line in path.read_text().splitlines():
            word, key, *amount = line.split(" ")
            if word == "e":
                outcome.errors += 1
                continue
            last[key] = word
            if word == "r":
                estimates[key] = int(amount[0])
            elif word == "s":
                actuals[key] = int(amount[0])
    calls = setup.processes * setup.calls
    if len(last) != calls:
        outcome.wrong.append(f"{len(last)} calls, not {calls}")
    waiting = {hold.key: hold.amount for hold in store.holds()}
    settled = 0
    for key, word in last.items():
        held = waiting.get(key)
        # Killed between two lines, a call may have done what comes between them, or not.
        either = held is None or held == estimates[key]
        if not {"r": either, "s": either, "a": held == estimates[key]}.get(word, held is None):
            outcome.wrong.append(f"{key} ended with {word!r} and is held: {held}")
        if word in "sd" and held is None:
            settled += actuals[key]
    outcome.admitted = sum(word in "asd" for word in last.values())
    outcome.refused = sum(word == "x" for word in last.values())
    outcome.orphans = len(waiting)
    orphaned = sum(waiting.values())
    for account in (LIMITED, WHOLE):
        spent, held, unsettled = _balance(store, account)
        if (spent - unsettled, held + unsettled) != (settled, orphaned):
            outcome.wrong.append(f"{account}: {spent} ({unsettled}) spent, {held} held; logs: {settled}, {orphaned}")
    time.sleep(setup.hold_seconds + 0.1)
    for account in (LIMITED, WHOLE):
        if _balance(store, account) != (settled + orphaned, 0, orphaned):
            outcome.wrong.append(f"{account}: {_balance(store, account)} after all; logs: {settled}, {orphaned}")
    if {hold.key for hold in store.holds() if hold.expired} != waiting.keys():
        outcome.wrong.append("the holds that expired are others")


if __name__ == "__main__":
    print(json.dumps(asdict(spend(Setup(**json.loads(sys.argv[1]))))))
