"""What a request asks about: a stretch of time, which calls, groups of them; and whether users keep their names."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from costspan.insight.serve.gate import Refused
from costspan_processor.budgets.periods import period_at, zone_of

if TYPE_CHECKING:
    from costspan.insight.figures import Figures

LONGEST_DAYS: Final = 400
"""Days that one request may look at: a year, and the month before it to compare."""
LONGEST_VALUE: Final = 256
_TAG: Final = r"[A-Za-z0-9_.-]{1,64}"

Grouping = Literal[
    "provider", "model", "task", "user", "feature", "team", "operation", "service", "persona", "agent", "session",
    "conversation", "tier", "status", "hour", "day",
]  # fmt: skip
Period = Literal["today", "yesterday", "24h", "7d", "30d", "90d", "week", "month", "last_month"]

_FILTERS: Final = (
    "service", "provider", "model", "operation", "tier", "team", "feature", "task", "persona", "agent", "status",
    "user", "session", "conversation",
)  # fmt: skip
_DAYS: Final = {"7d": 7, "30d": 30, "90d": 90}
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)?)?")


def printable(text: str) -> str:
    """Text without control characters, which no database takes alike. Raises ValueError."""
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError("no control characters")
    return text


def _split(value: Any) -> Any:
    return [part for text in value for part in str(text).split(",")] if isinstance(value, list) else value


Text = Annotated[str, Field(max_length=LONGEST_VALUE), AfterValidator(printable)]
Instant = Annotated[str, Field(max_length=32, pattern=f"^{_INSTANT.pattern}$")]
Tag = Annotated[
    str, Field(max_length=64 + 1 + LONGEST_VALUE, pattern=f"^{_TAG}=.*$"), AfterValidator(printable)
]  # fmt: skip
By = Annotated[str, Field(pattern=f"^({'|'.join(get_args(Grouping))}|tag\\.{_TAG})$")]


class Query(BaseModel):
    """Parameters; one that is not known is an error, since whoever misspells a filter would get other figures."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Pseudonymised(Query):
    """Parameters of whatever names users."""

    pseudonymise: bool = Field(
        default=False,
        description="Show users as keyed hashes (HMAC-SHA256). A server that always does so cannot be told not to.",
    )


class Stretched(Pseudonymised):
    """Parameters that say which time is meant."""

    period: Period | None = Field(
        default=None,
        description="A stretch of time that ends now, by the server's time zone: `24h`; `7d`, `30d`, `90d` (so many "
        "days, today among them); `today`, `week`, `month` so far; `yesterday`, `last_month`.",
    )
    day: date | None = Field(default=None, description="One day, `YYYY-MM-DD`, by the server's time zone.")
    start: Instant | None = Field(
        default=None, alias="from", description="From then on: a day, or an instant (RFC 3339) to the second."
    )
    end: Instant | None = Field(default=None, alias="to", description="Until then, it not included; by default now.")


class Narrowed(Stretched):
    """Parameters that say which calls are meant: those that agree with all of them. Empty text is "not said"."""

    provider: Text | None = None
    model: Text | None = Field(default=None, description="The model that answered.")
    operation: Text | None = None
    service: Text | None = None
    tier: Text | None = None
    team: Text | None = None
    feature: Text | None = None
    task: Text | None = None
    persona: Text | None = None
    agent: Text | None = None
    user: Text | None = Field(default=None, description="A user; where users are shown as hashes, the hash.")
    session: Text | None = None
    conversation: Text | None = None
    status: Text | None = Field(default=None, description="`costspan.cost.status`: `priced`, `unknown_model`, ...")
    tag: list[Tag] = Field(default=[], max_length=5, description="A tag and its value, `NAME=VALUE`; may be repeated.")


class BreakdownQuery(Narrowed):
    """Parameters of a breakdown."""

    by: Annotated[list[By], BeforeValidator(_split)] = Field(
        default=["model"],
        min_length=1,
        max_length=3,
        description="What calls are told apart by: up to three names, repeated or separated by commas; `tag.NAME` is a "
        "tag. `model` comes with its provider. `hour` and `day` are the server's, by the clock on its wall.",
    )
    limit: int = Field(default=20, ge=1, le=1000, description="Groups listed; what is left is one line, `rest`.")


class TrendQuery(Narrowed):
    """Parameters of a trend."""

    each: Literal["hour", "day"] | None = Field(
        default=None, description="What a point is; by default hours for up to two days, else days."
    )
    horizon: int = Field(default=7, ge=0, le=62, description="Days to forecast; 0: none.")


class MetricsQuery(Pseudonymised):
    """Parameters of the metrics."""

    limit: int = Field(default=10, ge=1, le=100, description="Lines of each breakdown.")


class ReportQuery(Pseudonymised):
    """Parameters of a report."""

    kind: Literal["day", "week", "month", "conversation", "session", "feature"] = Field(
        default="day", description="A stretch of time, or calls that have something in common."
    )
    day: date | None = Field(default=None, description="The day, or one in the week or month; by default today.")
    subject: Text | None = Field(default=None, description="Which conversation, session or feature.")
    advice: bool = Field(default=False, description="With suggestions, of a day, week or month.")
    format: Literal["json", "markdown", "csv", "html"] = "json"


