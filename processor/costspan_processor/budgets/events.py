"""What happens to budgets, told once each: to the log, OpenTelemetry, the application, and people."""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
import weakref
from collections import OrderedDict, deque
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from costspan_processor.budgets.model import NANO, Reason, plain, usd
from costspan_processor.budgets.store import Balance, Record, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry._logs import Logger, LogRecord

_log = logging.getLogger("costspan.budgets")

Type = Literal["threshold", "soft_limit", "exceeded", "burning_fast", "spike", "expensive_session", "refused"]
Severity = Literal["info", "warning", "critical"]

BURNS_FAST: Final = 1.5
"""The used share of the limit is this many times the elapsed share of the period."""
BURNS_FROM: Final = 0.1
"""Used share below which nobody is told: the first call of a period is always early."""
SPIKE: Final = 5
"""A ten-minute interval costs more than this many times the usual one (the median of the last six hours), and more than
this many times what may go in ten minutes if the limit is to last: the first calls of a morning are no news."""
SPIKE_FROM: Final = 0.01
"""Share of the limit below which an interval is no spike, whatever is usual."""
_INTERVAL: Final = 600
_USUAL_FROM: Final = 6
_USUAL: Final = 36
_WATCHED: Final = 10_000

_DO: Final[Mapping[Type, str]] = {
    "threshold": "look at what spends it: costspan budgets show {budget!r}",
    "soft_limit": "use cheaper models or fewer calls, or raise the soft limit",
    "exceeded": "raise the limit, wait for the next period, or find what spent it: costspan budgets show {budget!r}",
    "burning_fast": "at this speed the limit does not last for the period: see which feature or model has grown",
    "spike": "see what has begun to call in these minutes; a loop of retries or an agent that does not end is common",
    "expensive_session": "see whether the session is in a loop, and end it if it is",
    "refused": "raise the limit, or give calls that must pass the priority 'critical'",
}
_REFUSED: Final[Mapping[Reason, tuple[str, str | None]]] = {
    "limit": ("calls are refused that would pass ${limit}", None),
    "price": ("calls of a model without a price are refused", "add a price for the model, or let the budget warn"),
    "store": (
        "its store does not answer, and calls are refused",
        "bring the store back, or set on_store_error to 'allow'",
    ),
}
"""What is said and what to do (if not as always) of calls that are refused."""


class Event(NamedTuple):
    """Something that happened to a budget. Amounts in USD."""

    type: Type
    severity: Severity
    budget: str
    period: str
    """Id of the period: `2026-11`, `2026-11-28`, ..."""
    threshold: int | None
    """Percent of the limit that was reached."""
    limit: Decimal
    current: Decimal
    """Spent in the period."""
    remaining: Decimal
    overage: Decimal
    """Spent above the limit."""
    advice: str
    """What to do."""
    at: datetime
    value: str | None = None
    """Whose limit it is, where each value of an attribute has its own (`Budget.per`)."""
    reason: Reason | None = None
    """Why calls are refused: `limit`, `price` (their model has none) or `store` (it does not answer)."""

    @property
    def id(self) -> str:
        """The same for all processes that see the same thing: an event is told once by one of them.

        The limit is a part of it: that another one is reached is news.
        """
        parts = (self.budget, self.period, self.value, self.type, self.reason, self.threshold, plain(self.limit))
        return ":".join(str(part) for part in parts if part is not None)

    @property
    def message(self) -> str:
        """One line for people."""
        whose = "" if self.value is None else f" of {self.value}"
        what = {
            "threshold": f"{self.threshold} % of ${plain(self.limit)} reached",
            "soft_limit": f"the soft limit of ${plain(self.limit)} is reached",
            "exceeded": f"the limit of ${plain(self.limit)} is reached, ${plain(self.overage)} over it",
            "burning_fast": f"burning too fast for ${plain(self.limit)}",
            "spike": "spending has jumped",
            "expensive_session": f"the session has reached ${plain(self.limit)}",
            "refused": _REFUSED[self.reason or "limit"][0].format(limit=plain(self.limit)),
        }[self.type]
        return f"budget {self.budget!r}{whose}: {what} in {self.period} (${plain(self.current)} spent); {self.advice}"

    def as_json(self) -> str:
        """For the store, files and webhooks; amounts as text."""
        said = {
            key: plain(value) if isinstance(value, Decimal) else value.isoformat() if key == "at" else value
            for key, value in self._asdict().items()
        }
        return json.dumps(said)


class Subject(NamedTuple):
    """An account and all that its events tell of it."""

    account: str
    budget: str
    value: str | None
    period: str
    start: int
    end: int
    limit: int
    """Nanodollars."""
    soft_limit: int | None
    thresholds: tuple[int, ...]
    per: str | None
    rolling: bool


