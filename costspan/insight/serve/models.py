"""The answers of the HTTP API, and the bodies that it takes. Amounts are exact: decimal text, in USD."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from costspan.insight.serve.asked import Text, printable
from costspan.rates import decimal_text

Usd = Annotated[
    Decimal,
    PlainSerializer(decimal_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["12.5"]}),
]


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(from_attributes=True)


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was wrong, and what to do.")
    errors: list[dict[str, str]] = Field(default=[], description="Each parameter or field that was refused, and why.")


class KeyAnswer(Answer):
    """The key that was used."""

    name: str
    scope: Literal["read", "write"] = Field(description="`write` may read, too.")


class Time(Answer):
    """A stretch of time."""

    id: str = Field(description="`2026-11`, `2026-11-28`, `7d`, ...")
    start: datetime = Field(description="Included; in the server's time zone.")
    end: datetime = Field(description="Not included.")
    zone: str = Field(description="The server's time zone, an IANA name.")


class Sum(Answer):
    """Sums over calls."""

    cost: Usd | None = Field(description="USD; null where not one of the calls has a figure: see `note`.")
    note: str = Field(description="Why there is no cost, or why it is too low; empty where it is complete.")
    calls: int
    unpriced: int = Field(description="Calls without a price, or with a part of one.")
    failed: int = Field(description="Calls that ended in an error and used nothing.")
    aborted: int = Field(description="Streams that the application stopped reading.")
    input_tokens: int = Field(description="Tokens, those read from and written to caches among them.")
    output_tokens: int = Field(description="Tokens, reasoning among them.")
    cache_read_tokens: int
    cache_hit_rate: float | None = Field(description="Share (0 to 1) of the input tokens that came from a cache.")
    saved: Usd = Field(description="USD that cache reads saved.")
    latency: float | None = Field(description="Mean seconds a call; null where no duration is known.")


class Group(Sum):
    """Sums over calls that have something in common."""

    key: dict[str, str] = Field(description="What they have in common; empty text is `not said`.")
    name: str = Field(description="The key, for people.")
    share: float | None = Field(description="Of the cost of all groups, 0 to 1; null without a cost.")


class Projection(Answer):
    """What the month will have cost at its end."""

    month: str = Field(description="`2026-11`.")
    expected: Usd | None = Field(description="USD; null where too little is known: see `note`.")
    low: Usd | None = Field(description="USD; in 80 of 100 cases the month ends between `low` and `high`.")
    high: Usd | None
    confidence: Literal["certain", "high", "medium", "low", "none"] = Field(
        description="How far the bounds lie from what is expected: within 10 %, within 30 %, further; none: no bounds."
    )
    note: str = Field(description="How the figures were made, or why there are none.")


class Metrics(Answer):
    """How things stand."""

    at: datetime
    zone: str
    calls_known: bool = Field(description="Whether the ledger has a call at all.")
    today: Sum
    week: Sum = Field(description="From Monday.")
    month: Sum = Field(description="The calendar month so far.")
    projected: Projection
    cache_hit_rate: float | None = Field(description="Of the month's input tokens, 0 to 1.")
    calls: int = Field(description="Of the month.")
    missing: int = Field(description="Calls that were made and are not in the ledger: dropped, or lost with a process.")
    by_model: list[Group] = Field(description="Of the month, dearest first; so are the following.")
    by_provider: list[Group]
    by_user: list[Group]
    by_feature: list[Group]


class Breakdown(Answer):
    """Calls told apart by something."""

    period: Time
    by: list[str]
    total: Sum
    groups: list[Group] = Field(description="Dearest first; hours and days in their order.")
    rest: Group | None = Field(description="The groups beyond `limit` together.")


class Point(Answer):
    """An hour or a day."""

    start: datetime
    cost: Usd = Field(description="USD of the calls that have a price.")
    calls: int


class Direction(Answer):
    """Where daily costs are going."""

    direction: Literal["rising", "falling", "flat", "unknown"]
    slope: Usd | None = Field(description="USD a day, more each day than the day before.")
    low: Usd | None = Field(description="USD; with `high`, what holds the slope with 95 % confidence.")
    high: Usd | None
    strength: float | None = Field(description="Kendall's tau without its sign, 0 to 1.")
    days: int = Field(description="Whole days that it rests on.")
    note: str = Field(description="Why there is no figure; else empty.")


class Ahead(Answer):
    """A day to come, or several together, in USD."""

    day: date | None = Field(description="null: all of them together, which has bounds of its own.")
    expected: Usd
    low_80: Usd = Field(description="In 80 of 100 cases it is between this and `high_80`.")
    high_80: Usd
    low_95: Usd
    high_95: Usd


class Anomaly(Answer):
    """A day that is unusual."""

    day: date
    cost: Usd
    expected: Usd
    direction: Literal["above", "below"]
    score: float = Field(description="How many robust standard deviations it is off.")


class Trend(Answer):
    """Costs over time, and what they say."""

    period: Time
    each: Literal["hour", "day"]
    total: Sum
    points: list[Point] = Field(description="Every hour or day of the period in order, those without calls too.")
    trend: Direction
    forecast: list[Ahead] = Field(description="The days from today on; empty where too little is known.")
    forecast_total: Ahead | None
    forecast_note: str = Field(description="How the forecast was made, or why there is none.")
    anomalies: list[Anomaly] = Field(description="Unusual days of the period, against all that are known.")
    anomalies_note: str = Field(description="Why nothing could be looked for; else empty.")


class BudgetValue(Answer):
    """What one user, team, ... has of a budget that each has for itself."""

    value: str
    spent: Usd | None
    used: float | None


class BudgetState(Answer):
    """A budget in its present period."""

    name: str
    status: Literal["ok", "warning", "exceeded", "unknown"] = Field(
        description="`warning` from the threshold of 80 % (or the first above) or the soft limit on."
    )
    limit: Usd = Field(description="USD.")
    soft_limit: Usd | None
    spent: Usd | None = Field(description="USD; null where nobody can tell: see `note`.")
    held: Usd | None = Field(description="USD reserved by calls under way; null where only the ledger tells.")
    remaining: Usd | None
    used: float | None = Field(description="Share of the limit; above 1 it is exceeded.")
    tomorrow: Usd | None = Field(description="USD a day for the days that are left, if the limit is to last.")
    source: Literal["store", "ledger"] = Field(
        description="Who told: the budgets' store, which decides what is refused, or the ledger's calls."
    )
    note: str
    period: str = Field(description="Id of the period: `2026-11`, `last 24h`.")
    kind: str = Field(description="`hour`, `day`, `week`, `month`, `year`, or a window such as `24h`.")
    policy: str
    scope: dict[str, str]
    per: str | None = Field(description="What each value of has the limit for itself.")
    zone: str
    thresholds: list[int] = Field(description="Percent of the limit.")
    values: list[BudgetValue] = Field(description="With `per`: those who have spent most.")


class Budgets(Answer):
    """All budgets."""

    budgets: list[BudgetState]
    note: str = Field(description="What to do where there is none.")


def _money(text: str) -> str:
    Decimal(text)
    return text


Money = Annotated[
    str,
    Field(pattern=r"^\d{1,10}(\.\d{1,12})?$", examples=["12.50"], description="USD as decimal text, above 0."),
    AfterValidator(_money),
]


class BudgetBody(BaseModel):
    """A budget to make, or the fields of one to change; docs/budgets.md says what they mean."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=120), AfterValidator(printable)]
    limit: Money | None = None
    period: Annotated[str, Field(max_length=16)] | None = None
    policy: Literal["observe", "warn", "block", "downgrade"] | None = None
    soft_limit: Money | None = None
    daily_limit: Money | Literal["even"] | None = None
    scope: Annotated[dict[Text, Text], Field(max_length=10)] | None = None
    per: Text | None = None
    zone: Annotated[str, Field(max_length=64)] | None = None
    thresholds: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=20)] | None = None
    normal_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    on_store_error: Literal["allow", "deny", "local"] | None = None


