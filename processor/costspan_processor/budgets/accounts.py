"""The accounts as the guard sees them: no step of them raises, and no settlement waits for a database.

Where the store does I/O, settlements go to a queue, and one thread writes them, keeps the holds of calls under way
alive, reads the balances for the gauges, and sends again what the store missed while it was away.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
import uuid
import weakref
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.store import Answer, Balance, Claim, Settlement, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    from costspan_processor.budgets.model import OnStoreError, Reason
    from costspan_processor.budgets.store import Store

_log = logging.getLogger("costspan.budgets")

HOLD_SECONDS: Final = 600.0
"""How long the hold of a call lives when its process has died: longer than the time-outs of the providers' SDKs."""
RETRY_SECONDS: Final = 2.0
"""How long a store that failed is left alone."""
REFRESH_SECONDS: Final = 1.0
STALE_SECONDS: Final = 60.0
"""Balances older than this are shown to nobody."""
_LINGER_SECONDS: Final = 0.02
"""How long a settlement may wait for others, to be written together with them."""
_BATCH: Final = 200
_KNOWN: Final = 10_000
_EMPTY: Final = Balance(0, 0, 0)
_EXIT_SECONDS: Final = 2.0
_WAITING: Final = 50_000
"""Settlements that wait in memory, at most, where somebody waits for them."""

_open: weakref.WeakSet[Accounts] = weakref.WeakSet()
"""Those with a thread."""


class Request(NamedTuple):
    """What a call asks of one budget."""

    claim: Claim
    on_store_error: OnStoreError
    until: float
    """Unix seconds at which the account's period ends."""


class Verdict(NamedTuple):
    """What became of a reservation."""

    refused: int | None
    """Which request had no room."""
    reason: Reason
    balances: Sequence[Balance]
    """Of the requests, in their order, after the step: as last known, where the store does not answer."""