class _Watched:
    """What has been told of an account, and how it was spent, interval by interval, as far as this process saw."""

    __slots__ = ("before", "last", "next", "spent", "subject", "told", "until")

    def __init__(self, subject: Subject, now: float, spent: int) -> None:
        self.subject = subject
        """What the marks are about: a limit that was changed begins anew."""
        self.told: set[object] = set()
        self.next = 0
        """What must be spent before there is anything to look for."""
        self.until = (now // _INTERVAL + 1) * _INTERVAL
        """When the interval ends, unix seconds."""
        self.spent = spent
        """At the start of the interval."""
        self.last = spent
        self.before: deque[int] = deque(maxlen=_USUAL)


class Events:
    """Finds what is worth telling in balances, and tells it: each thing once, by one of the processes of a store."""

    def __init__(
        self,
        store: Store,
        failed: Callable[[str, BaseException], None],
        *,
        clock: Callable[[], float] = time.time,
        logger: Callable[[], Logger] | None = None,
        tell: Callable[[Event], None] | None = None,
        notify: Callable[[Event], None] | None = None,
    ) -> None:
        """`tell` is the application's own callback, `notify` sends to people; both run on a thread of ours."""
        self._store = store
        self._failed = failed
        self._clock = clock
        self._logger = logger
        self._receivers = [receiver for receiver in (tell, notify) if receiver is not None]
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self.counts: dict[tuple[str, str, str], int] = {}
        """(budget, type, severity) -> events told by this process."""
        self._begin()
        _open.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        """Nothing is posted any more: what is found is left to the next process, which finds it too."""

    def watch(self, subject: Subject, balance: Balance) -> None:
        """Look at an account after a step. Cheap while nothing happens."""
        spent = balance.spent
        now = self._clock()
        watched = self._watched.get(subject.account)
        if watched is None or (watched.subject is not subject and watched.subject != subject):
            watched = self._watch(subject, spent, now)
        elif spent < watched.next and now < watched.until:
            watched.last = spent
            return
        limit, told = subject.limit, watched.told
        for percent in subject.thresholds:
            if spent * 100 < limit * percent:
                break
            if percent not in told:
                kind, severity = _reached(subject, percent)
                self._found(subject, watched, percent, kind, severity, spent, now, percent)
        soft = subject.soft_limit
        if soft is not None and spent >= soft and "soft_limit" not in told:
            self._found(subject, watched, "soft_limit", "soft_limit", "warning", spent, now, limit=soft)
        fast = int(limit * BURNS_FROM)
        if "burning_fast" not in told and fast <= spent < limit and not subject.rolling:
            elapsed = (now - subject.start) / (subject.end - subject.start)
            if spent / limit > BURNS_FAST * elapsed:
                self._found(subject, watched, "burning_fast", "burning_fast", "warning", spent, now)
        self._spike(subject, watched, spent, now)
        marks = [limit * percent // 100 for percent in subject.thresholds]
        first = min(fast, *marks, limit if soft is None else soft)
        watched.next = min(first, watched.spent + int(limit * SPIKE_FROM)) if spent < first else 0

    def refused(self, subject: Subject, balance: Balance, reason: Reason) -> None:
        """A call was refused: told once a period and reason."""
        now = self._clock()
        watched = self._watched.get(subject.account)
        if watched is None or watched.subject != subject:
            watched = self._watch(subject, balance.spent, now)
        mark = f"refused {reason}"
        if mark not in watched.told:
            self._found(subject, watched, mark, "refused", "critical", balance.spent, now, reason=reason)

    def _watch(self, subject: Subject, spent: int, now: float) -> _Watched:
        watched = self._watched[subject.account] = _Watched(subject, now, spent)
        if len(self._watched) > _WATCHED:
            self._watched.popitem(last=False)
        return watched

    def _spike(self, subject: Subject, watched: _Watched, spent: int, now: float) -> None:
        if now >= watched.until:
            watched.before.append(watched.last - watched.spent)
            # Intervals without a call cost nothing, and are as usual as others.
            missed = int((now - watched.until) // _INTERVAL)
            watched.before.extend([0] * min(_USUAL, missed))
            watched.until += (missed + 1) * _INTERVAL
            watched.spent = watched.last
        watched.last = spent
        cost = spent - watched.spent
        limit = subject.limit
        if len(watched.before) >= _USUAL_FROM and cost > limit * SPIKE_FROM:
            even = limit * _INTERVAL / (subject.end - subject.start)
            from statistics import median  # which takes as long to import as all of this module

            if cost <= SPIKE * max(median(watched.before), even):
                return
            hour = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H}"
            mark = f"spike {hour}"
            if mark not in watched.told:
                here = subject._replace(period=f"{subject.period}/{hour}")
                self._found(here, watched, mark, "spike", "warning", spent, now)

    def _found(
        self,
        subject: Subject,
        watched: _Watched,
        mark: object,
        kind: Type,
        severity: Severity,
        spent: int,
        now: float,
        threshold: int | None = None,
        limit: int | None = None,
        reason: Reason | None = None,
    ) -> None:
        most = subject.limit if limit is None else limit
        period = subject.period
        if subject.rolling:
            # A window has no end; what goes on is told again after its length.
            length = subject.end - subject.start
            period += f"@{datetime.fromtimestamp(now // length * length, UTC):%Y-%m-%dT%H:%M}"
        with self._lock:
            if mark in watched.told:
                return
            watched.told.add(mark)
        event = Event(
            kind,
            severity,
            subject.budget,
            period,
            threshold,
            usd(most),
            usd(spent),
            usd(max(0, most - spent)),
            usd(max(0, spent - most)),
            (reason and _REFUSED[reason][1]) or _DO[kind].format(budget=subject.budget),
            datetime.fromtimestamp(now, UTC),
            subject.value,
            reason,
        )
        if reason == "store":
            # Whom could we ask whether somebody has told it? Each process tells it.
            self._tell(event)
        elif self._store.local:
            self._post(event, watched, mark)
        elif not self._closed:
            self._queued(partial(self._post, event, watched, mark))

    def _post(self, event: Event, watched: _Watched, mark: object) -> None:
        try:
            new = self._store.post(Record(event.id, event.as_json(), event.at.timestamp()))
        except Exception as error:  # noqa: BLE001  it is found again by the next step
            watched.told.discard(mark)
            self._failed("budgets.events", error)
            return
        if new:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        with self._lock:
            key = event.budget, event.type, event.severity
            self.counts[key] = self.counts.get(key, 0) + 1
        _log.log(_LEVELS[event.severity], "%s", event.message)
        if self._logger is not None:
            self._do(partial(self._logger().emit, _record(event)))
        on_our_thread = threading.current_thread() is self._thread
        for receiver in self._receivers:
            step = partial(receiver, event)
            # At once where that holds up nobody, so that what waits is all there is when we stop.
            if on_our_thread:
                self._do(step)
            else:
                self._queued(step)

    def _queued(self, step: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._work, name="costspan-events", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:
                    # The interpreter is ending, and starts none any more.
                    self._closed = True
            closed = self._closed
        if closed:
            self._do(step)
        else:
            self._queue.put(step)

    def _work(self) -> None:
        while (step := self._queue.get()) is not None:
            self._do(step)

    def _do(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  the application's callback may raise anything
            self._failed("budgets.events", error)

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what waits, and stop."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)

    def after_fork(self) -> None:
        """In a forked child: the parent tells what it has found."""
        self._begin()
        self.counts = {}


_open: weakref.WeakSet[Events] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    # This was registered before the accounts' own, and so runs after it: what they still write is news too.
    for events in list(_open):
        events.close()


def _reached(subject: Subject, percent: int) -> tuple[Type, Severity]:
    if percent < 100:
        return "threshold", "info" if percent < 80 else "warning"
    if percent == 100 and subject.per == "session.id":
        return "expensive_session", "warning"
    return "exceeded", "critical"


_LEVELS: Final[Mapping[Severity, int]] = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.ERROR,
}
_SEVERITIES: Final[Mapping[Severity, str]] = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}
"""OpenTelemetry's names."""


def _record(event: Event) -> LogRecord:
    from opentelemetry._logs import LogRecord, SeverityNumber

    attributes: dict[str, Any] = {
        "costspan.budget.name": event.budget,
        "costspan.budget.period": event.period,
        "costspan.budget.event.type": event.type,
        "costspan.budget.limit": float(event.limit),
        "costspan.budget.spent": float(event.current),
        "costspan.budget.remaining": float(event.remaining),
        "costspan.budget.overage": float(event.overage),
        "costspan.budget.event.advice": event.advice,
    }
    if event.threshold is not None:
        attributes["costspan.budget.threshold"] = event.threshold
    if event.value is not None:
        attributes["costspan.budget.value"] = event.value
    return LogRecord(
        timestamp=int(event.at.timestamp() * NANO),
        severity_number=SeverityNumber[_SEVERITIES[event.severity]],
        severity_text=event.severity.upper(),
        body=event.message,
        attributes=attributes,
        event_name=f"costspan.budget.{event.type}",
    )
