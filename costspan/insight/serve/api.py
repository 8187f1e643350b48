"""The paths of the HTTP API: what is asked of a ledger, a price book and the budgets, and how it is answered."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from bisect import bisect_right
from collections import defaultdict
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Route

from costspan._version import __version__
from costspan.insight.figures import HOUR, Figures, Spent, Sums, dearest_first, usd
from costspan.insight.report import NOT_SAID, STRETCHES, build, stretch_of
from costspan.insight.serve import models
from costspan.insight.serve.asked import (
    AlertsQuery,
    BreakdownQuery,
    MetricsQuery,
    Narrowed,
    PaybackQuery,
    Pseudonymised,
    ReportQuery,
    Stretch,
    SuggestionsQuery,
    TrendQuery,
    Users,
    stretch,
)
from costspan.insight.serve.audit import Audit
from costspan.insight.serve.budgets import Held
from costspan.insight.serve.gate import BASE, KEY, Gate, Refused, route_path
from costspan.insight.serve.keys import Key, Keys, of_environment
from costspan.insight.serve.suggestions import Suggestions
from costspan_pricing.estimate import Estimator
from costspan_processor.budgets.periods import period_at, zone_of
from costspan_processor.ledger.store import open_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Engine

    from costspan.insight.advice import Advice
    from costspan.insight.analysis import MonthEnd
    from costspan.settings import Settings
    from costspan_pricing import Cost, PriceBook
    from costspan_pricing.estimate import Conversation, Estimate

_log = logging.getLogger("costspan")

REQUESTS_A_MINUTE: Final = 600
"""That one key may make, if nobody says otherwise: a page that is open makes about twenty."""

_HISTORY: Final = 120
"""Days that a projection and a forecast learn from."""
_AROUND: Final = 28
"""Days before and after a period that say what is usual in it."""
_MOST_HOURS: Final = 62 * 24
_USER: Final = "user.id"
_CUBE: Final = ("provider", "model", "feature")


def app(
    ledger: str | Engine | None = None,
    *,
    keys: Keys | None = None,
    zone: str = "UTC",
    pseudonymise: bool = False,
    rate: int = REQUESTS_A_MINUTE,
    settings: Settings | None = None,
) -> Gate:
    """The API and its page as an ASGI application: to run, or to mount in FastAPI or Starlette under any path.

    ledger: its URL or path, or an engine; by default `COSTSPAN_LEDGER`.
    keys: who may ask; by default those of `COSTSPAN_API_KEYS`. There is no way without.
    zone: the time zone in which days, weeks and months begin.
    pseudonymise: show users as keyed hashes, whatever is asked for. The key is `COSTSPAN_USER_KEY`; where that is not
        set, one is drawn at random, and the hashes change with each start.
    rate: requests that a key may make in a minute.
    settings: where budgets and prices come from; by default the environment, as in a process.

    Call `close()` of it when the outer application ends. Raises ValueError for what cannot be used, LedgerError for a
    ledger that cannot be opened, and ImportError where an extra is missing.
    """
    from costspan.book import price_book
    from costspan.settings import load

    known = Keys(of_environment()) if keys is None else keys
    if not known and known.path is None:
        raise ValueError("nobody could ask anything: set COSTSPAN_API_KEYS, or give keys=")
    zone_of(zone)
    settings = settings or load({})
    where = ledger if ledger is not None else os.environ.get("COSTSPAN_LEDGER", "")
    if isinstance(where, str) and not where:
        raise ValueError("there is no ledger to show: give its URL, or set COSTSPAN_LEDGER")
    opened = open_ledger(where) if isinstance(where, str) else None
    engine = opened.engine if opened is not None else where
    assert not isinstance(engine, str)
    figures, book = Figures(engine), price_book(settings)
    held = Held(settings, book, engine, figures)
    secret = settings.user_key.encode() or secrets.token_bytes(32)
    api = _Api(figures, engine, held, book, zone, secret, pseudonymise)

    def begin() -> None:
        try:
            api.projected(time.time())
        except SQLAlchemyError:
            # Whoever asks will be told.
            _log.warning("costspan: the ledger does not answer yet")

    def close() -> None:
        held.close()
        if opened is not None:
            opened.close()

    inner = api.application()
    return Gate(inner, known, Audit(engine), rate, openapi=inner.openapi, begin=begin, close=close)


class _Api:
    """What the paths share."""

    def __init__(
        self, figures: Figures, engine: Engine, held: Held, book: PriceBook, zone: str, secret: bytes, always: bool
    ) -> None:
        self.figures = figures
        self.engine = engine
        self.held = held
        self.book = book
        self.zone = zone
        self.clock = zone_of(zone)
        self._hidden = Users(secret)
        self._named = Users(None)
        self._always = always
        self._projection: tuple[Any, MonthEnd] | None = None

    def users(self, query: Pseudonymised) -> Users:
        """Whoever asks for hashes gets them; whoever must get them cannot ask for names."""
        return self._hidden if self._always or query.pseudonymise else self._named

    def local(self, second: float) -> datetime:
        """A moment as the server's clock shows it."""
        return datetime.fromtimestamp(second, self.clock)

    def today(self, now: float) -> date:
        """The day that is running."""
        return self.local(now).date()

    def time(self, asked: Stretch) -> dict[str, Any]:
        """A stretch of time as answers have it."""
        return {"id": asked.id, "start": self.local(asked.start), "end": self.local(asked.end), "zone": self.zone}

    def group(
        self, names: Sequence[str], values: Sequence[str], sums: Sums, total: Sums, users: Users
    ) -> dict[str, Any]:
        """A line of a breakdown."""
        key = {name: users.shown(value) if name == "user" else value for name, value in zip(names, values, strict=True)}
        shown = "/".join(value or NOT_SAID for value in key.values())
        line = told(sums)
        share = sums.cost / total.cost if total.cost and line["cost"] is not None else None
        return {**line, "key": key, "name": shown, "share": share}

    def groups(
        self, names: Sequence[str], found: Mapping[tuple[str, ...], Sums], total: Sums, users: Users, limit: int
    ) -> list[dict[str, Any]]:
        """The dearest values of something; without those who said none."""
        named = [(values, sums) for values, sums in dearest_first(found).items() if any(values)]
        return [self.group(names, values, sums, total, users) for values, sums in named[:limit]]

    def days(self, where: Mapping[str, str], start: float, end: float) -> dict[date, int]:
        """Picodollars of each day of a stretch of time that the ledger knows."""
        return self.figures.known_days(int(start), math.ceil(end), self.zone, where)

    def projected(self, now: float) -> dict[str, Any]:
        """What the month will have cost. It is made by simulation, and so not twice from the same days."""
        from costspan.insight import analysis

        running = period_at("day", now, self.zone)
        elapsed = min(1.0, round((now - running.start) / (running.end - running.start), 2))
        days = self.days({}, now - _HISTORY * 86400, now)
        asked = (elapsed, tuple(days.items()))
        if self._projection is None or self._projection[0] != asked:
            self._projection = asked, analysis.project_month(days, self.today(now), elapsed)
        found = self._projection[1]
        bounds = found.range
        return {
            "month": found.month,
            "expected": found.expected,
            "low": None if bounds is None else bounds.low_80,
            "high": None if bounds is None else bounds.high_80,
            "confidence": found.confidence,
            "note": found.basis,
        }

    def application(self) -> FastAPI:
        """The application behind the gate."""
        inner = FastAPI(
            title="costspan",
            version=__version__,
            description="What LLM calls cost, from a ledger of costspan. Amounts are exact: decimal text in USD; null "
            "means that nobody knows, and something beside it says why. Every request needs a key.",
            docs_url=None,
            redoc_url=None,
            openapi_url=f"{BASE}/openapi.json",
            redirect_slashes=False,
            responses={status: {"model": models.Problem, "description": why} for status, why in _PROBLEMS.items()},
        )
        for paths in (_reading, _budgets, _alerts, _suggesting, _estimating):
            paths(inner, self)
        _errors(inner)
        _described(inner)
        return inner