class AlertsQuery(Pseudonymised):
    """Parameters of the alerts."""

    acknowledged: bool | None = Field(default=None, description="Only those that have been seen to, or have not.")
    limit: int = Field(default=100, ge=1, le=1000)


class SuggestionsQuery(Query):
    """Parameters of the suggestions."""

    category: Text | None = None
    dismissed: bool = Field(default=False, description="Those that were dismissed, too.")
    days: Literal[7, 14, 30, 60, 90] = Field(default=30, description="Days of calls, up to now, that they rest on.")
    limit: int = Field(default=50, ge=1, le=200)


class PaybackQuery(Query):
    """Parameters of a suggestion's return."""

    effort: str | None = Field(
        default=None, pattern=r"^\d{1,10}(\.\d{1,12})?$", description="USD that it costs to follow it, once."
    )


class Stretch(NamedTuple):
    """A stretch of time: `start` included, `end` not, in unix seconds."""

    id: str
    start: int
    end: int


def stretch(query: Stretched, now: float, zone: str, otherwise: Period = "month") -> Stretch:
    """The time that is meant. Raises Refused."""
    given = [query.period, query.day, query.start or query.end]
    if len([one for one in given if one is not None]) > 1:
        raise Refused(422, "give period, day, or from and to: one of the three")
    if query.day is not None:
        return _of_day(query.day, zone)
    until = math.ceil(now)
    if query.start is None and query.end is None:
        return _named(query.period or otherwise, until, zone)
    if query.start is None:
        raise Refused(422, "to needs a from")
    start = _second(query.start, zone, "from")
    end = until if query.end is None else _second(query.end, zone, "to")
    if end <= start:
        raise Refused(422, "from must lie before to, and in the past if there is no to")
    if end - start > LONGEST_DAYS * 86400:
        raise Refused(422, f"at most {LONGEST_DAYS} days can be asked for at once")
    return Stretch(f"{query.start}/{query.end or ''}".rstrip("/"), start, end)


def _named(period: Period, until: int, zone: str) -> Stretch:
    if period == "24h":
        return Stretch(period, until - 86400, until)
    if period in _DAYS:
        today = datetime.fromtimestamp(until - 1, zone_of(zone)).date()
        first = _of_day(today - timedelta(days=_DAYS[period] - 1), zone)
        return Stretch(period, first.start, until)
    kind = {"today": "day", "yesterday": "day", "last_month": "month"}.get(period, period)
    present = period_at(kind, until - 1, zone)
    if period in {"yesterday", "last_month"}:
        return Stretch(*period_at(kind, present.start - 1, zone))
    return Stretch(present.id, present.start, until)


def _of_day(day: date, zone: str) -> Stretch:
    if not 1970 < day.year < 9999:
        raise Refused(422, f"there are no calls of {day.isoformat()}")
    # Noon is on the day whatever the clocks do.
    return Stretch(
        *period_at("day", datetime(day.year, day.month, day.day, 12, tzinfo=zone_of(zone)).timestamp(), zone)
    )


def _second(text: str, zone: str, name: str) -> int:
    try:
        if "T" not in text:
            return _of_day(date.fromisoformat(text), zone).start
        moment = datetime.fromisoformat(text)
        second = (moment if moment.tzinfo else moment.replace(tzinfo=zone_of(zone))).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise Refused(
            422, f"{name} is no day such as 2026-11-03, nor an instant such as 2026-11-03T09:00:00Z"
        ) from None
    if not 0 <= second < 253_000_000_000:
        raise Refused(422, f"{name} lies outside of the years 1970 to 9986")
    return int(second)


class Users:
    """How users are shown: by name, or by a keyed hash of it, as `COSTSPAN_USER_KEY` makes them in a process."""

    def __init__(self, key: bytes | None) -> None:
        """None: by name."""
        self._key = key

    def __bool__(self) -> bool:
        """Whether names are hidden."""
        return self._key is not None

    def shown(self, user: str) -> str:
        """The user as answers have it; "not said" stays so."""
        if self._key is None or not user:
            return user
        return hmac.new(self._key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def where(self, query: Narrowed, figures: Figures, time: Stretch) -> dict[str, str]:
        """The columns that calls must agree with. Raises Refused for a hash that is nobody's."""
        found = {name: value for name in _FILTERS if (value := getattr(query, name)) is not None}
        for text in query.tag:
            name, _, value = text.partition("=")
            if found.setdefault(f"tag.{name}", value) != value:
                raise Refused(422, f"tag {name} cannot have two values")
        if self and (wanted := found.get("user")):
            known = figures.spent(time.start, time.end, ("user",))
            # Whoever knows a name and not the key must not learn what it has cost.
            names = [user for (user,) in known if user and hmac.compare_digest(self.shown(user), wanted)]
            if not names:
                raise Refused(404, "no user has this hash in this time")
            found["user"] = names[0]
        return found