class Accounts:
    """A store, with what it takes to live with it.

    on_balances: told the balances that the thread has brought, by account; those of a settlement that is written at
        once are its answer.
    watched: the claims whose balances are looked at regularly.
    failed: where errors of ours go.
    journal: folder that keeps, while the store is away, what it has missed; None keeps it in memory alone.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_balances: Callable[[dict[str, Balance]], None],
        watched: Callable[[], Sequence[Request]],
        failed: Callable[[str, BaseException], None],
        journal: Path | None = None,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self.store: Final = store
        self._in_memory: Final[bool] = store.local
        self._on_balances = on_balances
        self._watched = watched
        self._failed = failed
        self._folder = journal
        self._hold_seconds = hold_seconds
        self._begin()

    def _begin(self) -> None:
        self._owner = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._queue: deque[Settlement] = deque()
        self._writing = 0
        self._live: dict[str, None] = {}
        self._known: OrderedDict[str, tuple[Balance, float]] = OrderedDict()
        self._epoch: str | None = None
        self._new_epoch: str | None = None
        self._owners = 1
        self._down_until = 0.0
        self._local: MemoryStore | None = None
        self._journal: TextIO | None = None
        self._owes = True
        """Whether there may be a journal that the store has not been told of."""
        self._has_kept = False
        """Whether some of what is in it is our own."""
        self.looked_at = 0.0
        """When the balances were last read, monotonic seconds."""
        self.failures = 0
        """Steps that the store has failed at."""

    # ---------------------------------------------------------------- before a call

    def reserve(self, key: str, amount: int, requests: Sequence[Request]) -> Verdict:
        """Hold `amount` in all accounts or in none."""
        if self._in_memory:
            claims = [request[0] for request in requests]
            _, refused_by, balances, _ = self.store.reserve(key, amount, claims, self._hold_seconds)
            refused = None if refused_by is None else [claim[0] for claim in claims].index(refused_by)
            return Verdict(refused, "limit", [balances[claim[0]] for claim in claims])
        if time.monotonic() >= self._down_until:
            claims = [request.claim for request in requests]
            try:
                # What this process has spent counts before it asks for more.
                with self._taken() as ended:
                    answer = self.store.reserve(key, amount, claims, self._hold_seconds, ended)
            except Exception as error:  # noqa: BLE001  a client library may raise anything
                self._fell(error)
            else:
                return self._reserved(key, requests, answer)
        return self._reserve_locally(key, amount, requests)

    async def areserve(self, key: str, amount: int, requests: Sequence[Request]) -> Verdict:
        """`reserve` on an event loop."""
        if self._in_memory:
            return self.reserve(key, amount, requests)
        if time.monotonic() >= self._down_until:
            claims = [request.claim for request in requests]
            try:
                with self._taken() as ended:
                    answer = await self.store.areserve(key, amount, claims, self._hold_seconds, ended)
            except Exception as error:  # noqa: BLE001
                self._fell(error)
            else:
                return self._reserved(key, requests, answer)
        return self._reserve_locally(key, amount, requests)

    def _reserved(self, key: str, requests: Sequence[Request], answer: Answer) -> Verdict:
        self._saw(answer, requests)
        balances = [answer.balances[request.claim.account] for request in requests]
        if answer.refused_by is not None:
            for index, request in enumerate(requests):
                if request.claim.account == answer.refused_by:
                    return Verdict(index, "limit", balances)
        self._live[key] = None
        self._start()
        return Verdict(None, "limit", balances)

    def _reserve_locally(self, key: str, amount: int, requests: Sequence[Request]) -> Verdict:
        """Decide by what this process knows: its part of what was left when the store was last heard."""
        balances = [self.balance(request.claim) or _EMPTY for request in requests]
        claims = []
        for index, request in enumerate(requests):
            most = request.claim.most
            if most is None or request.on_store_error == "allow":
                claims.append(Claim(request.claim.account))
                continue
            known = self.balance(request.claim)
            if request.on_store_error == "deny" or known is None:
                return Verdict(index, "store", balances)
            left = max(0, most - known.spent - known.held)
            claims.append(Claim(request.claim.account, left // max(1, self._owners)))
        with self._lock:
            local = self._local
            if local is None:
                local = self._local = MemoryStore()
        answer = local.reserve(key, amount, claims, self._hold_seconds)
        self._start()
        if answer.refused_by is not None:
            return Verdict([claim.account for claim in claims].index(answer.refused_by), "store", balances)
        return Verdict(None, "store", balances)

    # ---------------------------------------------------------------- after a call

    def settle(self, settlement: Settlement) -> Mapping[str, Balance] | None:
        """Write what a call cost. The balances after it, where they are known at once."""
        if self._in_memory:
            balances: Mapping[str, Balance] = self.store.settle((settlement,))[0].balances
            return balances
        self._live.pop(settlement.key, None)
        local = self._local
        if local is not None:
            local.settle((settlement,))
        self._queue.append(settlement)
        self._start()
        self._wake.set()
        return None

    async def asettle(self, settlements: Sequence[Settlement]) -> list[Mapping[str, Balance]] | None:
        """Write what calls cost on an event loop, and return once it would outlive this process.

        The balances after each; None where the store is away and the journal has it. Raises StoreError where neither
        takes it: it waits in memory then, and does no harm if it comes again.
        """
        if self._in_memory:
            return [answer.balances for answer in self.store.settle(settlements)]
        import asyncio  # not for those who have no event loop

        if time.monotonic() >= self._down_until:
            try:
                return await asyncio.to_thread(self._settle_now, settlements)
            except Exception as error:  # noqa: BLE001  a client library may raise anything
                self._fell(error)
        if len(self._queue) < _WAITING:
            for settlement in settlements:
                self.settle(settlement)
            until = time.monotonic() + _EXIT_SECONDS
            while time.monotonic() < until:
                if not self._queue and not self._writing:
                    return None
                await asyncio.sleep(_LINGER_SECONDS / 2)
        raise StoreError(f"neither the store of the budgets nor a journal in {self._folder} takes what calls have cost")

    def _settle_now(self, settlements: Sequence[Settlement]) -> list[Mapping[str, Balance]]:
        answers = self.store.settle(settlements)
        if self._down_until:
            self._rose()
        self._wrote(answers)
        self._start()
        return [answer.balances for answer in answers]

    def look(self) -> None:
        """Read the balances that are watched. Does I/O, unless the store does none."""
        requests = self._watched()
        answer = self.store.read([request.claim for request in requests])
        self._saw(answer, requests)
        self.looked_at = time.monotonic()
        self._on_balances(dict(answer.balances))

    def balance(self, claim: Claim) -> Balance | None:
        """What is known of an account, without I/O; None if nothing is."""
        if self._in_memory:
            balance: Balance = self.store.read((claim,)).balances[claim.account]
            return balance
        known = self._known.get(claim.account)
        return None if known is None else known[0]

    def begin(self) -> None:
        """Let the thread begin now, and not at the first call."""
        if not self._in_memory:
            self._start()
            self._wake.set()

    def flush(self, timeout: float = 10.0) -> bool:
        """Have everything written that waits. False if it was not in `timeout` seconds."""
        until = time.monotonic() + timeout
        while self._queue or self._writing or self._has_kept:
            self._start()
            self._wake.set()
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        return True

    def finish(self) -> None:
        """Before the process ends: write what waits, to the journal if it must be."""
        if not self.flush(_EXIT_SECONDS):
            self._keep()

    def close(self) -> None:
        """Write what waits, and stop."""
        self.finish()
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)
        self._leave_journal()
        self.store.close()

    def after_fork(self) -> None:
        """In a forked child: the parent writes what it owes; its thread and its holds are not ours."""
        known = self._known
        self.store.after_fork()
        self._leave_journal()
        self._begin()
        self._known = known

    # ---------------------------------------------------------------- the store's own

    def _saw(self, answer: Answer, requests: Sequence[Request]) -> None:
        """Remember what an answer tells."""
        if self._down_until:
            self._rose()
        if not self._is_same(answer.epoch):
            return
        known = self._known
        for request in requests:
            account = request.claim.account
            known[account] = answer.balances[account], request.until
        if len(known) > _KNOWN:
            with self._lock:
                while len(known) > _KNOWN:
                    known.popitem(last=False)

    def _is_same(self, epoch: str) -> bool:
        """Whether this is the store that we know; what one that has begun anew says is not to be remembered yet."""
        if self._epoch is None:
            self._epoch = epoch
        if self._epoch == epoch:
            return True
        self._new_epoch = epoch
        self._wake.set()
        return False

    def _fell(self, error: BaseException) -> None:
        self.failures += 1
        with self._lock:
            first = not self._down_until
            self._down_until = time.monotonic() + RETRY_SECONDS
        if first:
            _log.warning("the store of the budgets does not answer: %s", error)
        if not isinstance(error, StoreError):
            self._failed("budgets.store", error)

    def _rose(self) -> None:
        with self._lock:
            self._down_until = 0.0
            self._local = None
        _log.warning("the store of the budgets answers again")

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            with self._lock:
                if self._thread is None:
                    _open.add(self)
                    self._thread = threading.Thread(target=self._work, name="costspan-budgets", daemon=True)
                    self._thread.start()

    def _work(self) -> None:
        renewed = looked = float("-inf")
        while not self._closed:
            self._wake.wait(REFRESH_SECONDS)
            self._wake.clear()
            if self._queue:
                time.sleep(_LINGER_SECONDS)
            now = time.monotonic()
            try:
                if now < self._down_until:
                    self._keep()
                    continue
                if self._owes:
                    self._replay()
                self._write()
                if self._new_epoch is not None:
                    self._restore(self._new_epoch)
                if now >= renewed + self._hold_seconds / 3:
                    renewed = now
                    self._owners = self.store.renew(self._owner, list(self._live), self._hold_seconds)
                if now >= looked + REFRESH_SECONDS or self._down_until:
                    looked = now
                    self.look()
            except Exception as error:  # noqa: BLE001  the thread must live
                self._fell(error)

    @contextmanager
    def _taken(self, at_most: int = _BATCH) -> Iterator[list[Settlement]]:
        """The settlements to write next, which wait again if that fails or is broken off; others may write others."""
        with self._lock:
            batch = [self._queue.popleft() for _ in range(min(at_most, len(self._queue)))]
            self._writing += len(batch)
        try:
            yield batch
        except BaseException:
            with self._lock:
                self._queue.extendleft(reversed(batch))
            raise
        finally:
            with self._lock:
                self._writing -= len(batch)

    def _write(self) -> None:
        """Send what waits, as much as can be in one step."""
        while self._queue:
            with self._taken() as batch:
                answers = self.store.settle(batch) if batch else []
                # Inside, since who waits for what was written waits for what there is to tell of it, too.
                self._wrote(answers)

    def _wrote(self, answers: Sequence[Answer]) -> None:
        """Remember and tell what settlements have brought."""
        balances: dict[str, Balance] = {}
        for answer in answers:
            balances.update(answer.balances)
        if answers and self._is_same(answers[-1].epoch):
            for account, balance in balances.items():
                if (known := self._known.get(account)) is not None:
                    self._known[account] = balance, known[1]
            try:
                self._on_balances(balances)
            except Exception as error:  # noqa: BLE001  they are written all the same
                self._failed("budgets.events", error)

    def _restore(self, epoch: str) -> None:
        """The store has begun anew: tell it what had been spent, as far as we know."""
        now = self.store.now()
        known = {account: balance.spent for account, (balance, until) in list(self._known.items()) if until > now}
        self.store.restore(epoch, known)
        self._epoch, self._new_epoch = epoch, None
        _log.warning("the store of the budgets had lost its balances; %d of them were restored", len(known))

    # ---------------------------------------------------------------- while the store is away

    def _keep(self) -> None:
        """Write what waits to the journal, so that it outlives this process, and leaves its memory."""
        if self._folder is None or not self._queue:
            return
        try:
            with self._taken(_WAITING) as batch:
                if self._journal is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._journal = _new_journal(self._folder)
                self._owes = self._has_kept = True
                # What was broken off before must not have its end in the next line.
                self._journal.write("".join(f"\n{json.dumps(settlement)}" for settlement in batch))
                self._journal.flush()
        except OSError as error:
            self._leave_journal()
            self._failed("budgets.journal", error)

    def _leave_journal(self) -> None:
        """Write no more to it; whoever looks for what is owed finds it."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with suppress(OSError):
                journal.close()

    def _replay(self) -> None:
        """Tell the store what is in journals: ours, and those of processes that ended while it was away."""
        self._leave_journal()
        for file in sorted(self._folder.glob("*.jsonl")) if self._folder is not None else ():
            with suppress(FileNotFoundError), file.open("r+", encoding="utf-8") as journal:
                if not _is_ours(journal):
                    continue  # somebody who lives writes it
                settlements = list(_read_journal(journal))
                for start in range(0, len(settlements), _BATCH):
                    self.store.settle(settlements[start : start + _BATCH])
                file.unlink()
        self._owes = self._has_kept = False


def _new_journal(folder: Path) -> TextIO:
    """A journal that is locked as long as it is open, by which others know that its process lives."""
    while True:
        journal = (folder / f"{uuid.uuid4().hex}.jsonl").open("x", encoding="utf-8")
        # Somebody may have found it, and taken it away, before it was locked.
        if _is_ours(journal) and os.fstat(journal.fileno()).st_nlink:
            return journal
        journal.close()


def _is_ours(journal: TextIO) -> bool:
    """Locks a file; False if somebody else has."""
    try:
        import fcntl
    except ImportError:  # Windows lets nobody delete what somebody has open, which is told twice then
        return True
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_journal(journal: Iterable[str]) -> Iterator[Settlement]:
    """The settlements in a journal. A line may have been cut off when its process died."""
    for line in journal:
        with suppress(ValueError, TypeError):
            key, amount, claims = json.loads(line)
            of = tuple(Claim(account, most, tuple(also), until) for account, most, also, until in claims)
            yield Settlement(key, amount, of)


@atexit.register
def _finish() -> None:
    for accounts in list(_open):
        accounts.finish()
