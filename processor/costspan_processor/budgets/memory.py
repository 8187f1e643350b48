"""The accounts of one process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.budgets.store import Answer, Balance, Claim, Hold, Record, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_REMEMBERED: Final = 4096
"""Keys of finished calls kept for idempotency. Within one process a repeat comes at once or never."""
_RECORDS: Final = 1000
_SWEEP_SECONDS: Final = 3600
_EPOCH: Final = "memory"
_NEVER: Final = float("inf")
_new: Final[Any] = tuple.__new__


class _Account:
    __slots__ = ("floor", "held", "keep_until", "name", "spent", "unsettled")

    def __init__(self, name: str, keep_until: int) -> None:
        self.name = name
        self.spent = self.held = self.unsettled = 0
        self.floor = 0
        """What `restore` has added to `spent`."""
        self.keep_until = keep_until


_Hold = tuple[int, list[_Account], float]
"""Amount, accounts, and when it expires."""


class MemoryStore:
    """The accounts of one process, gone when it ends. Safe for threads and for asyncio: a step takes microseconds.

    clock: unix seconds; by default time goes on steadily for holds, whatever happens to the machine's clock.
    """

    local = True

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.now: Callable[[], float] = clock or time.time
        self._clock = clock or time.monotonic
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._holds: dict[str, _Hold] = {}
        self._due = _NEVER
        """No hold expires before."""
        self._expired: OrderedDict[str, _Hold] = OrderedDict()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._owners: dict[str, float] = {}
        self._swept = self.now()

    def reserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        with self._lock:
            now = self._clock()
            if now >= self._due:
                self._expire(now)
            for settlement in first:
                self._settle(settlement)
            if key in self._holds or key in self._expired or key in self._done:
                return self._answer(claims)
            accounts = []
            for claim in claims:
                name, most, also, _ = claim
                account = self._accounts.get(name) or self._account(claim)
                if most is not None and amount:
                    used = account.spent + account.held + amount
                    if also:
                        used += sum(self._balance(also)[:2])
                    if used > most:
                        return self._answer(claims, name)
                accounts.append(account)
            for account in accounts:
                account.held += amount
            expires = now + ttl
            self._holds[key] = amount, accounts, expires
            self._due = min(self._due, expires)
            return self._answer(claims)

    async def areserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        return self.reserve(key, amount, claims, ttl, first)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        with self._lock:
            self._expire_due()
            answers = []
            for settlement in settlements:
                self._settle(settlement)
                answers.append(self._answer(settlement.claims))
            return answers

    def renew(self, owner: str, keys: Sequence[str], ttl: float) -> int:
        with self._lock:
            self._expire_due()
            now = self._clock()
            for key in keys:
                if (hold := self._holds.get(key)) is not None:
                    amount, accounts, expires = hold
                    self._holds[key] = amount, accounts, max(expires, now + ttl)
            self._owners[owner] = now + ttl
            self._owners = {name: until for name, until in self._owners.items() if until > now}
            return len(self._owners)

    def read(self, claims: Iterable[Claim]) -> Answer:
        with self._lock:
            self._expire_due()
            return self._answer(tuple(claims))

    def restore(self, epoch: str, known: Mapping[str, int]) -> None:
        if epoch != _EPOCH:
            return
        with self._lock:
            for name, spent in known.items():
                account = self._accounts.get(name) or self._account(Claim(name))
                more = max(0, spent - account.floor)
                account.floor += more
                account.spent += more

    def accounts(self, prefix: str) -> Mapping[str, Balance]:
        with self._lock:
            self._expire_due()
            return {name: self._balance((name,)) for name in self._accounts if name.startswith(prefix)}

    def holds(self) -> list[Hold]:
        with self._lock:
            self._expire_due()
            ahead = self.now() - self._clock()
            return [
                Hold(key, amount, tuple([account.name for account in accounts]), expires + ahead, expired)
                for held, expired in ((self._expired, True), (self._holds, False))
                for key, (amount, accounts, expires) in held.items()
            ]

    def post(self, record: Record) -> bool:
        with self._lock:
            if record.id in self._records:
                return False
            self._records[record.id] = record
            if len(self._records) > _RECORDS:
                self._records.popitem(last=False)
            return True

    def records(self) -> list[Record]:
        with self._lock:
            return list(reversed(self._records.values()))

    def acknowledge(self, record_id: str, by: str) -> bool:
        with self._lock:
            record = self._records.get(record_id)
            if record is not None:
                self._records[record_id] = record._replace(acknowledged_by=by)
            return record is not None

    def after_fork(self) -> None:
        """In a forked child: keep what was spent, forget the parent's holds, which the parent will settle."""
        self._lock = threading.Lock()
        self._holds.clear()
        self._expired.clear()
        for account in self._accounts.values():
            account.held = 0
        self._due = _NEVER

    def close(self) -> None:
        pass

    def _settle(self, settlement: Settlement) -> None:
        key, amount, claims = settlement
        if (hold := self._holds.pop(key, None)) is not None:
            for account in hold[1]:
                account.held -= hold[0]
                account.spent += amount
        elif (hold := self._expired.pop(key, None)) is not None:
            for account in hold[1]:
                account.unsettled -= hold[0]
                account.spent += amount - hold[0]
        elif key in self._done:
            return
        else:
            for claim in claims:
                (self._accounts.get(claim.account) or self._account(claim)).spent += amount
        self._done[key] = None
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    def _expire_due(self) -> None:
        now = self._clock()
        if now >= self._due:
            self._expire(now)

    def _expire(self, now: float) -> None:
        """Charge the holds that are over at their estimates."""
        for key, hold in sorted(self._holds.items(), key=lambda item: item[1][2]):
            amount, accounts, expires = hold
            if expires > now:
                break
            del self._holds[key]
            for account in accounts:
                account.held -= amount
                account.spent += amount
                account.unsettled += amount
            self._expired[key] = hold
            if len(self._expired) > _REMEMBERED:
                self._expired.popitem(last=False)
        self._due = min((expires for _, _, expires in self._holds.values()), default=_NEVER)

    def _account(self, claim: Claim) -> _Account:
        self._sweep()
        account = self._accounts[claim.account] = _Account(claim.account, claim.keep_until)
        return account

    def _sweep(self) -> None:
        """Forget the accounts whose time is over, once an hour at most."""
        now = self.now()
        if now < self._swept + _SWEEP_SECONDS:
            return
        self._swept = now
        waiting = {
            id(account) for held in (self._holds, self._expired) for hold in held.values() for account in hold[1]
        }
        for name, account in list(self._accounts.items()):
            if 0 < account.keep_until < now and id(account) not in waiting:
                del self._accounts[name]

    def _balance(self, names: Iterable[str]) -> Balance:
        found = [account for name in names if (account := self._accounts.get(name)) is not None]
        return Balance(
            sum(account.spent for account in found),
            sum(account.held for account in found),
            sum(account.unsettled for account in found),
        )

    def _answer(self, claims: Sequence[Claim], refused_by: str | None = None) -> Answer:
        balances = {}
        for name, _, also, _ in claims:
            account = self._accounts.get(name)
            if also or account is None:
                balances[name] = self._balance((name, *also))
            else:
                # Made by `tuple` itself, a named tuple costs a third.
                balances[name] = _new(Balance, (account.spent, account.held, account.unsettled))
        answer: Answer = _new(Answer, (refused_by is None, refused_by, balances, _EPOCH))
        return answer