class Alert(Answer):
    """Something that happened to a budget."""

    id: str
    at: datetime
    type: str
    severity: Literal["info", "warning", "critical"]
    budget: str
    period: str
    value: str | None = Field(description="Whose limit it is, where each has one.")
    threshold: int | None = Field(description="Percent of the limit that was reached.")
    limit: Usd
    current: Usd = Field(description="USD spent in the period, then.")
    remaining: Usd
    overage: Usd
    message: str
    advice: str
    acknowledged: bool
    acknowledged_by: str | None


class Alerts(Answer):
    """Events of budgets, the newest first."""

    alerts: list[Alert]
    open: int = Field(description="How many wait to be seen to, whatever is listed.")
    more: int = Field(description="How many are not listed.")


class Acknowledged(Answer):
    """What came of an acknowledgement."""

    id: str
    acknowledged_by: str


Count = Annotated[int, Field(ge=0, le=10**9)]


class ConversationBody(BaseModel):
    """A conversation, in which each turn sends all that was said before."""

    model_config = ConfigDict(extra="forbid")

    messages: int = Field(ge=1, le=1000, description="Messages of each persona.")
    personas: int = Field(default=1, ge=1, le=100, description="Personas that take turns.")
    system_tokens: Count = Field(default=0, description="Of the system prompt of each.")
    message_tokens: Count = Field(default=0, description="That come in before each answer.")


