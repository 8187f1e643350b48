"""Limits on spending that hold: an estimate is reserved before the call, the actual settled after it.

A `Store` keeps the money: for each account (a budget in one period) what is spent and what is held. Its four mutations
are idempotent by key, and nothing is ever reset: a new period is a new account. Stores count integer nanodollars, since
they will also be databases; holds are rounded up, actuals half-even, once.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from opentelemetry.metrics import Observation

from costspan_pricing import Usage
from costspan_processor import conventions
from costspan_processor.attribution import KEYS
from costspan_processor.enrich import card_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import PriceBook
    from costspan_processor.attribution import Attribution
    from costspan_processor.conventions import Plain
    from costspan_processor.enrich import Priced
    from costspan_processor.metrics import Table

_log = logging.getLogger("costspan.budgets")

NANO: Final = 10**9
HOLD_SECONDS: Final = 600.0
"""How long a call may take before its hold counts as spent: longer than the time-outs of the providers' SDKs."""
ASSUMED_OUTPUT_TOKENS: Final = 1024
CHARACTERS_PER_TOKEN: Final = 4

Status = Literal["ok", "warning", "exceeded", "refused"]

_SCOPE_KEYS: Final = {
    **KEYS,
    "provider": conventions.PROVIDER,
    "model": conventions.REQUEST_MODEL,
    "operation": conventions.OPERATION,
    "service": "service.name",
}


class Period(NamedTuple):
    """A stretch of time that a limit holds for: `start` included, `end` not, in unix seconds."""

    id: str
    start: int
    end: int