_PROBLEMS: Final = {
    400: "The body cannot be read.",
    401: "No key, or one that is not known.",
    403: "The key may not do this.",
    405: "The path does not take this method.",
    408: "The body did not come.",
    413: "The body is too large.",
    414: "Query or path are too long.",
    422: "A parameter makes no sense.",
    429: "Too many requests; `Retry-After` says when to come again.",
    503: "The ledger does not answer; `Retry-After` says when to come again.",
}


def _folded(cube: Mapping[tuple[str, ...], Sums], names: int) -> dict[tuple[str, ...], Sums]:
    """Sums by the first (negative: the last) so many of the names that there are sums by."""
    found: dict[tuple[str, ...], Sums] = defaultdict(Sums)
    for values, sums in cube.items():
        found[values[:names] if names > 0 else values[names:]] += sums
    return found


def told(sums: Sums) -> dict[str, Any]:
    """Sums as answers have them: what is not known is null, and said."""
    known = sums.cost or sums.unpriced + sums.failed < sums.calls or not sums.calls
    note = ""
    if sums.unpriced:
        few = f"{sums.unpriced} of {sums.calls} calls have no price, or lack a part of it"
        note = f"{few}: the cost is too low by what they cost" if known else f"{few}: there is no cost to tell"
    elif not known:
        note = "no call came to an end that has a cost"
    return {
        "cost": sums.usd if known else None,
        "note": note,
        "saved": usd(sums.saved),
        **{
            name: getattr(sums, name)
            for name in (
                "calls", "unpriced", "failed", "aborted", "input_tokens", "output_tokens", "cache_read_tokens",
                "cache_hit_rate", "latency",
            )
        },
    }  # fmt: skip


