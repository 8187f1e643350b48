"""The tables of the ledger: a row per call, hourly totals of them, and what is noted about both.

Amounts are integer picodollars, instants are integers too: unix nanoseconds of calls, unix seconds elsewhere. NULL is
"not known".

What calls have in common (model, prices, who they are for) is a third to a half of what is known of each: it is kept
once, as a series. Whoever reads finds both together in `calls`, a view.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    and_,
    case,
    func,
    literal,
    or_,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

metadata: Final = MetaData()

ATTRIBUTION: Final = ("user", "session", "conversation", "agent", "team", "feature", "task", "persona", "priority")
"""Whom a call is for, by the names that `costspan.track()` has."""
DIMENSIONS: Final = (
    "service", "provider", "model", "operation", "tier", "team", "feature", "task", "persona", "agent", "status",
)  # fmt: skip
"""What reports tell calls apart by."""
SPENDERS: Final = ("user", "session", "conversation")
"""What has too many values for that: each has totals of its own (`spenders`)."""
COMPONENTS: Final = ("input", "output", "cache_read", "cache_write", "other")
MEASURES: Final = (
    "calls", "failed", "aborted", "unpriced", "cost", *(f"cost_{name}" for name in COMPONENTS), "saved",
    "write_premium", "wasted", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "duration", "timed",
)  # fmt: skip
"""What totals hold: sums over the calls of a row."""

records: Final = Table(
    "records",
    metadata,
    Column("series", BigInteger, nullable=False),  # `series_id` of what it has in common with others
    Column("id", Text, nullable=False),  # trace:span in hex; of a call that has no span, drawn at random
    Column("writer", Text, nullable=False),  # who wrote the row, and its how-manieth: see `writers`
    Column("sequence", BigInteger, nullable=False),
    Column("trace_id", Text),
    Column("span_id", Text),
    Column("response_id", Text),
    Column("started", BigInteger, nullable=False),  # unix ns
    Column("hour", Integer, nullable=False),  # whole hours since 1970 (UTC) at which it started
    Column("duration", BigInteger),  # ns
    Column("first_chunk", BigInteger),  # ns from the start to the first chunk of a stream
    *(Column(name, Text) for name in SPENDERS),
    Column("message", Text),
    Column("tags", Text),  # JSON: {"tenant": "acme"}
    # Tokens as the provider counts them: input contains cache reads and writes, output contains reasoning.
    Column("input_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("usage", Text),  # JSON, disjoint: {"input": 120, "web_searches": 1}; {"model": ..., "usage": ...} parts
    Column("cost", BigInteger),
    *(Column(f"cost_{name}", BigInteger) for name in COMPONENTS),
    Column("saved", BigInteger, nullable=False),  # by cache reads
    Column("write_premium", BigInteger, nullable=False),  # of cache writes above the input rate
    Column("lines", Text),  # JSON: [[model, meter, quantity, rate in USD, per, picodollars], ...]
    Column("cost_book", BigInteger),  # the book's own figure where the provider's won
    # Keyed hashes, kept where a key is set: of the whole prompt, and of what in front of it stays the same.
    Column("prompt", Text),
    Column("prefix", Text),
    Column("prefix_share", Integer),  # thousandths of the prompt's characters that the prefix has
    # Most of these are as good as random: among all there are, each would be written to a page of its own.
    PrimaryKeyConstraint("hour", "id"),
    Index("records_by_cost", "hour", "cost"),
    *(
        Index(f"records_by_{name}", "hour", name, sqlite_where=text(said), postgresql_where=text(said))
        for name in ("conversation", "session", "prompt", "prefix")
        for said in (f"{name} IS NOT NULL",)
    ),
)
"""What each call has of its own."""

series: Final = Table(
    "series",
    metadata,
    # `series_id` of the rest. SQLite finds rows by what it calls an integer without looking into an index.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("service", Text),
    Column("provider", Text),
    Column("model", Text),  # the one that answered, else the one asked for
    Column("request_model", Text),
    Column("response_model", Text),
    Column("operation", Text, nullable=False),
    Column("tier", Text),
    Column("geo", Text),
    Column("server", Text),  # host and port
    Column("error_type", Text),
    Column("aborted", Boolean, nullable=False),  # a stream that the application stopped reading
    *(Column(name, Text) for name in ATTRIBUTION if name not in SPENDERS),
    Column("status", Text, nullable=False),  # `costspan.cost.status`
    Column("flags", Text),  # separated by spaces: inconsistent, guessed, estimated, unpriced:<meter>, ...
    Column("source", Text),  # whose figure the cost is: local (the book's) or provider
    Column("book", Text),  # version
    Column("layer", Text),
    Column("price_source", Text),  # the page that the period's prices are from
)
"""What calls have in common: hourly totals are told apart by it."""

_OWN: Final = [column for column in records.columns if column.name != "series"]
_SHARED: Final = [column for column in series.columns if column.name != "id"]
SERIES: Final = tuple(column.name for column in _SHARED)

calls: Final = Table(
    "calls",
    MetaData(),  # not a table of the database, but a view
    *(Column(column.name, column.type, nullable=column.nullable) for column in (*_OWN, *_SHARED)),
)
"""All that is known of each call: its record with its series."""

hours: Final = Table(
    "hours",
    metadata,
    Column("hour", Integer, nullable=False),
    Column("series", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in MEASURES),
    # In the order in which sums are taken: a series' hours lie together.
    PrimaryKeyConstraint("series", "hour"),
    Index("hours_by_hour", "hour"),
    sqlite_with_rowid=False,
)


def series_id(values: Sequence[str | bool | None]) -> int:
    """The id of the series with these values of `SERIES`: the same whoever writes it, so nobody need ask for it."""
    return int.from_bytes(hashlib.blake2b(json.dumps(values).encode(), digest_size=8).digest(), "big") >> 1


spenders: Final = Table(
    "spenders",
    metadata,
    Column("hour", Integer, nullable=False),
    Column("kind", Text, nullable=False),  # one of SPENDERS
    Column("value", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in MEASURES),
    PrimaryKeyConstraint("kind", "hour", "value"),
    sqlite_with_rowid=False,
)

writers: Final = Table(
    "writers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("process", Integer, nullable=False),
    Column("service", Text),
    Column("started", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),  # when it wrote last
    Column("ended", BigInteger),
    Column("written", BigInteger, nullable=False),  # rows, those that retention has removed since among them
    Column("dropped", BigInteger, nullable=False),  # calls that found the queue full, or no ledger to write to
    Column("lost", BigInteger, nullable=False),  # calls that waited in a process that was killed
    Column("known", BigInteger, nullable=False, server_default="0"),  # calls that another writer had written already
    Column("removed", BigInteger, nullable=False, server_default="0"),  # rows that retention has removed
)

events: Final = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),  # as the event has it: an event is noted once
    Column("at", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("budget", Text, nullable=False),
    Column("event", Text, nullable=False),  # JSON: all of it
    Column("acknowledged", BigInteger),
    Column("acknowledged_by", Text),
)
"""What has happened to budgets."""

advice: Final = Table(
    "advice",
    metadata,
    Column("id", Text, primary_key=True),  # of category and subject: the same advice is given once
    Column("given", BigInteger, nullable=False),
    Column("category", Text, nullable=False),
    Column("advice", Text, nullable=False),  # JSON: all of it
    Column("taken", BigInteger),  # when somebody said that it has been followed
    Column("taken_by", Text),
    Column("dismissed", BigInteger),
)

audit: Final = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("key", Text, nullable=False),  # the name of the bearer key
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
)
"""Who has asked the HTTP API for what."""


UNPRICED: Final = ("unknown_model", "unknown_provider", "no_usage", "invalid_usage", "partial")
"""Statuses that leave something out of the cost."""


def measured(columns: Mapping[str, ColumnElement[Any]] | None = None) -> Mapping[str, ColumnElement[int]]:
    """What each of `MEASURES` is of one row of `calls`, or of whatever else has such columns."""
    c = calls.columns if columns is None else columns
    failed = and_(c["status"] == "no_usage", c["error_type"].is_not(None))
    counted: dict[str, ColumnElement[int]] = {
        "calls": literal(1),
        "failed": case((failed, 1), else_=0),
        "aborted": case((c["aborted"], 1), else_=0),
        "unpriced": case((and_(c["status"].in_(UNPRICED), ~failed), 1), else_=0),
        # What failed or was broken off and has cost something all the same.
        "wasted": case((or_(c["error_type"].is_not(None), c["aborted"]), func.coalesce(c["cost"], 0)), else_=0),
        "timed": case((c["duration"].is_(None), 0), else_=1),
    }
    return {name: counted[name] if name in counted else func.coalesce(c[name], 0) for name in MEASURES}