def period_at(kind: Literal["day", "month"], at: float) -> Period:
    """The calendar day or month in UTC that contains `at` (unix seconds). Periods tile: no gap, no overlap."""
    moment = datetime.fromtimestamp(at, UTC)
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return Period(f"{start:%Y-%m-%d}", _seconds(start), _seconds(start + timedelta(days=1)))
    start = start.replace(day=1)
    # Day 1 and 32 days on is always in the next month.
    return Period(f"{start:%Y-%m}", _seconds(start), _seconds((start + timedelta(days=32)).replace(day=1)))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what calls in a scope may cost in a period.

    `limit` is in USD: give a string or a Decimal for an exact figure. `scope` names whose calls count: attribution
    (`team`, `feature`, `user`, ...; any other name is a tag), `provider`, `model`, `operation`, `service`, or a span
    attribute by its full name; a call must match all of it, and an empty scope matches every call. `period` is a
    calendar month or day in UTC. `thresholds` are percent of the limit: crossing one is logged once a period. `policy`:
    `warn` only tells, `block` refuses the call that would cross the limit. Raises ValueError naming the field.
    """

    name: str
    limit: Decimal
    scope: Mapping[str, str] = field(default_factory=dict)
    period: Literal["day", "month"] = "month"
    thresholds: tuple[int, ...] = (50, 75, 80, 90, 100)
    policy: Literal["warn", "block"] = "warn"

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            limit: Decimal | str | float,
            scope: Mapping[str, str] = ...,
            period: Literal["day", "month"] = ...,
            thresholds: Iterable[int] = ...,
            policy: Literal["warn", "block"] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        def refuse(what: str, value: object, wanted: str) -> ValueError:
            return ValueError(f"budget {self.name!r}: {what} must be {wanted}, not {value!r}")

        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a budget needs a name, not {self.name!r}")
        try:
            limit = Decimal(str(self.limit))
        except InvalidOperation:
            raise refuse("limit", self.limit, "an amount in USD") from None
        if isinstance(self.limit, bool) or not limit.is_finite() or limit <= 0:
            raise refuse("limit", self.limit, "an amount in USD above 0")
        if self.period not in {"day", "month"}:
            raise refuse("period", self.period, "'day' or 'month'")
        if self.policy not in {"warn", "block"}:
            raise refuse("policy", self.policy, "'warn' or 'block'")
        thresholds = tuple(sorted(self.thresholds))
        if any(isinstance(percent, bool) or not isinstance(percent, int) or percent <= 0 for percent in thresholds):
            raise refuse("thresholds", self.thresholds, "whole percentages above 0")
        scope = {_scope_key(key): str(value) for key, value in self.scope.items()}
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "thresholds", thresholds)
        object.__setattr__(self, "scope", MappingProxyType(scope))


def _scope_key(name: str) -> str:
    if "." in name:
        return name
    return _SCOPE_KEYS.get(name, f"costspan.tag.{name}")


class BudgetExceeded(Exception):  # noqa: N818  the word that users of budgets search for
    """A call was refused: it might have cost more than a blocking budget has left. The provider was not called.

    Amounts are in USD. `asked` is the estimate for the call, None where its model has no price.
    """

    def __init__(
        self,
        budget: str,
        limit: Decimal,
        spent: Decimal,
        held: Decimal,
        asked: Decimal | None,
        period_end: datetime,
        model: str | None = None,
    ) -> None:
        super().__init__(budget, limit, spent, held, asked, period_end, model)
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.held = held
        """Reserved by calls that are under way."""
        self.asked = asked
        self.period_end = period_end
        self.model = model

    def __str__(self) -> str:
        until = f"{self.period_end:%Y-%m-%d %H:%M} UTC"
        state = f"${_plain(self.spent)} spent and ${_plain(self.held)} held of ${_plain(self.limit)}"
        if self.asked is None:
            return (
                f"budget {self.budget!r} blocks model {self.model!r}, which has no price in the book: "
                f"add one, or let the budget warn ({state} until {until})"
            )
        asked = _plain(self.asked)
        return f"budget {self.budget!r} would be exceeded: {state}, this call may cost ${asked}; resets {until}"


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


class Claim(NamedTuple):
    """What a mutation asks of one account. Amounts in nanodollars."""

    account: str
    limit: int
    blocking: bool
    thresholds: tuple[int, ...]


class Balance(NamedTuple):
    """An account, in nanodollars."""

    spent: int
    held: int
    unsettled: int
    """The part of `spent` that is the estimates of holds which expired and were never settled."""


class Answer(NamedTuple):
    """What a store says to a mutation, after it."""

    admitted: bool
    refused_by: str | None
    """The account of the first claim that had no room."""
    balances: Mapping[str, Balance]
    crossed: tuple[tuple[str, int], ...]
    """Thresholds (account, percent) that this very step crossed: each is reported once in the life of an account."""


class Store(Protocol):
    """Where accounts live. Every method is one atomic step.

    Mutations are idempotent by their key: a second one with the same key changes nothing. A store's own clock decides
    when a hold expires; an expired hold is charged at its estimate.
    """

    local: bool
    """Whether a call does no I/O, so that it may be made anywhere."""

    def reserve(self, key: str, amount: int, claims: Sequence[Claim], ttl: float) -> Answer:
        """Hold `amount` in all accounts, or in none if one that blocks has no room. Nothing is held when refused."""
        ...

    def settle(self, key: str, actual: int) -> Answer:
        """Replace the hold (or the charge that its expiry made) by what was really spent, in the hold's accounts."""
        ...

    def release(self, key: str) -> Answer:
        """Drop the hold: nothing was spent."""
        ...

    def charge(self, key: str, amount: int, claims: Sequence[Claim]) -> Answer:
        """Spend without a hold: the call is over, so no limit refuses it."""
        ...

    def read(self, accounts: Iterable[str]) -> Mapping[str, Balance]:
        """Balances of these accounts, expired holds already charged; zero for one that nothing has touched."""
        ...


class _Account:
    __slots__ = ("crossed", "held", "limit", "spent", "thresholds", "unsettled")

    def __init__(self) -> None:
        self.spent = self.held = self.unsettled = 0
        self.limit = 0
        self.thresholds: tuple[int, ...] = ()
        self.crossed: set[int] = set()

    def balance(self) -> Balance:
        return Balance(self.spent, self.held, self.unsettled)


class _Hold:
    __slots__ = ("accounts", "amount", "expires")

    def __init__(self, amount: int, accounts: tuple[str, ...], expires: float) -> None:
        self.amount = amount
        self.accounts = accounts
        self.expires = expires