# ------------------------------------------------------------------ figures


def _reading(inner: FastAPI, api: _Api) -> None:
    figures = api.figures

    @inner.get(f"{BASE}/key", response_model=models.KeyAnswer, tags=["keys"])
    async def key(who: Who) -> Any:
        """The name of the key that was used, and what it may."""
        return who

    @inner.get(f"{BASE}/metrics", response_model=models.Metrics, tags=["figures"])
    def metrics(query: Annotated[MetricsQuery, Query()]) -> Any:
        """How things stand: today, this week, this month and what it comes to, and who spends most of it."""
        now, users = time.time(), api.users(query)
        parts = {kind: stretch(Narrowed(period=kind), now, api.zone) for kind in ("today", "week", "month")}
        month = parts["month"]
        with figures.at_once() as seen:
            sums = {kind: seen.total(parts[kind].start, parts[kind].end) for kind in ("today", "week")}
            # One question for all of the month but its users, of whom there may be thousands.
            cube = seen.sums(month.start, month.end, _CUBE)
            dearest = [user for (user,) in seen.spent(month.start, month.end, ("user",)) if user][: query.limit]
            by_user = seen.sums(month.start, month.end, ("user",), {"user": dearest})
        total = sums["month"] = sum(cube.values(), Sums())
        lines = {
            "by_model": api.groups(("provider", "model"), _folded(cube, 2), total, users, query.limit),
            "by_provider": api.groups(("provider",), _folded(cube, 1), total, users, query.limit),
            "by_user": api.groups(("user",), by_user, total, users, query.limit),
            "by_feature": api.groups(("feature",), _folded(cube, -1), total, users, query.limit),
        }
        return {
            "at": api.local(now),
            "zone": api.zone,
            "calls_known": bool(total.calls) or figures.known() is not None,
            **{kind: told(one) for kind, one in sums.items()},
            "projected": api.projected(now),
            "cache_hit_rate": total.cache_hit_rate,
            "calls": total.calls,
            "missing": figures.missing(),
            **lines,
        }

    @inner.get(f"{BASE}/breakdown", response_model=models.Breakdown, tags=["figures"])
    def breakdown(query: Annotated[BreakdownQuery, Query()]) -> Any:
        """Calls of a stretch of time, told apart by up to three things."""
        asked, users = stretch(query, time.time(), api.zone), api.users(query)
        where = users.where(query, figures, asked)
        names = list(dict.fromkeys(query.by))
        if "model" in names and "provider" not in names:
            names.insert(names.index("model"), "provider")
        clock = [name for name in names if name in {"hour", "day"}]
        found = _by_clock(api, names, asked, where) if clock else figures.sums(asked.start, asked.end, names, where)
        total = sum(found.values(), Sums())
        lines = list(found.items())
        rest = sum((sums for _, sums in lines[query.limit :]), Sums())
        return {
            "period": api.time(asked),
            "by": names,
            "total": told(total),
            "groups": [api.group(names, values, sums, total, users) for values, sums in lines[: query.limit]],
            "rest": {
                **api.group((), (), rest, total, users),
                "name": f"{len(lines) - query.limit} others",
            }
            if len(lines) > query.limit
            else None,
        }

    @inner.get(f"{BASE}/trend", response_model=models.Trend, tags=["figures"])
    def trend(query: Annotated[TrendQuery, Query()]) -> Any:
        """Costs by hour or day, where they are going, what is unusual, and what comes next."""
        now = time.time()
        asked, users = stretch(query, now, api.zone, otherwise="30d"), api.users(query)
        where = users.where(query, figures, asked)
        each = query.each or ("hour" if asked.end - asked.start <= 2 * 86400 else "day")
        points = _points(api, asked, each, where)
        return {
            "period": api.time(asked),
            "each": each,
            "total": told(figures.total(asked.start, asked.end, where)),
            "points": [{"start": start, "cost": spent.usd, "calls": spent.calls} for start, spent in points],
            **_analysed(api, asked, where, now, query.horizon),
        }

    @inner.get(
        f"{BASE}/report",
        response_model=models.ReportAnswer,
        tags=["figures"],
        responses={
            200: {"content": {kind: {"schema": {"type": "string"}} for kind in list(_KINDS.values())[1:]}},
            404: {"model": models.Problem, "description": "The ledger has no such calls."},
        },
    )
    def report(query: Annotated[ReportQuery, Query()]) -> Any:
        """A report, as `costspan report` makes it: of a day, week, month, conversation, session or feature."""
        from costspan.insight.show import to_json, write
        from costspan.insight.study import advise_on, study

        now, users = time.time(), api.users(query)
        if (query.kind in STRETCHES) == (query.subject is not None):
            raise Refused(422, "a report of a conversation, session or feature needs a subject, and no other has one")
        if query.kind not in STRETCHES and query.day is not None:
            raise Refused(422, f"a report of a {query.kind} is of all its time: day is for day, week and month")
        if query.day is not None and not 1970 < query.day.year < 9999:
            raise Refused(422, f"there are no calls of {query.day.isoformat()}")
        when = stretch_of(query.kind, query.day, now, api.zone) if query.kind in STRETCHES else None
        try:
            made = build(
                figures,
                query.kind,
                subject=query.subject,
                stretch=when,
                budgets=api.held.budgets(),
                zone=api.zone,
                now=now,
            )
        except ValueError as error:
            raise Refused(404, str(error)) from None
        if when is not None:
            study(made, figures, when.start, when.end, zone=api.zone, now=now)
            if query.advice:
                advise_on(made, figures, min(when.end, int(now) + 1), book=api.book)
        if users:
            _hide(made, users, [b.name for b in api.held.budgets() if b.per == _USER])
        kind = _KINDS[query.format]
        text = to_json(made) if query.format == "json" else write(made, query.format)
        headers = (
            {} if query.format == "json" else {"content-disposition": f'attachment; filename="{_file(made, query)}"'}
        )
        return Response(text, media_type=kind, headers=headers)


