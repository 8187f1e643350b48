"""What every store of budgets does, and how it is asked: the one narrow interface of memory, file and server.

A store keeps the money of *accounts*: a budget in one period is an account, and nothing is ever reset, since the next
period is another one. Amounts are integer nanodollars, which databases and Lua count exactly.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RECORDS_SECONDS: Final = 90 * 86400
"""How long records are kept."""
REMEMBERED_SECONDS: Final = 48 * 3600
"""How long a key is remembered after it was settled, so that a late repeat changes nothing."""


class StoreError(Exception):
    """The store cannot be reached, or cannot write. Nothing is known about whether the step was done."""


class Claim(NamedTuple):
    """What a call asks of one account."""

    account: str
    most: int | None = None
    """What spent and held together may come to with this call, nanodollars; None: this account refuses nothing."""
    also: tuple[str, ...] = ()
    """Other accounts whose money counts as well: the older buckets of a rolling window."""
    keep_until: int = 0
    """Unix seconds until which the account is kept, whatever it holds; 0: for ever."""


class Settlement(NamedTuple):
    """The end of a call: what it cost takes the place of its hold, or is charged if there is no hold."""

    key: str
    amount: int
    """Nanodollars; 0 releases the hold."""
    claims: tuple[Claim, ...] = ()
    """Where to charge it if the store holds nothing under the key; empty: nowhere."""


class Balance(NamedTuple):
    """The money of an account, nanodollars. For a claim: its own and that of the accounts in `also`."""

    spent: int
    held: int
    """Reserved by calls under way; each hold becomes spent at its estimate when it expires."""
    unsettled: int
    """The part of `spent` that is the estimates of holds which expired and were never settled."""


class Answer(NamedTuple):
    """What a store says to a step, after it."""

    admitted: bool
    refused_by: str | None
    """The account of the first claim that had no room."""
    balances: Mapping[str, Balance]
    """By account of the claims."""
    epoch: str
    """Another one means that the store has begun anew, with nothing of what it knew."""


def together(claim: Claim, balances: Mapping[str, Balance]) -> Balance:
    """The balance of a claim, by those of its accounts."""
    if not claim.also:
        return balances[claim.account]
    spent, held, unsettled = map(sum, zip(*(balances[name] for name in (claim.account, *claim.also)), strict=True))
    return Balance(spent, held, unsettled)


@lru_cache(1024)
def packed(names: tuple[str, ...]) -> str:
    """Names of accounts as databases keep them."""
    return json.dumps(names)


class Hold(NamedTuple):
    """Money that is reserved for a call under way, or was and has not been settled."""

    key: str
    amount: int
    accounts: tuple[str, ...]
    expires: float
    """Unix seconds, by the store's clock."""
    expired: bool
    """It was charged at its estimate, and a settlement would still replace that."""


class Record(NamedTuple):
    """Something that happened to a budget, kept so that it is told once and can be acknowledged."""

    id: str
    text: str
    """JSON."""
    at: float
    """Unix seconds."""
    acknowledged_by: str = ""


class Store(Protocol):
    """Where accounts live. Every method is one atomic step, and raises StoreError where it cannot be made.

    `reserve` and `settle` are idempotent by their key: a key that was settled changes nothing for
    `REMEMBERED_SECONDS`, one that is held is answered as before. Safe for threads, and after a fork. The store's own
    clock decides when a hold expires; an expired hold is charged at its estimate, by whatever step comes next.
    """

    @property
    def local(self) -> bool:
        """Whether a step does no I/O, so that it may be made anywhere."""
        ...

    def now(self) -> float:
        """Unix seconds by the store's clock, as far as known without asking it: no I/O."""
        ...

    def reserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        """Hold `amount` for `ttl` seconds in all accounts, or in none if one has no room.

        The calls of `first` are ended before, in the same step.

        A call that costs nothing is never refused, not even by an account that is overspent.
        """
        ...

    async def areserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        """`reserve` on an event loop, which it does not block."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        """End these calls, in order. A hold is replaced in its own accounts, one that had expired too.

        An actual above the limit is recorded, never cut. The balances are those of the settlement's claims.
        """
        ...

    def renew(self, owner: str, keys: Sequence[str], ttl: float) -> int:
        """Let holds that have not expired live `ttl` seconds from now.

        `owner` is the process that asks; returns how many have asked within their last `ttl`, this one included.
        """
        ...

    def read(self, claims: Iterable[Claim]) -> Answer:
        """Balances, expired holds already charged; zero for an account that nothing has touched."""
        ...

    def restore(self, epoch: str, known: Mapping[str, int]) -> None:
        """Tell a store that has begun anew what had been spent: nanodollars by account, as last seen by the caller.

        Of what several callers tell, the highest counts, once, beside what is spent in this epoch; what comes from
        another epoch than `epoch` changes nothing.
        """
        ...

    def accounts(self, prefix: str) -> Mapping[str, Balance]:
        """The accounts that begin so."""
        ...

    def holds(self) -> list[Hold]:
        """Holds that wait to be settled, the oldest first; expired ones until their accounts go."""
        ...

    def post(self, record: Record) -> bool:
        """Keep a record, unless one with its id is there: True if it is new."""
        ...

    def records(self) -> list[Record]:
        """Records, the newest first; they are kept for 90 days."""
        ...

    def acknowledge(self, record_id: str, by: str) -> bool:
        """Note who has seen to it; False if there is no such record."""
        ...

    def after_fork(self) -> None:
        """In a forked child: connections, locks and threads of the parent are not ours."""
        ...

    def close(self) -> None:
        """Give back connections and files."""
        ...
