"""The tables of the ledger: a row per call, hourly totals of them, and what is noted about both.

Amounts are integer picodollars, instants are integers too: unix nanoseconds of calls, unix seconds elsewhere. NULL is
"not known". In keys of totals, which must compare, the empty text stands for "not said".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

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
    literal_column,
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
"""What hourly totals are told apart by."""
SPENDERS: Final = ("user", "session", "conversation")
"""What has too many values for that: each has totals of its own (`spenders`)."""
COMPONENTS: Final = ("input", "output", "cache_read", "cache_write", "other")
MEASURES: Final = (
    "calls", "failed", "aborted", "unpriced", "cost", *(f"cost_{name}" for name in COMPONENTS), "saved",
    "write_premium", "wasted", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "duration", "timed",
)  # fmt: skip
"""What totals hold: sums over the calls of a row."""

calls: Final = Table(
    "calls",
    metadata,
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
    Column("service", Text),
    Column("provider", Text),
    Column("model", Text),  # the one that answered, else the one asked for
    Column("request_model", Text),
    Column("response_model", Text),
    Column("operation", Text, nullable=False),
    Column("tier", Text),
    Column("geo", Text),
    Column("server", Text),  # host and port
    *(Column(name, Text) for name in ATTRIBUTION),
    Column("message", Text),
    Column("tags", Text),  # JSON: {"tenant": "acme"}
    Column("status", Text, nullable=False),  # `costspan.cost.status`
    Column("error_type", Text),
    Column("aborted", Boolean, nullable=False),  # a stream that the application stopped reading
    # Tokens as the provider counts them: input contains cache reads and writes, output contains reasoning.
    Column("input_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("usage", Text),  # JSON, disjoint: {"input": 120, "web_searches": 1}; {"model": ..., "usage": ...} parts
    Column("flags", Text),  # separated by spaces: inconsistent, guessed, estimated, unpriced:<meter>, ...
    Column("cost", BigInteger),
    *(Column(f"cost_{name}", BigInteger) for name in COMPONENTS),
    Column("saved", BigInteger, nullable=False),  # by cache reads
    Column("write_premium", BigInteger, nullable=False),  # of cache writes above the input rate
    Column("lines", Text),  # JSON: [[model, meter, quantity, rate in USD, per, picodollars], ...]
    Column("source", Text),  # whose figure the cost is: local (the book's) or provider
    Column("cost_book", BigInteger),  # the book's own figure where the provider's won
    Column("book", Text),  # version
    Column("layer", Text),
    Column("price_source", Text),  # the page that the period's prices are from
    # Keyed hashes, kept where a key is set: of the whole prompt, and of what in front of it stays the same.
    Column("prompt", Text),
    Column("prefix", Text),
    Column("prefix_share", Integer),  # thousandths of the prompt's characters that the prefix has
    # Ids and prompts are as good as random: among all there are, each would be written to a page of its own.
    PrimaryKeyConstraint("hour", "id"),
    Index("calls_by_cost", "hour", "cost"),
    *(
        Index(f"calls_by_{name}", name, "started", sqlite_where=text(said), postgresql_where=text(said))
        for name in ("conversation", "session", "prefix")
        for said in (f"{name} IS NOT NULL",)
    ),
)
DAY: Final = calls.c.hour.op("/")(literal_column("24"))
"""Whole days since 1970 (UTC) at which a call started, as the index by prompts has them."""
_PROMPT_SAID: Final = calls.c.prompt.is_not(None)
Index("calls_by_prompt", DAY, calls.c.prompt, sqlite_where=_PROMPT_SAID, postgresql_where=_PROMPT_SAID)

series: Final = Table(
    "series",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # `series_id` of the rest
    *(Column(name, Text, nullable=False) for name in DIMENSIONS),
)
"""What calls have in common that hourly totals hold together."""

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


def series_id(values: Sequence[str]) -> int:
    """The id of the series with these values of `DIMENSIONS`: the same whoever writes it, so nobody need ask for it.

    >>> series_id(["shop", "openai", "gpt-4.1", "chat", "", "", "", "", "", "", "priced"])
    441160523266090820
    """
    name = "\0".join(values).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


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


def measured() -> Mapping[str, ColumnElement[int]]:
    """What each of `MEASURES` is of one row of `calls`."""
    c = calls.c
    failed = and_(c.status == "no_usage", c.error_type.is_not(None))
    counted: dict[str, ColumnElement[int]] = {
        "calls": literal(1),
        "failed": case((failed, 1), else_=0),
        "aborted": case((c.aborted, 1), else_=0),
        "unpriced": case((and_(c.status.in_(UNPRICED), ~failed), 1), else_=0),
        # What failed or was broken off and has cost something all the same.
        "wasted": case((or_(c.error_type.is_not(None), c.aborted), func.coalesce(c.cost, 0)), else_=0),
        "timed": case((c.duration.is_(None), 0), else_=1),
    }
    return {name: counted[name] if name in counted else func.coalesce(c[name], 0) for name in MEASURES}