_KINDS: Final = {"json": "application/json", "markdown": "text/markdown", "csv": "text/csv", "html": "text/html"}


def _file(made: Mapping[str, Any], query: ReportQuery) -> str:
    ending = {"markdown": "md"}.get(query.format, query.format)
    identifier = made["period"]["id"]
    return f"costspan-{query.kind}-{identifier if identifier.isascii() else 'all'}.{ending}"


def _by_clock(api: _Api, names: Sequence[str], asked: Stretch, where: Mapping[str, str]) -> dict[tuple[str, ...], Sums]:
    """Sums for each hour or day, in their order, and the other names; dearest first among those."""
    if "day" in names and "hour" in names:
        raise Refused(422, "by takes hour or day, not both")
    each = "day" if "day" in names else "hour"
    others, at = [name for name in names if name != each], names.index(each)
    edges = _edges(api, asked, each)
    found: dict[tuple[int, tuple[str, ...]], Sums] = {}
    if any(edge % HOUR for edge in edges[1:-1]):
        for start, end in pairwise(edges):
            for values, sums in api.figures.sums(start, end, others, where).items():
                found[start, values] = sums
    else:
        for (hour, *rest), sums in api.figures.sums(asked.start, asked.end, ("hour", *others), where).items():
            key = _edge_before(edges, int(hour) * HOUR), tuple(rest)
            found[key] = found[key] + sums if key in found else sums
    told: dict[tuple[str, ...], Sums] = {}
    for (start, values), sums in sorted(found.items(), key=lambda item: (item[0][0], -item[1].cost, item[0][1])):
        moment = api.local(start)
        told[*values[:at], moment.date().isoformat() if each == "day" else moment.isoformat(), *values[at:]] = sums
    return told