_REMEMBERED: Final = 4096
"""Keys of finished calls kept for idempotency. Within one process a repeat comes at once or never."""


class MemoryStore:
    """The accounts of one process, gone when it ends. Safe for threads and for asyncio: a step takes microseconds."""

    local = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        # In the order they were made. A hold behind one that lives longer expires with it: late, never early.
        self._holds: OrderedDict[str, _Hold] = OrderedDict()
        self._expired: OrderedDict[str, _Hold] = OrderedDict()
        self._done: OrderedDict[str, Answer] = OrderedDict()

    def reserve(self, key: str, amount: int, claims: Sequence[Claim], ttl: float) -> Answer:
        with self._lock:
            self._expire()
            if (before := self._done.get(key)) is not None:
                return before
            names = tuple(claim.account for claim in claims)
            held = self._holds.get(key) or self._expired.get(key)
            if held is not None:
                return self._answer(held.accounts)
            for claim in claims:
                account = self._account(claim)
                # A call that costs nothing is never refused, not even by a budget that is overspent.
                if claim.blocking and amount and account.spent + account.held + amount > claim.limit:
                    return Answer(False, claim.account, {name: self._balance(name) for name in names}, ())
            for name in names:
                self._accounts[name].held += amount
            self._holds[key] = _Hold(amount, names, self._clock() + ttl)
            return self._answer(names)

    def settle(self, key: str, actual: int) -> Answer:
        return self._finish(key, actual)

    def release(self, key: str) -> Answer:
        return self._finish(key, 0)

    def charge(self, key: str, amount: int, claims: Sequence[Claim]) -> Answer:
        with self._lock:
            self._expire()
            if (before := self._done.get(key)) is not None:
                return before
            for claim in claims:
                self._account(claim).spent += amount
            return self._remember(key, self._answer(tuple(claim.account for claim in claims)))

    def read(self, accounts: Iterable[str]) -> Mapping[str, Balance]:
        with self._lock:
            self._expire()
            return {name: self._balance(name) for name in accounts}

    def after_fork(self) -> None:
        """In a forked child: keep what was spent, forget the parent's holds, which the parent will settle."""
        self._lock = threading.Lock()
        self._holds.clear()
        self._expired.clear()
        for account in self._accounts.values():
            account.held = 0

    def _finish(self, key: str, actual: int) -> Answer:
        with self._lock:
            self._expire()
            if (hold := self._holds.pop(key, None)) is not None:
                for name in hold.accounts:
                    account = self._accounts[name]
                    account.held -= hold.amount
                    account.spent += actual
            elif (hold := self._expired.pop(key, None)) is not None:
                for name in hold.accounts:
                    account = self._accounts[name]
                    account.unsettled -= hold.amount
                    account.spent += actual - hold.amount
            else:
                return self._done.get(key, _NOTHING)
            return self._remember(key, self._answer(hold.accounts))

    def _expire(self) -> None:
        now = self._clock()
        while self._holds:
            key, hold = next(iter(self._holds.items()))
            if hold.expires > now:
                return
            del self._holds[key]
            for name in hold.accounts:
                account = self._accounts[name]
                account.held -= hold.amount
                account.spent += hold.amount
                account.unsettled += hold.amount
            self._expired[key] = hold
            if len(self._expired) > _REMEMBERED:
                self._expired.popitem(last=False)

    def _account(self, claim: Claim) -> _Account:
        account = self._accounts.get(claim.account)
        if account is None:
            account = self._accounts[claim.account] = _Account()
        account.limit = claim.limit
        account.thresholds = claim.thresholds
        return account

    def _balance(self, name: str) -> Balance:
        account = self._accounts.get(name)
        return Balance(0, 0, 0) if account is None else account.balance()

    def _answer(self, names: tuple[str, ...]) -> Answer:
        crossed: list[tuple[str, int]] = []
        for name in names:
            account = self._accounts[name]
            for percent in account.thresholds:
                if account.spent * 100 < account.limit * percent:
                    break
                if percent not in account.crossed:
                    account.crossed.add(percent)
                    crossed.append((name, percent))
        return Answer(True, None, {name: self._balance(name) for name in names}, tuple(crossed))

    def _remember(self, key: str, answer: Answer) -> Answer:
        # A repeat is told the same, but that its thresholds were crossed is news only once.
        self._done[key] = answer._replace(crossed=())
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        return answer


