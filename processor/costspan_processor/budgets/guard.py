"""Asks the budgets before a call, and settles with them after it.

An estimate is reserved before the call, the actual takes its place after it. Nothing is ever reset: a new period is a
new account. Holds are rounded up to nanodollars, actuals half-even, once.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from calendar import monthrange
from collections import OrderedDict
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote

from opentelemetry.metrics import Observation

from costspan_pricing import Usage
from costspan_processor import conventions
from costspan_processor.attribution import KEYS
from costspan_processor.budgets.accounts import HOLD_SECONDS, STALE_SECONDS, Accounts, Request, Verdict
from costspan_processor.budgets.estimates import OutputLengths
from costspan_processor.budgets.events import Events, Subject
from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.model import NANO, Budget, BudgetExceeded, Reason, local_time, plain, usd
from costspan_processor.budgets.periods import Period, period_at, window_at
from costspan_processor.budgets.store import Balance, Claim, Settlement
from costspan_processor.enrich import card_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from opentelemetry._logs import Logger
    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import PriceBook
    from costspan_processor.attribution import Attribution
    from costspan_processor.budgets.events import Event
    from costspan_processor.budgets.routing import Routing
    from costspan_processor.budgets.store import Store
    from costspan_processor.conventions import Plain
    from costspan_processor.enrich import Priced
    from costspan_processor.metrics import Table

CHARACTERS_PER_TOKEN: Final = 4
_KEPT_SECONDS: Final = 90 * 86400
"""How long an account is kept after its period."""
_VALUES: Final = 10_000
RELOAD_SECONDS: Final = 2.0

Status = Literal["ok", "warning", "exceeded", "refused"]
Decision = Literal["allowed", "warned", "downgraded", "refused", "bypassed"]

_SWAPPED: Final = {"chat", "text_completion", "generate_content"}
_PRIORITY: Final = KEYS["priority"]
_TASK: Final = KEYS["task"]


class Line(NamedTuple):
    """A budget in one period: everything that is the same for all calls until the period ends."""

    budget: Budget
    subject: Subject
    blocks: bool
    until: int
    """Unix seconds at which the line is no more the present one."""
    normal: Request
    high: Request
    critical: Request

    def request(self, priority: str | None) -> Request:
        """What a call of this priority asks of the account."""
        return self.critical if priority == "critical" else self.high if priority == "high" else self.normal


class Admission:
    """A call that budgets concern: what it may cost, and what the accounts said to that."""

    __slots__ = (
        "amount", "attributes", "balances", "blocks", "key", "lines", "model", "request", "requests", "sent", "task"
    )  # fmt: skip

    key: str
    lines: tuple[Line, ...]
    requests: tuple[Request, ...]
    """What it asks of each line."""
    blocks: tuple[Line, ...]
    """Limits of the blocks of code that it is made in."""
    request: Mapping[str, Any]
    """Its attributes, with the model that is to be called."""
    amount: int
    """The estimate, nanodollars."""
    sent: int
    """The part of it that the prompt alone costs."""
    task: str | None
    model: str | None
    """To be called instead of the one asked for."""
    attributes: dict[str, AttributeValue]
    """What the span starts with."""
    balances: Sequence[Balance]
    """Of the lines, when it was let through."""


class Charge(NamedTuple):
    """What a call that nobody asked about is to be charged."""

    lines: tuple[Line, ...]
    settlement: Settlement


class Refusal(NamedTuple):
    """A call that is not to be made."""

    error: BudgetExceeded
    attributes: Mapping[str, AttributeValue]
    """Of its span."""


class Check(NamedTuple):
    """What the budgets would say to a call."""

    allowed: bool
    decision: Decision
    budget: str | None
    """The one that refuses, or else the one with the least room; None if none is concerned."""
    asked: Decimal | None
    """USD that the call is estimated at; None if its model has no price."""
    remaining: Decimal | None
    """USD that the budget has left, before the call."""
    model: str | None
    """What would be called: a cheaper model, if the budget gives one."""
    reason: str


class Guard:
    """The budgets of a process."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        book: PriceBook,
        store: Store | None = None,
        *,
        routing: Routing | None = None,
        resource: Mapping[str, Any] | None = None,
        clock: Callable[[], float] | None = None,
        hold_seconds: float = HOLD_SECONDS,
        journal: Path | None = None,
        failed: Callable[[str, BaseException], None] | None = None,
        logger: Callable[[], Logger] | None = None,
        tell: Callable[[Event], None] | None = None,
        notify: Callable[[Event], None] | None = None,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """`resource` holds the attributes of this service, for scopes such as `service`; `clock` gives unix seconds.

        `journal` is the folder for what a store misses, `failed` takes errors of ours, `tell` and `notify` events.
        `reload` looks every two seconds whether other budgets are to hold; it may take microseconds.
        """
        self._book = book
        self.store: Final[Store] = store or MemoryStore()
        self._resource = resource or {}
        self._clock = clock or self.store.now
        self._failed: Final[Callable[[str, BaseException], None]] = failed or (lambda _where, _error: None)
        self._reload = reload
        self._since = self._until = 0.0
        """Between these, the lines are the present ones."""
        self._all = False
        """Every budget concerns every call."""
        self._lengths = OutputLengths()
        self._lines: tuple[Line, ...] = ()
        self._ended: tuple[Line, ...] = ()
        """Those before: calls that began in their periods are still to be settled."""
        self._values: OrderedDict[str, Line] = OrderedDict()
        self.budgets: tuple[Budget, ...] = ()
        """Those that hold now; `replace` changes them."""
        self.routing: Routing | None = None
        self.replace(budgets, routing)
        self.events: Final = Events(
            self.store, self._failed, clock=self._clock, logger=logger, tell=tell, notify=notify
        )
        self._accounts = Accounts(
            self.store,
            on_balances=self._look,
            watched=lambda: [line.normal for line in self.present() if line.budget.per is None],
            failed=self._failed,
            journal=journal,
            hold_seconds=hold_seconds,
        )
        self._own_store = MemoryStore(clock)
        self._lock = threading.Lock()
        self._decisions: dict[tuple[str, Decision], int] = {}
        self._ids = _ids()

    def replace(self, budgets: Sequence[Budget], routing: Routing | None) -> None:
        """Hold calls to these budgets from now on. What has been spent under a name stays spent."""
        names = [budget.name for budget in budgets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two budgets are named {name!r}")
        self.routing = routing
        self.budgets = tuple(budgets)
        self._until = 0.0

    # ---------------------------------------------------------------- a call

    def admit(
        self,
        attributes: Mapping[str, Any],
        who: Attribution | None,
        characters: Callable[[], int],
        may_swap: Callable[[], bool] = lambda: False,
    ) -> Admission | Refusal | None:
        """Reserve for a call that is about to be made; None if no budget is concerned.

        `attributes` are those of the request, `characters()` the length of the prompt's text, `may_swap()` whether the
        call can be made with another model of its provider.
        """
        plan = self._plan(attributes, who, characters, may_swap)
        if not isinstance(plan, Admission) or not plan.lines:
            return plan
        return self._admitted(plan, self._accounts.reserve(plan.key, plan.amount, plan.requests))

    async def aadmit(
        self,
        attributes: Mapping[str, Any],
        who: Attribution | None,
        characters: Callable[[], int],
        may_swap: Callable[[], bool] = lambda: False,
    ) -> Admission | Refusal | None:
        """`admit` on an event loop."""
        plan = self._plan(attributes, who, characters, may_swap)
        if not isinstance(plan, Admission) or not plan.lines:
            return plan
        try:
            verdict = await self._accounts.areserve(plan.key, plan.amount, plan.requests)
        except BaseException:
            # Cancelled while it waited: nobody knows whether the store has held it.
            self._accounts.settle(Settlement(plan.key, 0))
            self._leave_blocks(plan.blocks, plan.key, 0)
            raise
        return self._admitted(plan, verdict)

    def settle(self, admission: Admission, priced: Priced | Plain) -> dict[str, AttributeValue]:
        """Replace a call's hold by what it cost; returns the budget attributes of its span."""
        pico = priced.total
        reading = priced.reading
        error_type = reading.kind.error_type
        if pico is not None:
            amount = _half_even(pico, 1000)
        elif error_type is None:
            # It was answered, so it was billed; the estimate is the best figure there is.
            amount = admission.amount
        else:
            amount = admission.sent if _may_have_been_billed(error_type) else 0
        if type(reading.output_tokens) is int and error_type is None:
            self._lengths.learn(reading.kind.request_model, admission.task, reading.output_tokens)
        self._leave_blocks(admission.blocks, admission.key, amount)
        if not admission.lines:
            return {}
        claims = tuple([request[0] for request in admission.requests])
        after = self._accounts.settle(Settlement(admission.key, amount, claims))
        if after is None:
            # The store will be told; until then this is what it will come to, as far as this process knows.
            balances = [
                Balance(before.spent + amount, max(0, before.held - admission.amount), before.unsettled)
                for before in admission.balances
            ]
        else:
            balances = [after[claim[0]] for claim in claims]
            self._watch(admission.lines, balances)
        return _attributes(admission.lines, balances)

    def charge(
        self, key: str, attributes: Mapping[str, Any], who: Attribution | None, priced: Priced | Plain
    ) -> dict[str, AttributeValue]:
        """Charge a call that nobody asked about before it was made; `key` is its own (trace and span id)."""
        blocks = () if who is None else who.limits
        if priced.total is None or not (self.budgets or blocks):
            return {}
        for line in blocks:
            settlement = Settlement(
                f"{key}:{line.subject.account}", _half_even(priced.total, 1000), (line.normal.claim,)
            )
            self._own_store.settle((settlement,))
        charge = self.charge_for(key, attributes, who, priced)
        if charge is None:
            return {}
        return self._charged(charge, self._accounts.settle(charge.settlement))

    def charge_for(
        self,
        key: str,
        attributes: Mapping[str, Any],
        who: Attribution | None,
        priced: Priced | Plain,
        at: float | None = None,
    ) -> Charge | None:
        """What a call that has been made is to be charged, and to which budgets; None if to none. No I/O.

        `at` is when it ended, unix seconds, if that may have been in an earlier period.
        """
        if priced.total is None:
            return None
        lines = self._matching(attributes, who, at)
        if not lines:
            return None
        claims = tuple(line.normal.claim for line in lines)
        return Charge(lines, Settlement(key, _half_even(priced.total, 1000), claims))

    async def acharge(self, charges: Sequence[Charge]) -> list[dict[str, AttributeValue]]:
        """Make charges in one step, and return the budget attributes of their spans once they outlive this process."""
        balances = await self._accounts.asettle([charge.settlement for charge in charges])
        if balances is None:
            return [self._charged(charge, None) for charge in charges]
        return [self._charged(charge, after) for charge, after in zip(charges, balances, strict=True)]

    def _charged(self, charge: Charge, after: Mapping[str, Balance] | None) -> dict[str, AttributeValue]:
        lines, (_, amount, claims) = charge
        if after is None:
            known = [self._accounts.balance(claim) or Balance(0, 0, 0) for claim in claims]
            balances = [balance._replace(spent=balance.spent + amount) for balance in known]
        else:
            balances = [after[claim.account] for claim in claims]
            self._watch(lines, balances)
        return _attributes(lines, balances)

    def check(self, attributes: Mapping[str, Any], who: Attribution | None, characters: int) -> Check:
        """What `admit` would say. Reserves nothing, but may ask the store."""
        plan = self._plan(attributes, who, lambda: characters, lambda: True, peek=True)
        model = attributes.get(conventions.REQUEST_MODEL)
        if plan is None:
            return Check(True, "allowed", None, None, None, model, "no budget is concerned")
        if isinstance(plan, Refusal):
            error = plan.error
            left = max(Decimal(0), error.limit - error.spent - error.held)
            return Check(False, "refused", error.budget, error.asked, left, model, str(error))
        lines = (*plan.blocks, *plan.lines)
        balances = [self._own_store.read((line.normal.claim,)).balances[line.subject.account] for line in plan.blocks]
        try:
            answer = self.store.read([request.claim for request in plan.requests])
            balances += [answer.balances[request.claim.account] for request in plan.requests]
        except Exception as error:  # noqa: BLE001
            self._failed("budgets.check", error)
            balances += [self._accounts.balance(request.claim) or Balance(0, 0, 0) for request in plan.requests]
        requests = (*(line.normal for line in plan.blocks), *plan.requests)
        decision: Decision = "allowed"
        for line, request, balance in zip(lines, requests, balances, strict=True):
            most, used = request.claim.most, balance.spent + balance.held + plan.amount
            if most is not None and plan.amount and used > most:
                said = str(self._exceeded(line, balance, plan.amount, attributes, "limit"))
                left = usd(_left(line.subject, balance))
                return Check(False, "refused", line.subject.budget, usd(plan.amount), left, model, said)
            if used > line.subject.limit:
                decision = "bypassed" if line.budget.blocks else "warned"
        line, balance = max(zip(lines, balances, strict=True), key=lambda pair: _used(pair[0].subject, pair[1]))
        left = usd(_left(line.subject, balance))
        reason = f"{line.subject.budget!r} has ${plain(left)} left in {line.subject.period}"
        if plan.model is not None:
            decision, model, reason = "downgraded", plan.model, str(plan.attributes[_WHY])
        return Check(True, decision, line.subject.budget, usd(plan.amount), left, model, reason)

    def remaining(self, who: Attribution | None, attributes: Mapping[str, Any]) -> tuple[Decimal, bool]:
        """The least share that a matching budget has left, and whether one of them is in its emergency."""
        lines = self._matching(attributes, who)
        return self._room(lines, self._requests(lines, None))

    def new_key(self) -> str:
        """A key for a charge that has none of its own."""
        return next(self._ids)

    def begin(self) -> None:
        """Send what processes that have died owe the store, and look at the balances: now, not at the first call."""
        self._accounts.begin()

    def flush(self, timeout: float = 10.0) -> bool:
        """Have all settlements written. False if they were not in `timeout` seconds."""
        return self._accounts.flush(timeout)

    def close(self) -> None:
        """Write what waits, and give back what the store holds."""
        self._accounts.close()
        self.events.close()
        # The last events may have opened it again.
        self.store.close()

    def after_fork(self) -> None:
        """In a forked child: own ids, own lock, and none of the parent's decisions."""
        self._lock = threading.Lock()
        self._decisions = {}
        self._ids = _ids()
        self._lengths.after_fork()
        self._own_store.after_fork()
        self._accounts.after_fork()
        self.events.after_fork()

    # ---------------------------------------------------------------- before the call

    def _plan(
        self,
        attributes: Mapping[str, Any],
        who: Attribution | None,
        characters: Callable[[], int],
        may_swap: Callable[[], bool],
        peek: bool = False,
    ) -> Admission | Refusal | None:
        lines = self._matching(attributes, who)
        blocks = () if who is None else who.limits
        if not lines and not blocks:
            return None
        named: Mapping[str, str] = {} if who is None else who.attributes
        priority, task = named.get(_PRIORITY), named.get(_TASK)
        requests = self._requests(lines, priority)
        marks: dict[str, AttributeValue] = {}
        model: str | None = None
        if self.routing is not None and may_swap():
            swapped = self._cheaper(attributes, lines, requests)
            if swapped is not None:
                asked = attributes[conventions.REQUEST_MODEL]
                model, reason = swapped
                attributes = {**attributes, conventions.REQUEST_MODEL: model}
                marks = {_ASKED: asked, _WHY: reason}
                lines = self._matching(attributes, who)
                requests = self._requests(lines, priority)
        amount, sent = self._estimate(attributes, characters, task)
        if amount is None:
            for line, request in zip((*blocks, *lines), (*(b.normal for b in blocks), *requests), strict=True):
                if request.claim.most is not None:
                    known = None if line in blocks else self._accounts.balance(request.claim)
                    return self._refusal(line, known or Balance(0, 0, 0), None, attributes, "price", peek)
        plan = Admission()
        plan.key = next(self._ids)
        plan.lines, plan.requests, plan.blocks, plan.request = lines, requests, blocks, attributes
        plan.amount, plan.sent, plan.task = amount or 0, sent, task
        plan.model, plan.attributes = model, marks
        if not peek:
            for index, line in enumerate(blocks):
                key = f"{plan.key}:{line.subject.account}"
                answer = self._own_store.reserve(key, plan.amount, (line.normal.claim,), HOLD_SECONDS)
                if answer.refused_by is not None:
                    self._leave_blocks(blocks[:index], plan.key, 0)
                    balance = answer.balances[line.subject.account]
                    return self._refusal(line, balance, plan.amount, attributes, "limit")
        return plan

    def _admitted(self, plan: Admission, verdict: Verdict) -> Admission | Refusal:
        refused, reason, plan.balances = verdict
        if not self.store.local:
            # What calls before this one have cost is known only now.
            self._watch(plan.lines, plan.balances)
        if refused is not None:
            self._leave_blocks(plan.blocks, plan.key, 0)
            return self._refusal(plan.lines[refused], plan.balances[refused], plan.amount, plan.request, reason)
        for line, request, balance in zip(plan.lines, plan.requests, plan.balances, strict=True):
            decision: Decision = "allowed"
            if plan.model is not None and line.budget.policy == "downgrade":
                decision = plan.attributes[_DECISION] = "downgraded"
            elif balance[0] + balance[1] > line.subject.limit:
                decision = "warned"
                if line.blocks and request.claim.most is None:
                    decision = plan.attributes[_DECISION] = "bypassed"
            said = line.subject.budget, decision
            with self._lock:
                self._decisions[said] = self._decisions.get(said, 0) + 1
        return plan

    def _leave_blocks(self, blocks: Sequence[Line], key: str, amount: int) -> None:
        for line in blocks:
            self._own_store.settle((Settlement(f"{key}:{line.subject.account}", amount),))

    def _estimate(
        self, attributes: Mapping[str, Any], characters: Callable[[], int], task: str | None
    ) -> tuple[int | None, int]:
        """Nanodollars of the whole call and of its prompt, rounded up; None if the model has no price."""
        kind = conventions.kind_of(attributes)
        card = None if kind is None else card_of(kind, int(self._clock() * NANO), self._book)
        if kind is None or card is None:
            return None, 0
        prompt = -(-characters() // CHARACTERS_PER_TOKEN)
        output = 0
        if kind.operation != "embeddings":
            output = self._lengths.expected(kind.request_model, task, attributes.get(conventions.MAX_TOKENS))
        quote = card.quote(prompt, 0, output, 0)
        if quote is not None:
            whole, sent, _, _, _ = quote
            return -(-whole // 1000), -(-sent // 1000)
        total = card.cost(Usage({"input": prompt, "output": output})).total
        if total is None:
            return None, 0
        return -(-total // 1000), -(-(card.cost(Usage({"input": prompt})).total or 0) // 1000)

    def _cheaper(
        self, attributes: Mapping[str, Any], lines: Sequence[Line], requests: Sequence[Request]
    ) -> tuple[str, str] | None:
        """A model of the same provider for a call that a budget wants cheaper, and why."""
        assert self.routing is not None
        pairs = [pair for pair in zip(lines, requests, strict=True) if pair[0].budget.policy == "downgrade"]
        provider, model = attributes.get(conventions.PROVIDER), attributes.get(conventions.REQUEST_MODEL)
        if not pairs or not isinstance(provider, str) or not isinstance(model, str):
            return None
        # The vectors of another embedding model are of no use beside those that there are.
        if attributes.get(conventions.OPERATION) not in _SWAPPED:
            return None
        share, emergency = self._room([line for line, _ in pairs], [request for _, request in pairs])
        return self.routing.cheaper(provider, model, share, emergency)

    def _room(self, lines: Sequence[Line], requests: Sequence[Request]) -> tuple[Decimal, bool]:
        least, emergency = Decimal(1), False
        for line, request in zip(lines, requests, strict=True):
            balance = self._accounts.balance(request.claim) or Balance(0, 0, 0)
            left = max(0, line.subject.limit - balance.spent - balance.held)
            least = min(least, Decimal(left) / line.subject.limit)
            if self.routing is not None:
                soft = line.subject.soft_limit or line.subject.limit
                emergency = emergency or self.routing.in_emergency(usd(soft), usd(balance.spent + balance.held))
        return least, emergency

    # ---------------------------------------------------------------- which budgets

    def present(self) -> tuple[Line, ...]:
        """The budgets in the periods of now; of those per value only the pattern."""
        now = self._clock()
        if not self._since <= now < self._until:
            self._turn(now)
        return self._lines

    def _turn(self, now: float) -> None:
        """Another period has begun, the clock was put back, or it is time to look whether other budgets are to hold."""
        soon = float("inf")
        if self._reload is not None:
            self._reload()
            soon = now + RELOAD_SECONDS
        lines = tuple(itertools.chain.from_iterable(_lines(budget, now) for budget in self.budgets))
        if lines != self._lines:
            self._ended, self._lines = self._lines, lines
            self._values.clear()
        self._all = all(not line.budget.scope and line.budget.per is None for line in lines)
        self._since = max((line.subject.start for line in lines), default=now)
        self._until = min((line.until for line in lines), default=soon)
        self._until = min(self._until, soon)

    def _matching(
        self, attributes: Mapping[str, Any], who: Attribution | None, at: float | None = None
    ) -> tuple[Line, ...]:
        lines = self.present()
        if at is not None and at < self._since:
            lines = tuple(itertools.chain.from_iterable(_lines(budget, at) for budget in self.budgets))
        if self._all:
            return lines
        named: Mapping[str, str] = {} if who is None else who.attributes
        # A caller could choose which limit stops it.
        ours = {key: named[key] for key in named if key not in who.received} if who and who.received else named
        resource = self._resource
        found = []
        for line in lines:
            budget = line.budget
            known = ours if line.blocks else named
            for key, wanted in budget.scope.items():
                if wanted != (attributes.get(key) or known.get(key) or resource.get(key)):
                    break
            else:
                if budget.per is None:
                    found.append(line)
                else:
                    value = attributes.get(budget.per) or known.get(budget.per) or resource.get(budget.per)
                    if value is not None:
                        found.append(self._of_value(line, str(value)))
        return tuple(found)

    def _of_value(self, line: Line, value: str) -> Line:
        """The line of a budget for one value of what it is per."""
        end = "/" + quote(value[:200], safe=" @")
        account = line.subject.account + end
        with self._lock:
            found = self._values.get(account)
            if found is None:
                found = self._values[account] = line._replace(
                    subject=line.subject._replace(account=account, value=value),
                    normal=_of_value(line.normal, end),
                    high=_of_value(line.high, end),
                    critical=_of_value(line.critical, end),
                )
                if len(self._values) > _VALUES:
                    self._values.popitem(last=False)
            return found

    @staticmethod
    def _requests(lines: Sequence[Line], priority: str | None) -> tuple[Request, ...]:
        if priority is None:
            return tuple([line.normal for line in lines])
        return tuple([line.request(priority) for line in lines])

    # ---------------------------------------------------------------- what is told

    def _watch(self, lines: Sequence[Line], balances: Sequence[Balance]) -> None:
        for line, balance in zip(lines, balances, strict=True):
            if line.budget.policy != "observe":
                self.events.watch(line.subject, balance)

    def _look(self, balances: Mapping[str, Balance]) -> None:
        """Balances have come from the store: see what is to be told of them."""
        present = self.present()
        lines = {line.subject.account: line for line in (*self._ended, *present) if line.budget.per is None}
        for account, balance in balances.items():
            line = lines.get(account) or self._values.get(account)
            if line is not None:
                self._watch((line,), (balance,))

    def _refusal(
        self,
        line: Line,
        balance: Balance,
        amount: int | None,
        attributes: Mapping[str, Any],
        reason: Reason,
        peek: bool = False,
    ) -> Refusal:
        error = self._exceeded(line, balance, amount, attributes, reason)
        if not peek:
            said: tuple[str, Decision] = (line.subject.budget, "refused")
            with self._lock:
                self._decisions[said] = self._decisions.get(said, 0) + 1
            # Of a block of code its own error tells enough.
            if line.subject.period != _BLOCK:
                self.events.refused(line.subject, balance, reason)
        # The status of the price is said too, so that nobody further on takes the span for an unpriced call.
        return Refusal(error, {conventions.STATUS: "no_usage", **_state(line.subject, balance, "refused")})

    @staticmethod
    def _exceeded(
        line: Line, balance: Balance, amount: int | None, attributes: Mapping[str, Any], reason: Reason
    ) -> BudgetExceeded:
        subject = line.subject
        return BudgetExceeded(
            subject.budget,
            usd(subject.limit),
            usd(balance.spent),
            usd(balance.held),
            None if amount is None else usd(amount),
            None if subject.period == _BLOCK else local_time(line.until, line.budget.zone),
            attributes.get(conventions.REQUEST_MODEL),
            reason,
            subject.value,
        )

    def instruments(self, table: Table) -> None:
        """Show the budgets as gauges on the meter of this generation of the table."""
        gauges: tuple[tuple[str, str, str, Callable[[Subject, Balance], float]], ...] = (
            ("limit", "USD", "Limit of the budget", lambda subject, _: subject.limit / NANO),
            ("spent", "USD", "Spent in the present period", lambda _, balance: balance.spent / NANO),
            ("held", "USD", "Reserved by calls under way", lambda _, balance: balance.held / NANO),
            ("unsettled", "USD", "Part of spent: estimates of calls that never told what they cost",
             lambda _, balance: balance.unsettled / NANO),
            ("remaining", "USD", "Limit less spent and held, never below 0",
             lambda subject, balance: _left(subject, balance) / NANO),
            ("utilization.ratio", "1", "Spent as a share of the limit", _used),
            ("period.start", "s", "Start of the present period, unix time", lambda subject, _: subject.start),
            ("period.end", "s", "End of the present period, unix time", lambda subject, _: subject.end),
        )  # fmt: skip
        for name, unit, description, value in gauges:
            table.meter.create_observable_gauge(
                f"costspan.budget.{name}", [table.observe(self._reader(value))], unit, description
            )
        counters: tuple[tuple[str, str, str, Callable[[], list[Observation]]], ...] = (
            ("decisions", "{decision}",
             "What budgets said to calls: allowed, warned, downgraded, refused, bypassed", self._observe_decisions),
            ("events", "{event}", "Events of budgets that this process has told", self._observe_events),
            ("store.failures", "{failure}", "Steps that the store of the budgets failed at", self._observe_failures),
        )  # fmt: skip
        for name, unit, description, read in counters:
            table.meter.create_observable_counter(f"costspan.budget.{name}", [table.observe(read)], unit, description)

    def _reader(self, value: Callable[[Subject, Balance], float]) -> Callable[[], list[Observation]]:
        def read() -> list[Observation]:
            if not self.store.local and time.monotonic() - self._accounts.looked_at > STALE_SECONDS:
                return []
            observations = []
            for line in self.present():
                balance = None if line.budget.per else self._accounts.balance(line.normal.claim)
                if balance is not None:
                    subject = line.subject
                    labels = {"costspan.budget.name": subject.budget, "costspan.budget.period": subject.period}
                    observations.append(Observation(value(subject, balance), labels))
            return observations

        return read

    def _observe_decisions(self) -> list[Observation]:
        with self._lock:
            return [
                Observation(count, {"costspan.budget.name": name, "decision": decision})
                for (name, decision), count in self._decisions.items()
            ]

    def _observe_events(self) -> list[Observation]:
        return [
            Observation(count, {"costspan.budget.name": name, "type": kind, "severity": severity})
            for (name, kind, severity), count in list(self.events.counts.items())
        ]

    def _observe_failures(self) -> list[Observation]:
        return [Observation(self._accounts.failures)] if self.budgets else []


_DECISION: Final = "costspan.budget.decision"
_ASKED: Final = "costspan.budget.asked_model"
_WHY: Final = "costspan.budget.reason"
_BLOCK: Final = "block"


def block(budget: Budget) -> Line:
    """The line of a limit on one run through a block of code."""
    now = int(time.time())
    account = f"{budget.name}:{uuid.uuid4().hex}"
    return _line(budget, budget.name, int(budget.limit * NANO), account, Period(_BLOCK, now, now + 86400))


def _lines(budget: Budget, now: float) -> Iterator[Line]:
    """A budget in its present period, and beside it the day of a monthly one."""
    account = quote(budget.name, safe=" ")
    limit = int(budget.limit * NANO)
    if budget.rolling:
        present, *older = window_at(budget.period, now)
        oldest = older[-1] if older else present
        whole = Period(budget.period, oldest.start, present.end)
        also = tuple(f"{account}:{period.id}" for period in older)
        length = present.end - oldest.start
        yield _line(budget, budget.name, limit, f"{account}:{present.id}", whole, also, length)
        return
    period = period_at(budget.period, now, budget.zone)
    yield _line(budget, budget.name, limit, f"{account}:{period.id}", period)
    if budget.daily_limit is not None:
        day = period_at("day", now, budget.zone)
        if budget.daily_limit == "even":
            month = local_time(now, budget.zone)
            share = budget.limit / monthrange(month.year, month.month)[1]
        else:
            share = budget.daily_limit
        daily = int((share * NANO).to_integral_value(ROUND_DOWN))
        yield _line(budget, f"{budget.name} (daily)", daily, f"{account} (daily):{day.id}", day, soft=False)


def _line(
    budget: Budget,
    name: str,
    limit: int,
    account: str,
    period: Period,
    also: tuple[str, ...] = (),
    length: int = 0,
    *,
    soft: bool = True,
) -> Line:
    soft_limit = int(budget.soft_limit * NANO) if soft and budget.soft_limit is not None else None
    subject = Subject(
        account, name, None, period.id, period.start, period.end, limit, soft_limit, budget.thresholds, budget.per,
        budget.rolling,
    )  # fmt: skip
    keep_until = period.end + length + _KEPT_SECONDS

    def request(most: int | None) -> Request:
        claim = Claim(account, most if budget.blocks else None, also, keep_until)
        assert budget.on_store_error is not None
        return Request(claim, budget.on_store_error, period.end)

    return Line(
        budget,
        subject,
        budget.blocks,
        period.end,
        request(limit * budget.normal_percent // 100),
        request(limit),
        request(None),
    )


def _of_value(request: Request, end: str) -> Request:
    claim = request.claim
    also = tuple(account + end for account in claim.also)
    return request._replace(claim=claim._replace(account=claim.account + end, also=also))


def _attributes(lines: Sequence[Line], balances: Sequence[Balance]) -> dict[str, AttributeValue]:
    """The attributes of the fullest budget: a span has room for one."""
    line, balance = lines[0], balances[0]
    if len(lines) > 1:
        line, balance = max(zip(lines, balances, strict=True), key=lambda pair: _used(pair[0].subject, pair[1]))
    subject = line.subject
    limit, soft, thresholds = subject.limit, subject.soft_limit, subject.thresholds
    spent = balance[0]
    status: Status = "ok"
    if spent >= limit:
        status = "exceeded"
    elif (thresholds and spent * 100 >= limit * thresholds[0]) or (soft is not None and spent >= soft):
        status = "warning"
    return _state(subject, balance, status)


def _state(subject: Subject, balance: Balance, status: Status) -> dict[str, AttributeValue]:
    spent, held, _ = balance
    left = subject.limit - spent - held
    return {
        "costspan.budget.status": status,
        "costspan.budget.name": subject.budget,
        "costspan.budget.utilization": spent / subject.limit,
        "costspan.budget.remaining": left / NANO if left > 0 else 0.0,
    }


def _used(subject: Subject, balance: Balance) -> float:
    return balance.spent / subject.limit


def _left(subject: Subject, balance: Balance) -> int:
    """Nanodollars that the budget has left, never below 0."""
    return max(0, subject.limit - balance.spent - balance.held)


def _ids() -> Iterator[str]:
    """Ids of holds: unique among all processes that may share a store."""
    prefix = uuid.uuid4().hex
    return (f"{prefix}-{number}" for number in itertools.count())


def _may_have_been_billed(error_type: str) -> bool:
    """Whether a call that failed without usage may have reached a model: nobody answered, so nobody said no."""
    return any(sign in error_type for sign in ("Timeout", "Cancel", "Interrupt", "GeneratorExit"))


def _half_even(value: int, unit: int) -> int:
    quotient, remainder = divmod(value, unit)
    twice = 2 * remainder
    return quotient + (twice > unit or (twice == unit and quotient & 1))