def _edges(api: _Api, asked: Stretch, each: str) -> list[int]:
    """Where the hours or days of a stretch of time begin, from its own start to its own end."""
    if each == "hour" and asked.end - asked.start > _MOST_HOURS * HOUR:
        raise Refused(422, f"at most {_MOST_HOURS} hours can be told apart: ask for days, or for less time")
    edges = [asked.start]
    while edges[-1] < asked.end:
        edges.append(min(period_at(each, edges[-1], api.zone).end, asked.end))
    return edges


def _edge_before(edges: Sequence[int], second: int) -> int:
    """The last edge up to a second; the hour that a stretch of time begins in is the first."""
    return edges[max(0, bisect_right(edges, second) - 1)]


def _points(api: _Api, asked: Stretch, each: str, where: Mapping[str, str]) -> list[tuple[datetime, Spent]]:
    """What each hour or day has cost, in order, those without calls too."""
    edges = _edges(api, asked, each)
    found = dict.fromkeys(edges[:-1], Spent())
    if any(edge % HOUR for edge in edges[1:-1]):
        for start, end in pairwise(edges):
            found[start] = api.figures.spent(start, end, where=where).get((), Spent())
    else:
        # All edges but the outermost are whole hours, which come from one question.
        for second, spent in api.figures.by_hour(asked.start, asked.end, where).items():
            start = _edge_before(edges, second)
            found[start] += spent
    return [(api.local(start), spent) for start, spent in found.items()]


def _analysed(
    api: _Api, asked: Stretch, where: Mapping[str, str], now: float, horizon: int
) -> dict[str, Any]:  # fmt: skip
    """What the days of a period say. What is usual is learned from those around it too, what comes from the last."""
    from costspan.insight import analysis

    today = api.today(now)
    around = api.days(where, asked.start - _AROUND * 86400, min(now, asked.end + _AROUND * 86400))
    first, last = api.today(asked.start), api.today(asked.end - 1)
    found = analysis.trend(
        {day: pico for day, pico in around.items() if first <= day <= last}, today=today if last >= today else None
    )
    history = api.days(where, now - _HISTORY * 86400, now) if horizon else {}
    ahead = analysis.forecast(history, horizon, today=today) if horizon else None
    unusual = analysis.anomalies({day: pico for day, pico in around.items() if day < today})
    return {
        "trend": {
            "direction": found.direction,
            "slope": found.slope,
            "low": found.low,
            "high": found.high,
            "strength": found.strength,
            "days": found.days,
            "note": found.reason or "",
        },
        "forecast": [] if ahead is None else [{"day": day, **one._asdict()} for day, one in ahead.days.items()],
        "forecast_total": None if ahead is None or ahead.total is None else {"day": None, **ahead.total._asdict()},
        "forecast_note": "not asked for" if ahead is None else ahead.basis,
        "anomalies": [
            {
                "day": one.at,
                "cost": one.amount,
                "expected": one.expected,
                "direction": one.direction,
                "score": one.score,
            }
            for one in unusual.found
            if first <= one.at <= last
        ],
        "anomalies_note": unusual.reason or "",
    }


def _hide(made: dict[str, Any], users: Users, budgets: Sequence[str]) -> None:
    """Put hashes in the place of users in a report."""
    for line in made.get("by_user", ()):
        if line["name"] != NOT_SAID and not line["name"].startswith("(others)"):
            line["name"] = users.shown(line["name"])
    for row in (*made.get("top_calls", ()), *made.get("calls", ())):
        if "user" in row:
            row["user"] = users.shown(row["user"])
    for line in made["budgets"]:
        start = next((f"{name} of " for name in budgets if line["name"].startswith(f"{name} of ")), None)
        if start is not None:
            line["name"] = start + users.shown(line["name"].removeprefix(start))


