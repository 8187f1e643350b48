"""What a budget is, and what is raised when it says no."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from costspan_processor import conventions
from costspan_processor.attribution import KEYS
from costspan_processor.budgets.periods import check_period, is_window, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Policy = Literal["observe", "warn", "block", "downgrade"]
OnStoreError = Literal["allow", "deny", "local"]
Reason = Literal["limit", "price", "store"]

NANO: Final = 10**9
_MOST: Final = 10**9
"""USD: in nanodollars the ninth part of what databases count."""

_SCOPE_KEYS: Final = {
    **KEYS,
    "provider": conventions.PROVIDER,
    "model": conventions.REQUEST_MODEL,
    "operation": conventions.OPERATION,
    "service": "service.name",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what calls in a scope may cost in a period. Raises ValueError naming the field.

    name: unique; on spans, metrics and events.
    limit: USD above 0; give a string or a Decimal for an exact figure.
    soft_limit: USD below `limit` from which the budget warns, and calls may get a cheaper model.
    daily_limit: of a monthly budget: USD a day besides, or "even": the limit divided by the days of the month.
    scope: whose calls count: attribution (`team`, `feature`, `user`, ...; any other name is a tag), `provider`,
        `model`, `operation`, `service`, or a span attribute by its full name. A call must match all of it; empty: every
        call.
    per: one such name: each of its values has the limit for itself. Calls without it are not concerned.
    period: `hour`, `day`, `week` (from Monday), `month`, `year` of the calendar, or a window that moves along: `90m`,
        `24h`, `7d`.
    zone: time zone of the calendar, an IANA name such as `Europe/Berlin`.
    thresholds: percent of the limit; reaching one is told once a period.
    policy: `observe` counts and tells nothing; `warn` tells; `block` also refuses the call that would pass the limit;
        `downgrade` gives it a cheaper model, where routing names one, and refuses nothing.
    normal_percent: percent of the limit that calls may use which have no priority: those of priority `high` may use all
        of it, those of priority `critical` pass whatever there is.
    on_store_error: when the store does not answer: `allow` the call, `deny` it, or decide by what this process knows
        (`local`). By default `local` for `block`, else `allow`.
    """

    name: str
    limit: Decimal
    scope: Mapping[str, str] = field(default_factory=dict)
    period: str = "month"
    thresholds: tuple[int, ...] = (50, 75, 80, 90, 100)
    policy: Policy = "warn"
    soft_limit: Decimal | None = None
    daily_limit: Decimal | Literal["even"] | None = None
    per: str | None = None
    zone: str = "UTC"
    normal_percent: int = 100
    on_store_error: OnStoreError | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            limit: Decimal | str | float,
            scope: Mapping[str, str] = ...,
            period: str = ...,
            thresholds: Iterable[int] = ...,
            policy: Policy = ...,
            soft_limit: Decimal | str | float | None = ...,
            daily_limit: Decimal | str | float | None = ...,
            per: str | None = ...,
            zone: str = ...,
            normal_percent: int = ...,
            on_store_error: OnStoreError | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a budget needs a name, not {self.name!r}")
        limit = self._amount("limit")
        soft = None if self.soft_limit is None else self._amount("soft_limit")
        if soft is not None and soft > limit:
            raise self._refused("soft_limit", f"at most the limit of {limit}")
        if self.daily_limit is not None:
            if self.period != "month":
                raise self._refused("daily_limit", "left out, unless the period is 'month'")
            if self.daily_limit != "even" and self._amount("daily_limit", "an amount in USD, or 'even'") > limit:
                raise self._refused("daily_limit", f"at most the limit of {limit}")
        try:
            check_period(self.period, self.zone)
        except ValueError as error:
            raise ValueError(f"budget {self.name!r}: {error}") from None
        for name, known in (("policy", get_args(Policy)), ("on_store_error", (None, *get_args(OnStoreError)))):
            if getattr(self, name) not in known:
                raise self._refused(name, " or ".join(repr(word) for word in known if word))
        if not all(map(_is_percent, self.thresholds)):
            raise self._refused("thresholds", "whole percentages above 0")
        if not _is_percent(self.normal_percent) or self.normal_percent > 100:
            raise self._refused("normal_percent", "a whole percentage from 1 to 100")
        if self.per is not None and (not isinstance(self.per, str) or not self.per):
            raise self._refused("per", "the name of something that calls are attributed to, such as 'user'")
        scope = {scope_key(key): str(value) for key, value in self.scope.items()}
        replaced = {
            "limit": limit,
            "soft_limit": soft,
            "thresholds": tuple(sorted(self.thresholds)),
            "scope": MappingProxyType(scope),
            "per": self.per and scope_key(self.per),
            "on_store_error": self.on_store_error or ("local" if self.policy == "block" else "allow"),
        }
        if self.daily_limit not in {None, "even"}:
            replaced["daily_limit"] = self._amount("daily_limit")
        for name, value in replaced.items():
            object.__setattr__(self, name, value)

    def _amount(self, name: str, wanted: str = "an amount in USD") -> Decimal:
        value = getattr(self, name)
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            raise self._refused(name, wanted) from None
        if isinstance(value, bool) or not amount.is_finite() or amount <= 0:
            raise self._refused(name, f"{wanted} above 0")
        if amount > _MOST:
            raise self._refused(name, f"{wanted} of at most {_MOST:,}")
        return amount

    def _refused(self, name: str, wanted: str) -> ValueError:
        return ValueError(f"budget {self.name!r}: {name} must be {wanted}, not {getattr(self, name)!r}")

    @property
    def blocks(self) -> bool:
        """Whether a call may be refused."""
        return self.policy == "block"

    @property
    def rolling(self) -> bool:
        """Whether the period is a window that moves along."""
        return is_window(self.period)