class EstimateBody(BaseModel):
    """A call, or a conversation, that has not been made yet."""

    model_config = ConfigDict(extra="forbid")

    model: Text = Field(description="`provider/model`, such as `openai/gpt-4.1`.")
    others: Annotated[list[Text], Field(max_length=20)] = Field(default=[], description="Models to compare it with.")
    input_tokens: Count | None = Field(default=None, description="Of the prompt; or `characters`.")
    characters: Count | None = Field(default=None, description="Of the prompt: four make a token.")
    output_tokens: Count | None = Field(default=None, description="Of the answer; by default 1,024.")
    max_tokens: Count | None = Field(
        default=None, description="Of the answer at most; without it there is no upper bound."
    )
    cache_hit_rate: float | None = Field(
        default=None, ge=0, le=1, description="Part of the prompt read from the cache."
    )
    seconds: float | None = Field(default=None, ge=0, le=10**6, description="Of a call, for models paid by the hour.")
    tier: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="`batch`, `flex`, `priority`, ..."
    )
    geo: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="Region: `us`, `eu`, ...")
    conversation: ConversationBody | None = Field(default=None, description="Instead of one call.")


class Price(Answer):
    """A cost that is expected."""

    usd: Usd | None = Field(description="USD; null where there is no figure: see `status` and `flags`.")
    status: str
    flags: list[str] = Field(description="What was assumed, or is missing.")
    price_source: str | None = Field(description="The page that the prices are from.")


class Estimated(Answer):
    """What one model would cost."""

    model: str
    expected: Price
    upper: Price = Field(description="At most.")
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Estimate(Answer):
    """What a call or a conversation would cost."""

    book: str = Field(description="Version of the price book.")
    estimate: Estimated
    others: list[Estimated] = Field(description="The cheapest first, those without a price last.")


class StepOf(Answer):
    """A line of arithmetic."""

    what: str
    how: str = Field(description="What to reckon: + - * / and numbers.")
    result: Usd = Field(description="What comes of it, in `unit`.")
    unit: str


class Suggestion(Answer):
    """Something that would cost less; docs/advice.md says how it is found."""

    id: str
    category: str
    priority: Literal["high", "medium", "low"]
    title: str
    subject: dict[str, str] = Field(description="What it is about: provider, model, task, ...")
    calls: int = Field(description="Calls that it rests on.")
    share: float = Field(description="Of all calls, 0 to 1.")
    examples: list[str] = Field(description="Ids of some of them.")
    savings: Usd | None = Field(description="USD a month; null: it says what is, and no figure.")
    savings_low: Usd | None = Field(description="USD; with `savings_high`, what 80 of 100 months save.")
    savings_high: Usd | None
    steps: list[StepOf] = Field(description="The arithmetic of the savings.")
    assumes: str = Field(description="What has to hold for the savings to come.")
    effort: Literal["high", "medium", "low"]
    actions: list[str]
    excludes: list[str] = Field(description="Ids of others for the same calls: the savings of both do not add up.")
    taken: bool
    dismissed: bool


class SavedSince(Answer):
    """What a suggestion has saved since it was followed."""

    usd: Usd | None = Field(description="USD; below 0 if the work has become dearer; null: see `reason`.")
    low: Usd | None = Field(description="USD; with `high`, what holds it with 80 % confidence.")
    high: Usd | None
    reason: str | None = Field(description="Why there is no figure.")


class Taken(Answer):
    """A suggestion that was followed."""

    id: str
    title: str
    taken: datetime
    taken_by: str | None
    saved: SavedSince


class Suggestions(Answer):
    """What would cost less, and what has come of earlier advice."""

    at: datetime = Field(description="When it was looked for: at most ten minutes ago.")
    days: int
    suggestions: list[Suggestion] = Field(description="What saves most first.")
    together: Usd = Field(description="USD a month that those not followed or dismissed save together.")
    more: int = Field(description="How many are not listed.")
    note: str = Field(description="Why there is none; else empty.")
    taken: list[Taken]


class Payback(Answer):
    """When a suggestion has paid for the work to follow it."""

    id: str
    effort: Usd | None = Field(description="USD, once; as asked.")
    savings: Usd | None = Field(description="USD a month.")
    months: Usd | None = Field(description="Months until the savings have made up for the effort.")
    months_low: Usd | None = Field(description="The same if it saves as much as it may.")
    months_high: Usd | None = Field(description="The same if it saves as little as it may.")
    first_year: Usd | None = Field(description="USD that are left of a year's savings.")
    roi: Usd | None = Field(description="The same as a share of the effort: 2 is 200 %.")
    reasons: dict[str, str] = Field(description="Figure: why it is null.")


class Noted(Answer):
    """What became of a suggestion."""

    id: str
    taken: bool
    dismissed: bool


class ReportAnswer(BaseModel):
    """A report as `costspan report --json` prints it."""

    model_config = ConfigDict(extra="allow")

    report: str
    subject: str | None
    period: dict[str, Any]
    generated: str
    summary: dict[str, Any]
    missing: int