# ------------------------------------------------------------------ budgets and alerts

_NAME = Annotated[str, Path(max_length=120, description="The budget's name.")]
_ID = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The alert's id.")]


def _who(request: Request) -> Key:
    found: Key = request.scope[KEY]
    return found


Who = Annotated[Key, Depends(_who)]


def _budgets(inner: FastAPI, api: _Api) -> None:
    @inner.get(f"{BASE}/budgets", response_model=models.Budgets, tags=["budgets"])
    def budgets(query: Annotated[Pseudonymised, Query()]) -> Any:
        """All budgets in their present periods."""
        found = api.held.states(api.users(query))
        note = "" if found else "there is none: POST one, or run `costspan budgets set NAME --limit USD`"
        return {"budgets": found, "note": note}

    @inner.post(
        f"{BASE}/budgets",
        response_model=models.Budgets,
        tags=["budgets"],
        responses={
            201: {"model": models.Budgets, "description": "The budget is new."},
            409: {"model": models.Problem, "description": "The environment sets this budget, or the file is wrong."},
        },
    )
    def set_budget(body: models.BudgetBody, response: Response) -> Any:
        """Make a budget in the configuration file, or change the fields that are given. Needs a key that may write.

        Programs that run read the file again by themselves, as after `costspan budgets set`.
        """
        if api.held.put(body):
            response.status_code = 201
        return {"budgets": api.held.states(api.users(Pseudonymised()), body.name), "note": ""}

    @inner.get(
        f"{BASE}/budgets/{{name:path}}/status",
        response_model=models.Budgets,
        tags=["budgets"],
        responses={404: {"model": models.Problem, "description": "There is no such budget."}},
    )
    def status(name: _NAME, query: Annotated[Pseudonymised, Query()]) -> Any:
        """One budget; a monthly one may have a day of its own beside it."""
        found = api.held.states(api.users(query), name)
        if not found:
            raise Refused(404, "there is no budget of this name")
        return {"budgets": found, "note": ""}


def _alerts(inner: FastAPI, api: _Api) -> None:
    @inner.get(f"{BASE}/alerts", response_model=models.Alerts, tags=["budgets"])
    def alerts(query: Annotated[AlertsQuery, Query()]) -> Any:
        """What has happened to budgets, the newest first."""
        noted, users = api.held.noted(), api.users(query)
        clear = api.held.without_users() if users else set()
        wanted = [one for one in noted if query.acknowledged in {None, bool(one.acknowledged_by)}]

        def shown(one: Any) -> dict[str, Any]:
            event = one.event
            if event.value is not None and users and event.budget not in clear:
                event = event._replace(value=users.shown(event.value))
            return {
                **event._asdict(),
                "id": one.id,
                "at": event.at.astimezone(api.clock),
                "message": event.message,
                "acknowledged": bool(one.acknowledged_by),
                "acknowledged_by": one.acknowledged_by or None,
            }

        return {
            "alerts": [shown(one) for one in wanted[: query.limit]],
            "open": sum(not one.acknowledged_by for one in noted),
            "more": max(0, len(wanted) - query.limit),
        }

    @inner.post(
        f"{BASE}/alerts/{{alert_id}}/acknowledge",
        response_model=models.Acknowledged,
        tags=["budgets"],
        responses={404: {"model": models.Problem, "description": "There is no such alert."}},
    )
    def acknowledge(alert_id: _ID, who: Who) -> Any:
        """Note that somebody has seen to an alert: the name of the key. Needs a key that may write."""
        return {"id": alert_id, "acknowledged_by": api.held.acknowledge(alert_id, who.name)}


# ------------------------------------------------------------------ suggestions

_ADVICE = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,64}$", description="The suggestion's id.")]