_NOTHING: Final = Answer(True, None, MappingProxyType({}), ())


class _Line(NamedTuple):
    """A budget in one period: everything that is the same for all calls until the period ends."""

    budget: Budget
    period: Period
    account: str
    claim: Claim


class Admission:
    """A call that was let through, until it is settled."""

    __slots__ = ("amount", "key", "lines", "sent")

    def __init__(self, key: str, lines: tuple[_Line, ...], amount: int, sent: int) -> None:
        self.key = key
        self.lines = lines
        self.amount = amount
        """The estimate, nanodollars."""
        self.sent = sent
        """The part of it that the prompt alone costs."""


class Guard:
    """Asks the budgets before a call and settles with them after it."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        book: PriceBook,
        store: Store | None = None,
        *,
        resource: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        """`resource` holds the attributes of this service, for scopes such as `service`; `clock` gives unix seconds."""
        names = [budget.name for budget in budgets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two budgets are named {name!r}")
        self._budgets = tuple(budgets)
        self._lines: tuple[_Line, ...] = ()
        self._book = book
        self.store: Final[Store] = MemoryStore() if store is None else store
        self._resource = resource or {}
        self._clock = clock
        self._hold_seconds = hold_seconds
        self._lock = threading.Lock()
        self._snapshot: dict[str, Balance] = {}
        self._decisions: dict[tuple[str, str], int] = {}
        self._ids = _ids()

    def admit(
        self, attributes: Mapping[str, Any], who: Attribution | None, characters: Callable[[], int]
    ) -> Admission | tuple[BudgetExceeded, dict[str, AttributeValue]] | None:
        """Reserve for a call that is about to be made; None if no budget is concerned.

        `attributes` are those of the request, `characters()` the length of the prompt's text. A refusal is the
        exception to raise and the attributes of the refused span.
        """
        matching = self._matching(attributes, who)
        if not matching:
            return None
        amount, sent = self._estimate(attributes, characters)
        if amount is None:
            for line in matching:
                if line.claim.blocking:
                    balance = self.store.read((line.account,))[line.account]
                    return self._refusal(line, balance, None, attributes)
        key = next(self._ids)
        answer = self.store.reserve(key, amount or 0, [line.claim for line in matching], self._hold_seconds)
        self._news(answer, matching)
        if (full := answer.refused_by) is not None:
            for line in matching:
                if line.account == full:
                    return self._refusal(line, answer.balances[full], amount, attributes)
        with self._lock:
            for line in matching:
                balance = answer.balances[line.account]
                over = balance.spent + balance.held > line.claim.limit
                said = (line.budget.name, "warned" if over else "allowed")
                self._decisions[said] = self._decisions.get(said, 0) + 1
        return Admission(key, matching, amount or 0, sent)

    def settle(self, admission: Admission, priced: Priced | Plain) -> dict[str, AttributeValue]:
        """Replace a call's hold by what it cost; returns the budget attributes of its span."""
        pico = priced.total
        error_type = priced.reading.kind.error_type
        if pico is not None:
            answer = self.store.settle(admission.key, _half_even(pico, 1000))
        elif error_type is None:
            # It was answered, so it was billed; the estimate is the best figure there is.
            answer = self.store.settle(admission.key, admission.amount)
        elif _may_have_been_billed(error_type):
            answer = self.store.settle(admission.key, admission.sent)
        else:
            answer = self.store.release(admission.key)
        self._news(answer, admission.lines)
        return self._attributes(admission.lines, answer)

    def charge(
        self,
        key: str,
        attributes: Mapping[str, Any],
        who: Attribution | None,
        priced: Priced | Plain,
    ) -> dict[str, AttributeValue]:
        """Charge a call that nobody asked about before it was made; `key` is its own (trace and span id)."""
        pico = priced.total
        matching = self._matching(attributes, who) if pico is not None else ()
        if not matching or pico is None:
            return {}
        answer = self.store.charge(key, _half_even(pico, 1000), [line.claim for line in matching])
        self._news(answer, matching)
        return self._attributes(matching, answer)

    def new_key(self) -> str:
        """A key for a charge that has none of its own."""
        return next(self._ids)

    def refresh(self) -> None:
        """Read the balances of the present periods from the store, for the gauges. May do I/O."""
        self._snapshot = dict(self.store.read([line.account for line in self._present()]))

    def after_fork(self) -> None:
        """In a forked child: own ids, own lock, and none of the parent's decisions."""
        self._lock = threading.Lock()
        self._decisions = {}
        self._ids = _ids()
        if isinstance(self.store, MemoryStore):
            self.store.after_fork()

    def instruments(self, table: Table) -> None:
        """Show the budgets as gauges on the meter of this generation of the table."""
        gauges: tuple[tuple[str, str, str, Callable[[_Line, Balance], float]], ...] = (
            ("limit", "USD", "Limit of the budget", lambda line, _: float(line.budget.limit)),
            ("spent", "USD", "Spent in the present period", lambda _, balance: balance.spent / NANO),
            ("held", "USD", "Reserved by calls under way", lambda _, balance: balance.held / NANO),
            ("remaining", "USD", "Limit less spent and held, never below 0",
             _remaining),
            ("utilization.ratio", "1", "Spent as a share of the limit", _used),
            ("period.start", "s", "Start of the present period, unix time", lambda line, _: line.period.start),
            ("period.end", "s", "End of the present period, unix time", lambda line, _: line.period.end),
        )  # fmt: skip
        for name, unit, description, value in gauges:
            table.meter.create_observable_gauge(
                f"costspan.budget.{name}", [table.observe(self._reader(value))], unit, description
            )
        table.meter.create_observable_counter(
            "costspan.budget.decisions",
            [table.observe(self._observe_decisions)],
            "{decision}",
            "What budgets said to calls: allowed, warned, refused",
        )

    def _reader(self, value: Callable[[_Line, Balance], float]) -> Callable[[], list[Observation]]:
        def read() -> list[Observation]:
            if self.store.local:
                self.refresh()
            observations = []
            for line in self._present():
                balance = self._snapshot.get(line.account)
                if balance is not None:
                    labels = {"costspan.budget.name": line.budget.name, "costspan.budget.period": line.period.id}
                    observations.append(Observation(value(line, balance), labels))
            return observations

        return read

    def _observe_decisions(self) -> list[Observation]:
        with self._lock:
            return [
                Observation(count, {"costspan.budget.name": name, "decision": decision})
                for (name, decision), count in self._decisions.items()
            ]

    def _present(self) -> tuple[_Line, ...]:
        """The budgets in the periods of now."""
        now = self._clock()
        lines = self._lines
        for line in lines:
            if not line.period.start <= now < line.period.end:
                break
        else:
            if lines:
                return lines
        lines = tuple(_line(budget, period_at(budget.period, now)) for budget in self._budgets)
        self._lines = lines
        return lines

    def _matching(self, attributes: Mapping[str, Any], who: Attribution | None) -> tuple[_Line, ...]:
        named: Mapping[str, str] = {} if who is None else who.attributes
        # A caller could choose which limit stops it.
        ours = {key: named[key] for key in named if key not in who.received} if who and who.received else named
        return tuple(
            line
            for line in self._present()
            if all(
                wanted
                == (
                    attributes.get(key)
                    or (ours if line.budget.policy == "block" else named).get(key)
                    or self._resource.get(key)
                )
                for key, wanted in line.budget.scope.items()
            )
        )

    def _estimate(self, attributes: Mapping[str, Any], characters: Callable[[], int]) -> tuple[int | None, int]:
        """Nanodollars of the whole call and of its prompt, rounded up; None if the model has no price."""
        reading = conventions.read(attributes)
        card = None if reading is None else card_of(reading.kind, int(self._clock() * NANO), self._book)
        if reading is None or card is None:
            return None, 0
        prompt = -(-characters() // CHARACTERS_PER_TOKEN)
        output = 0
        if reading.kind.operation != "embeddings":
            asked = attributes.get(conventions.MAX_TOKENS)
            output = asked if isinstance(asked, int) and asked > 0 else ASSUMED_OUTPUT_TOKENS
        whole = card.cost(Usage({"input": prompt, "output": output})).total
        sent = card.cost(Usage({"input": prompt})).total
        return (None if whole is None else -(-whole // 1000)), -(-(sent or 0) // 1000)

    def _refusal(
        self, line: _Line, balance: Balance, amount: int | None, attributes: Mapping[str, Any]
    ) -> tuple[BudgetExceeded, dict[str, AttributeValue]]:
        budget = line.budget
        with self._lock:
            said = (budget.name, "refused")
            self._decisions[said] = self._decisions.get(said, 0) + 1
        refusal = BudgetExceeded(
            budget.name,
            budget.limit,
            _usd(balance.spent),
            _usd(balance.held),
            None if amount is None else _usd(amount),
            datetime.fromtimestamp(line.period.end, UTC),
            attributes.get(conventions.REQUEST_MODEL),
        )
        # The status of the price is said too, so that nobody further on takes the span for an unpriced call.
        return refusal, {conventions.STATUS: "no_usage", **_state(line, balance, "refused")}

    def _attributes(self, lines: tuple[_Line, ...], answer: Answer) -> dict[str, AttributeValue]:
        """The attributes of the fullest budget: a span has room for one."""
        known = [(line, answer.balances[line.account]) for line in lines if line.account in answer.balances]
        if not known:
            return {}
        line, balance = max(known, key=lambda pair: _used(*pair)) if len(known) > 1 else known[0]
        claim = line.claim
        status: Status = "ok"
        if balance.spent >= claim.limit:
            status = "exceeded"
        elif claim.thresholds and balance.spent * 100 >= claim.limit * claim.thresholds[0]:
            status = "warning"
        return _state(line, balance, status)

    def _news(self, answer: Answer, lines: tuple[_Line, ...]) -> None:
        for account, percent in answer.crossed:
            for line in lines:
                if line.account == account:
                    _log.warning(
                        "budget %r: %d %% of $%s reached in %s ($%s spent)",
                        line.budget.name,
                        percent,
                        _plain(line.budget.limit),
                        line.period.id,
                        _plain(_usd(answer.balances[account].spent)),
                    )


def _line(budget: Budget, period: Period) -> _Line:
    account = f"{budget.name}:{period.id}"
    limit = int(budget.limit * NANO)
    return _Line(budget, period, account, Claim(account, limit, budget.policy == "block", budget.thresholds))


def _used(line: _Line, balance: Balance) -> float:
    return balance.spent / line.claim.limit


def _remaining(line: _Line, balance: Balance) -> float:
    return max(0, line.claim.limit - balance.spent - balance.held) / NANO


def _ids() -> Iterator[str]:
    """Ids of holds: unique among all processes that may share a store."""
    prefix = uuid.uuid4().hex
    return (f"{prefix}-{number}" for number in itertools.count())


def _state(line: _Line, balance: Balance, status: Status) -> dict[str, AttributeValue]:
    return {
        "costspan.budget.status": status,
        "costspan.budget.name": line.budget.name,
        "costspan.budget.utilization": _used(line, balance),
        "costspan.budget.remaining": _remaining(line, balance),
    }


def _may_have_been_billed(error_type: str) -> bool:
    """Whether a call that failed without usage may have reached a model: nobody answered, so nobody said no."""
    return any(sign in error_type for sign in ("Timeout", "Cancel", "Interrupt", "GeneratorExit"))


def _usd(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)


def _half_even(value: int, unit: int) -> int:
    quotient, remainder = divmod(value, unit)
    twice = 2 * remainder
    return quotient + (twice > unit or (twice == unit and quotient & 1))