def _is_percent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


FIELDS: Final = tuple(known.name for known in fields(Budget))


def scope_key(name: str) -> str:
    """The span attribute that a name of a scope stands for.

    >>> scope_key("team"), scope_key("model"), scope_key("tenant"), scope_key("http.route")
    ('costspan.team', 'gen_ai.request.model', 'costspan.tag.tenant', 'http.route')
    """
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
        period_end: datetime | None,
        model: str | None = None,
        reason: Reason = "limit",
        value: str | None = None,
    ) -> None:
        super().__init__(budget, limit, spent, held, asked, period_end, model, reason, value)
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.held = held
        """Reserved by calls that are under way."""
        self.asked = asked
        self.period_end = period_end
        """When a new period begins, in the budget's time zone; of a moving window, when its oldest part leaves it.
        None: the limit is that of a block of code, and ends with it."""
        self.model = model
        self.reason: Reason = reason
        """`limit`: no room; `price`: the model has none; `store`: the budget's store does not answer."""
        self.value = value
        """Whose limit it is, where each value of an attribute has its own (`Budget.per`)."""

    def __str__(self) -> str:
        name = repr(self.budget) if self.value is None else f"{self.budget!r} of {self.value!r}"
        until = "the block ends" if self.period_end is None else f"{self.period_end:%Y-%m-%d %H:%M %Z}"
        state = f"${plain(self.spent)} spent and ${plain(self.held)} held of ${plain(self.limit)}"
        if self.reason == "price":
            return (
                f"budget {name} blocks model {self.model!r}, which has no price in the book: "
                f"add one, or let the budget warn ({state} until {until})"
            )
        if self.reason == "store":
            return (
                f"budget {name} cannot be checked, since its store does not answer, and refuses the call: "
                f"bring the store back, or set on_store_error to 'allow' (last known: {state} until {until})"
            )
        asked = "an unknown amount" if self.asked is None else f"${plain(self.asked)}"
        return f"budget {name} would be exceeded: {state}, this call may cost {asked}; until {until}"


def plain(amount: Decimal) -> str:
    """An amount without needless zeros or an exponent."""
    return f"{amount.normalize():f}"


def usd(nano: int) -> Decimal:
    """USD of nanodollars."""
    return Decimal(nano).scaleb(-9)


def local_time(seconds: float, zone: str) -> datetime:
    """The moment in a zone."""
    return datetime.fromtimestamp(seconds, UTC if zone == "UTC" else zone_of(zone))


def as_table(budget: Budget) -> dict[str, Any]:
    """A budget's fields that are not the default, as plain values: what a file or a command shows."""
    table: dict[str, Any] = {"name": budget.name, "limit": plain(budget.limit)}
    default = Budget(budget.name, budget.limit, policy=budget.policy)
    for name in FIELDS[2:]:
        value = getattr(budget, name)
        if value != getattr(default, name) or (name == "policy" and value != "warn"):
            table[name] = plain(value) if isinstance(value, Decimal) else dict(value) if name == "scope" else value
    return table