def _suggesting(inner: FastAPI, api: _Api) -> None:
    made = Suggestions(api.engine, api.figures, api.book)
    none_such: dict[int | str, dict[str, Any]] = {
        404: {"model": models.Problem, "description": "There is no such suggestion."}
    }

    @inner.get(f"{BASE}/suggestions", response_model=models.Suggestions, tags=["suggestions"])
    def suggestions(query: Annotated[SuggestionsQuery, Query()]) -> Any:
        """What would cost less, with the arithmetic to check it by; and what earlier advice has saved."""
        from costspan.insight.advice import together

        at, found = made.given(query.days)
        noted = made.noted()
        taken = {one for one, row in noted.items() if row.taken is not None}
        dismissed = {one for one, row in noted.items() if row.dismissed is not None}
        wanted = [
            one
            for one in found
            if query.category in {None, one.category} and (query.dismissed or one.id not in dismissed)
        ]
        lines = [_suggestion(one, one.id in taken, one.id in dismissed) for one in wanted[: query.limit]]
        return {
            "at": api.local(at),
            "days": query.days,
            "suggestions": lines,
            "together": together([one for one in found if one.id not in taken | dismissed]),
            "more": len(wanted) - len(lines),
            "note": "" if wanted else "nothing is borne out by the calls that there are",
            "taken": [{**one, "taken": api.local(one["taken"])} for one in made.saved(time.time())],
        }

    @inner.get(
        f"{BASE}/suggestions/{{suggestion_id}}/roi",
        response_model=models.Payback,
        tags=["suggestions"],
        responses=none_such,
    )
    def roi(suggestion_id: _ADVICE, query: Annotated[PaybackQuery, Query()]) -> Any:
        """When it has paid for the work to follow it."""
        from costspan.insight.roi import payback

        one = made.find(suggestion_id)
        found = payback(one, None if query.effort is None else Decimal(query.effort))
        figures = ("effort", "months", "months_low", "months_high", "first_year", "roi", "reasons")
        return {
            "id": one.id,
            "savings": None if one.savings is None else one.savings.expected,
            **{name: getattr(found, name) for name in figures},
        }

    @inner.post(
        f"{BASE}/suggestions/{{suggestion_id}}/take",
        response_model=models.Noted,
        tags=["suggestions"],
        responses=none_such,
    )
    def take(suggestion_id: _ADVICE, who: Who) -> Any:
        """Note that it has been followed, so that what it saves is measured from now on. Needs a key that may write."""
        made.take(suggestion_id, who.name)
        return {"id": suggestion_id, "taken": True, "dismissed": False}

    @inner.post(
        f"{BASE}/suggestions/{{suggestion_id}}/dismiss",
        response_model=models.Noted,
        tags=["suggestions"],
        responses=none_such,
    )
    def dismiss(suggestion_id: _ADVICE) -> Any:
        """Note that it is not wanted. Needs a key that may write."""
        made.dismiss(suggestion_id)
        row = made.noted()[suggestion_id]
        return {"id": suggestion_id, "taken": row.taken is not None, "dismissed": True}


def _suggestion(one: Advice, taken: bool, dismissed: bool) -> dict[str, Any]:
    saves = one.savings
    return {
        **{
            name: getattr(one, name)
            for name in (
                "id", "category", "priority", "title", "calls", "share", "examples", "assumes", "effort", "actions",
                "excludes",
            )
        },
        "subject": dict(one.subject),
        "steps": [step._asdict() for step in one.steps],
        "savings": None if saves is None else saves.expected,
        "savings_low": None if saves is None else saves.low,
        "savings_high": None if saves is None else saves.high,
        "taken": taken,
        "dismissed": dismissed,
    }  # fmt: skip


# ------------------------------------------------------------------ estimates


def _estimating(inner: FastAPI, api: _Api) -> None:
    @inner.post(f"{BASE}/estimate", response_model=models.Estimate, tags=["estimates"])
    def estimate(body: models.EstimateBody) -> Any:
        """What a call or a conversation will cost, expected and at most; on other models, too."""
        estimator = Estimator(api.book, time.time_ns(), tier=body.tier, geo=body.geo)
        if body.conversation is not None and (body.input_tokens, body.characters) != (None, None):
            raise Refused(422, "a conversation says its tokens itself: leave out input_tokens and characters")
        try:
            first, *others = [_estimated(estimator, body, model) for model in (body.model, *body.others)]
        except ValueError as error:
            raise Refused(422, str(error)) from None
        others.sort(key=lambda one: (one["expected"]["usd"] is None, one["expected"]["usd"] or 0))
        return {"book": api.book.version, "estimate": first, "others": others}


def _estimated(estimator: Estimator, body: models.EstimateBody, model: str) -> dict[str, Any]:
    found: Estimate | Conversation
    if body.conversation is not None:
        turns = body.conversation
        if turns.messages * turns.personas > 1000:
            raise ValueError("messages x personas are 1,000 at most")
        found = estimator.conversation(
            model,
            messages=turns.messages,
            personas=turns.personas,
            system_tokens=turns.system_tokens,
            message_tokens=turns.message_tokens,
            output_tokens=body.output_tokens,
            max_tokens=body.max_tokens,
            cache_hit_rate=body.cache_hit_rate,
            seconds=body.seconds,
        )
    else:
        found = estimator.call(
            model,
            input_tokens=body.input_tokens,
            characters=body.characters,
            output_tokens=body.output_tokens,
            max_tokens=body.max_tokens,
            cache_hit_rate=body.cache_hit_rate or 0,
            seconds=body.seconds,
        )
    return {
        "model": model,
        "expected": _price(found.expected),
        "upper": _price(found.upper),
        "input_tokens": found.input_tokens,
        "cached_tokens": found.cached_tokens,
        "output_tokens": found.output_tokens,
    }


def _price(cost: Cost) -> dict[str, Any]:
    return {
        "usd": cost.usd,
        "status": cost.status,
        "flags": list(cost.flags),
        "price_source": cost.period_source or None,
    }


# ------------------------------------------------------------------ errors, and the description


def _errors(inner: FastAPI) -> None:
    """Whatever goes wrong is told as a problem, and never how."""

    def answer(refused: Refused) -> Response:
        return Response(refused.body(), refused.status, refused.headers, "application/problem+json")

    @inner.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return answer(error)

    @inner.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = [
            {"where": ".".join(str(part)[:80] for part in one["loc"]), "what": str(one["msg"])[:300]}
            for one in error.errors()[:20]
        ]
        first = f"{wrong[0]['where']}: {wrong[0]['what']}" if wrong else "the request makes no sense"
        return answer(Refused(422, _ascii(first), errors=[{k: _ascii(v) for k, v in one.items()} for one in wrong]))

    @inner.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        detail = {404: "there is nothing at this path", 405: "this path does not take this method"}
        known = Refused(error.status_code, detail.get(error.status_code, str(error.detail)))
        if error.status_code == 405:
            path = route_path(request.scope)
            routes = [route for route in inner.routes if isinstance(route, Route) and route.path_regex.match(path)]
            known.with_header("allow", ", ".join(sorted({one for route in routes for one in route.methods or ()})))
        return answer(known)

    @inner.exception_handler(Exception)
    async def broken(_: Request, _error: Exception) -> Response:
        # It is raised once more, and the gate logs it.
        return answer(Refused(500, "something is wrong in the server; its log says what"))

    @inner.exception_handler(SQLAlchemyError)
    async def database(_: Request, error: SQLAlchemyError) -> Response:
        if not isinstance(error, (OperationalError, PoolTimeout)):
            raise error
        return answer(Refused(503, "the ledger does not answer now").with_header("retry-after", "5"))


def _ascii(text: str) -> str:
    """Text without what no encoding takes."""
    return text.encode("utf-8", "replace").decode()


def _described(inner: FastAPI) -> None:
    """Say in the OpenAPI document that all of it needs a key."""
    plain: Callable[[], dict[str, Any]] = inner.openapi

    def described() -> dict[str, Any]:
        if inner.openapi_schema is None:
            document = plain()
            document.setdefault("components", {})["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "A key of `costspan serve keys add`."}
            }
            document["security"] = [{"key": []}]
            operations = [operation for path in document["paths"].values() for operation in path.values()]
            for operation in operations:
                for status, response in operation["responses"].items():
                    if status >= "400":
                        schema = {"$ref": "#/components/schemas/Problem"}
                        response["content"] = {"application/problem+json": {"schema": schema}}
            inner.openapi_schema = document
        return inner.openapi_schema

    inner.openapi = described  # type: ignore[method-assign]
