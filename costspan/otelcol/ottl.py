"""The statements that price a span in the collector's own language, over what `table` holds.

Everything is in integers: tokens times picodollars, and one `Double()` at the end. `S` is a span's scratch pad, `T` the
table, which lies on the resource, and `D` the habits of the library, which lie on its scope, while a batch passes.
"""

from __future__ import annotations

import json
import re
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from costspan.otelcol.shorter import shorter
from costspan.otelcol.table import METERS
from costspan_pricing import METERS as KNOWN
from costspan_pricing import PICO
from costspan_pricing.shelf import STANDARD, TIER_ALIASES, VERSION
from costspan_processor import conventions as c
from costspan_processor import dialects as d
from costspan_processor.enrich import BOOK_VERSION, PRICE_SOURCE, SAVINGS, TOTAL
from costspan_processor.hosts import EXACT, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from costspan.otelcol.table import Table

PICODOLLARS: Final = "costspan.cost.picodollars"
REASON: Final = "costspan.cost.reason"
TOKENS: Final = {
    "input": "costspan.tokens.input",
    "output": "costspan.tokens.output",
    "cache_read": "costspan.tokens.cache_read",
    "cache_write": "costspan.tokens.cache_write",
}
"""Component -> the attribute with its tokens."""
HELD: Final = "costspan.otelcol"
"""Where table and habits lie; it is taken away again."""

_PLACE = re.compile(r"\b([STD])((?:\.[A-Za-z_0-9]+)+)")
_MINUTE: Final = 60_000_000_000
_ROOTS: Final = {"S": "span.cache", "T": f'resource.attributes["{HELD}"]', "D": f'scope.attributes["{HELD}"]'}
_KIND: Final = 'D.m[Coalesce([span.attributes[D.k], ""])]'
"""The operation that a span is by its library's own words. An index that is nothing would be an error."""
_METADATA: Final = "ai.response.providerMetadata"
_PARAMETERS: Final = "llm.invocation_parameters"
_HANDLED: Final = frozenset({_METADATA, _PARAMETERS})
"""Attributes with JSON in them that are read."""


def ottl(statement: str) -> str:
    """A statement with the short names of places written out.

    >>> ottl('set(S.c, T.cards[S.id])')
    'set(span.cache["c"], resource.attributes["costspan.otelcol"]["cards"][span.cache["id"]])'
    """

    def out(found: re.Match[str]) -> str:
        return _ROOTS[found[1]] + "".join(f'["{key}"]' for key in found[2][1:].split("."))

    return _PLACE.sub(out, statement)


def literal(value: Any) -> str:
    """A value as the language writes it."""
    return json.dumps(value, ensure_ascii=False)


def at(*keys: str) -> str:
    """The first of some attributes that a span has."""
    return first([f"span.attributes[{literal(key)}]" for key in keys])


def first(values: Sequence[str]) -> str:
    """The first of some values that there is."""
    return values[0] if len(values) == 1 else f"Coalesce([{', '.join(values)}])"


def spelled(name: str) -> str:
    """An attribute of the conventions, by all its names."""
    return at(name, *d.SPELLINGS.get(name, ()))


# ---------------------------------------------------------------------- libraries


def unread(dialect: d.Dialect) -> bool:
    """Whether a library says what a call used in a way that the statements cannot read."""
    counts = {d.INPUT, d.OUTPUT, d.CACHE_READ, d.CACHE_WRITE}
    return dialect.encoded or not counts.isdisjoint(dialect.keys.values())


def habits() -> Iterator[str]:
    """Statements that lay the habits of a library on its scope; the last that fits holds."""
    unknown = d.Dialect("conventions", (), guess=True, lost={"anthropic": (d.TTL,)})
    yield ottl(f"set({_ROOTS['D']}, {literal(_habits(unknown) | {'n': True})})")
    # Our own spans speak the conventions, and nothing is guessed of them.
    ours = {"k": "", "a": "", "w": "", "n": True}
    yield f'set({_ROOTS["D"]}, {literal(ours)}) where HasPrefix(scope.name, "costspan")'
    for dialect in reversed(d.DIALECTS):
        tests = [_named(scope) for scope in dialect.scopes]
        tests += [f'resource.attributes["service.name"] == {literal(service)}' for service in dialect.services]
        if tests:
            yield ottl(f"set({_ROOTS['D']}, {literal(_habits(dialect))}) where {' or '.join(tests)}")


def _named(scope: str) -> str:
    if scope.endswith("*"):
        return f"HasPrefix(scope.name, {literal(scope[:-1])})"
    return f"scope.name == {literal(scope)}"


def _habits(dialect: d.Dialect) -> dict[str, Any]:
    told: dict[str, Any] = {"k": "", "a": "", "w": ""}
    if unread(dialect):
        sent = next((key for key, target in dialect.keys.items() if target == d.INPUT), "")
        return told | {"x": dialect.name, "j": "", "a": sent}
    aside = [key for key in (*dialect.inside, dialect.ticks) if key and key not in _HANDLED]
    if aside:
        told |= {"x": dialect.name, "j": aside[0]}
    if dialect.kinds is not None:
        told |= {"k": dialect.kinds[0], "m": dict(dialect.kinds[1])}
    if dialect.outside:
        told["o"] = dict.fromkeys(sorted(dialect.outside), True)
    if dialect.thoughts:
        told["h"] = dict.fromkeys(sorted(dialect.thoughts), True)
    if dialect.cost:
        told["f"] = True
    if dialect.guess:
        told["g"] = True
    if dialect.shown:
        told |= {"t": True, "w": dialect.shown_with[0] if dialect.shown_with else ""}
    if dialect.lost:
        told["l"] = {provider: _lost(what) for provider, what in dialect.lost.items()}
    return told


def _lost(what: Iterable[str]) -> dict[str, bool]:
    keys = {d.TTL: "ttl", d.CACHE: "cache", d.WRITES: "writes", d.TOOLS: "tools", d.AUDIO: "audio", d.TIER: "tier"}
    return {keys.get(word, "more"): True for word in what}


def conditions() -> list[str]:
    """What must hold of a span that is looked at: a model call that is billed and has no price yet."""
    marks = (c.OPERATION, c.PROVIDER, c.REQUEST_MODEL, *d.SPELLINGS[c.PROVIDER], *d.SPELLINGS[c.REQUEST_MODEL])
    kind = "span.attributes[D.k]"
    parts = (
        f"{at(*marks)} != nil",
        f"{at(c.STATUS)} == nil",
        f"({at(c.ROLLUP)} == nil or {at(c.ROLLUP)} != true)",
        f"T.unbilled[{first([at(c.OPERATION), _KIND, literal('chat')])}] == nil",
        f"({kind} == nil or {_KIND} != nil or {at(c.OPERATION)} != nil)",
    )
    return list(parts)


# ---------------------------------------------------------------------- the table


def held(table: Table) -> dict[str, Any]:
    """What lies on the resource."""
    words = {**d.OPERATIONS}
    found: dict[str, Any] = {
        "unbilled": dict.fromkeys(sorted(c.NOT_BILLED), True),
        "operations": words,
        "providers": {
            **{name: to for name, to in sorted(table.providers.items()) if not _ENDPOINT.match(name)},
            **{name: table.providers[to] for name, to in d.VERCEL_PROVIDERS.items() if to in table.providers},
        },
        "tiers": {**dict.fromkeys(sorted(STANDARD), ""), **TIER_ALIASES},
        "names": table.listed,
        "versions": table.versioned,
        "cards": table.cards,
    }
    if "openai" in table.listed or table.geos:
        found["hosts"] = {**EXACT, **dict(SUFFIXES)}
        found["regional"] = {host: True for host in EXACT if c.GEO_OF_HOST.fullmatch(host)}
    uneven = dict.fromkeys(table.uneven, True)
    where_used = {"any": table.anything, "routes": table.routes, "geos": table.geos, "uneven": uneven}
    return found | {key: value for key, value in where_used.items() if value}


_ENDPOINT: Final = re.compile(rf"(?!(?:{'|'.join(d.CLOUDS)})\.)[^.]+\.|.*_llm$")
"""Names that are shortened before a provider is looked up, so that the table need not have them."""

# ---------------------------------------------------------------------- what was called


def naming(table: Table) -> Iterator[str]:
    """Provider, model, service tier and region, as the table has them."""
    yield f"set(S.op, {first([at(c.OPERATION), _KIND, literal('chat')])})"
    yield "set(S.op, T.operations[S.op]) where T.operations[S.op] != nil"
    meta = at(_METADATA)
    yield f"set(S.meta, ParseJSON({meta})) where IsString({meta})"
    yield f"set(S.said, {spelled(c.PROVIDER)})"
    yield f"set(S.answered, {spelled(c.RESPONSE_MODEL)})"
    yield f"set(S.asked, {spelled(c.REQUEST_MODEL)})"
    if "openai" in table.listed or table.geos:
        yield f"set(S.host, {spelled(c.SERVER_ADDRESS)})"
        yield 'replace_pattern(S.host, "^[a-z]+://([^/:?#]+).*$", "$1") where S.host != nil and T.hosts[S.host] == nil'
    if "openai" in table.listed:
        # One SDK talks to many: the host tells whose model it is.
        yield 'set(S.domain, S.host) where S.said == "openai" and S.host != nil and T.hosts[S.host] != "openai"'
        yield 'replace_pattern(S.domain, "^[^.]+", "") where S.domain != nil'
        yield "set(S.said, Coalesce([T.hosts[S.host], T.hosts[S.domain], S.said])) where S.domain != nil"
    yield (
        'replace_pattern(S.said, "^([^.]+)\\\\..*$", "$1") where IsString(S.said) and T.providers[S.said] == nil'
        f' and IsMatch(S.said, "^[^.]+\\\\.") and not IsMatch(S.said, "^({"|".join(d.CLOUDS)})\\\\.")'
    )
    yield (
        'replace_pattern(S.said, "_llm$", "")'
        ' where IsString(S.said) and T.providers[S.said] == nil and HasSuffix(S.said, "_llm")'
    )
    yield "set(S.p, T.providers[S.said]) where IsString(S.said)"
    yield "set(S.p, T.providers[ToLowerCase(Trim(S.said))]) where S.p == nil and IsString(S.said)"
    if "aws" in table.listed:
        makers = f'"^(?:[a-z0-9_]+\\\\.)?(?:{"|".join(d.MAKERS_ON_BEDROCK)})\\\\."'
        for model in ("S.answered", "S.asked"):
            yield (
                f'set(S.p, "aws") where (S.p == nil or S.p != "aws") and S.said != nil'
                f" and IsString({model}) and IsMatch({model}, {makers})"
            )
    # Nearly always the name is one of the table as it is, or with a date behind it.
    yield "set(S.name, Coalesce([S.answered, S.asked]))"
    known = _is_plain("S.p", "S.name")
    yield f"set(S.id, {_plain_id('S.p', 'S.name')}) where S.p != nil and IsString(S.name) and ({known})"
    for model in ("S.answered", "S.asked"):
        yield from _resolved(table, model)
    yield f"set(S.tier, {first([spelled(c.SERVICE_TIER), spelled('openai.response.service_tier')])})"
    asked = spelled("openai.request.service_tier")
    parameters = at(_PARAMETERS)
    yield (
        f"set(S.params, ParseJSON({parameters})) where S.tier == nil and {asked} == nil"
        f' and IsString({parameters}) and IsMatch({parameters}, "service_tier")'
    )
    yield from _from_metadata("S.tier", "openai.response.service_tier", "S.tier == nil")
    yield f"set(S.wanted, {first([asked, 'S.params.service_tier'])})"
    yield "set(S.untiered, true) where S.tier == nil and S.wanted == nil"
    said = " and ".join(f"S.wanted != {literal(word)}" for word in sorted(c.UNSAID_TIERS))
    yield f"set(S.tier, S.wanted) where S.tier == nil and {said}"
    yield 'set(S.tier, "") where S.tier == nil or S.tier == "default"'
    yield 'set(S.tier, ToLowerCase(String(S.tier))) where S.tier != ""'
    yield 'replace_pattern(S.tier, "-", "_") where S.tier != ""'
    yield 'set(S.tier, T.tiers[S.tier]) where S.tier != "" and T.tiers[S.tier] != nil'
    yield f"set(S.geo, {at(c.GEO)})"
    if table.geos:
        yield "set(S.geo, S.host) where S.geo == nil and S.host != nil and T.hosts[S.host] == nil"
        yield "set(S.geo, S.host) where S.geo == nil and S.host != nil and T.regional[S.host] == true"
        pattern = literal(f"^(?:{c.GEO_OF_HOST.pattern})$")
        groups = "".join(f"${number + 1}" for number in range(c.GEO_OF_HOST.groups))
        yield (
            f'replace_pattern(S.geo, {pattern}, "{groups}") where S.geo != nil'
            f' and IsMatch(S.geo, "\\\\.") and IsMatch(S.geo, {pattern})'
        )
        yield 'set(S.geo, "") where S.geo == nil or IsMatch(S.geo, "\\\\.|:|^localhost$")'
        served = 'Coalesce([T.geos[S.p][ToLowerCase(S.geo)], T.geos[S.p]["*"], ""])'
        yield f'set(S.geo, {served}) where S.geo != "" and S.p != nil'
    else:
        yield 'set(S.geo, "")'


def _is_plain(provider: str, name: str) -> str:
    return f'T.names[{provider}][{name}] != nil or IsMatch({name}, "^[^/]+-20[0-9]{{6}}$")'


def _plain_id(provider: str, name: str) -> str:
    """The id of a name of which `_is_plain` holds, if there is one."""
    dateless = f"Substring({name}, 0, Len({name}) - {len('-20990101')})"
    return f"Coalesce([T.names[{provider}][{name}], T.versions[{provider}][{dateless}]])"


def _from_metadata(place: str, name: str, where: str) -> Iterator[str]:
    """What the Vercel AI SDK says in JSON of an attribute of the conventions, where nothing else has said it."""
    for path, target in _IN_METADATA.items():
        if target == name:
            yield f"set({place}, S.meta.{path}) where {where} and S.meta.{path} != nil"


_IN_METADATA: Final = next(dialect.inside[_METADATA] for dialect in d.DIALECTS if _METADATA in dialect.inside)
"""Paths in that JSON -> the conventions' names."""


def _resolved(table: Table, raw: str) -> Iterator[str]:
    """The id of a model, if none has been found yet: the name as it is, then without what surrounds it."""
    todo = "S.id == nil and S.m != nil"
    yield f"set(S.m, ToLowerCase(Trim({raw}))) where S.id == nil and S.p != nil and IsString({raw})"
    yield f"set(S.id, T.names[S.p][S.m]) where {todo}"
    if table.routes:
        slash = f'{todo} and IsMatch(S.m, "/")'
        yield f"set(S.front, S.m) where {slash} and T.routes[S.p] != nil"
        yield 'replace_pattern(S.front, "/.*$", "") where S.front != nil'
        yield f"set(S.via, T.routes[S.p][S.front]) where {slash} and S.front != nil"
        yield f'replace_pattern(S.m, "^[^/]+/", "") where {slash} and S.via != nil'
        yield "set(S.p, S.via) where S.via != nil"
        yield f"set(S.id, T.names[S.p][S.m]) where {todo} and S.via != nil"
    yield (
        'replace_pattern(S.m, "^arn:[^:]*:[^:]*:[^:]*:[^:]*:(?:foundation-model|inference-profile)/", "")'
        f' where {todo} and HasPrefix(S.m, "arn:")'
    )
    yield f'replace_pattern(S.m, "^.*models/", "") where {todo} and IsMatch(S.m, "models/")'
    yield f'replace_pattern(S.m, "^(ft:[^:]+):.*$", "$1") where {todo} and HasPrefix(S.m, "ft:")'
    yield f'replace_pattern(S.m, "^(.*?)\\\\.ft-.*$", "ft:$1") where {todo} and IsMatch(S.m, "\\\\.ft-")'
    yield f"set(S.id, T.names[S.p][S.m]) where {todo}"
    yield from _versioned(todo, "S.m")
    yield f'set(S.front, S.m) where {todo} and IsMatch(S.m, "/")'
    yield f'replace_pattern(S.front, "/.*$", "") where {todo} and S.front != nil'
    yield f'replace_pattern(S.m, "^[^/]+/", "") where {todo} and S.front != nil and T.providers[S.front] != nil'
    yield f"set(S.id, T.names[S.p][S.m]) where {todo}"
    yield from _versioned(todo, "S.m")
    for provider, groups in table.beginnings.items():
        for instead, beginnings in groups.items():
            alternatives = "|".join(_quoted(b) for b in sorted(beginnings, key=len, reverse=True))
            here = f'{todo} and S.p == {literal(provider)} and IsMatch(S.m, "^(?:{alternatives})")'
            yield f"set(S.rest, S.m) where {here}"
            yield f'replace_pattern(S.rest, "^(?:{alternatives})", "") where {here}'
            for beginning in instead:
                yield f'set(S.spelled, Concat([{literal(beginning)}, S.rest], "")) where {here}'
                yield f"set(S.id, T.names[S.p][S.spelled]) where {todo} and S.spelled != nil"
                yield from _versioned(f"{todo} and S.spelled != nil", "S.spelled")
    for provider, endings in table.endings.items():
        for ending, found in endings.items():
            yield (
                f"set(S.id, {literal(found)}) where {todo} and S.p == {literal(provider)}"
                f" and HasSuffix(S.m, {literal(ending)})"
            )


def _versioned(todo: str, name: str) -> Iterator[str]:
    yield f"set(S.v, {name}) where {todo}"
    yield f'replace_pattern(S.v, {literal(VERSION.pattern)}, "") where {todo}'
    yield f"set(S.id, T.versions[S.p][S.v]) where {todo} and S.v != {name}"


def _quoted(text: str) -> str:
    return re.escape(text).replace("\\", "\\\\")


# ---------------------------------------------------------------------- how much


_COUNTS: Final = {
    "i": d.INPUT,
    "o": d.OUTPUT,
    "r": d.CACHE_READ,
    "w": d.CACHE_WRITE,
    "w5": d.CACHE_WRITE_5M,
    "w30": "costspan.usage.cache_write_30m",
    "w1": d.CACHE_WRITE_1H,
    "w12": "costspan.usage.cache_write_12h",
    "q": d.REASONING,
}
_VERCEL_6: Final = next(dialect for dialect in d.DIALECTS if dialect.name == "Vercel AI SDK 6").signs
_SIGNS: Final = {
    dialect.name: dialect.signs
    for dialect in d.DIALECTS
    if dialect.signs and (unread(dialect) or not _HANDLED.issuperset(dialect.inside))
}
_ASIDE: Final = {c.REPORTED_COST: "reported_cost", c.ITERATIONS: "several_usages", c.BY_MODEL: "several_models"}
_SEARCHES: Final = "costspan.usage.web_searches"
_UNPRICED: Final = tuple(key for key in c.FIELDS if key not in _COUNTS.values())
_MODAL: Final = (
    *(name for key in _UNPRICED if "costspan" not in key for name in (key, *d.SPELLINGS.get(key, ()))),
    _SEARCHES,
    *sorted(
        key
        for dialect in d.DIALECTS
        for key, target in (*dialect.keys.items(), *dialect.beside.items())
        if not unread(dialect) and (target.startswith("costspan.usage.") or key in dialect.beside)
    ),
    *d.SPELLINGS[_SEARCHES],
)
"""Counts that have no price here, by all their names."""
_OTHERS: Final = (
    *(key for key in _UNPRICED if "costspan" in key),
    *(
        f"costspan.usage.{meter}"
        for meter in sorted(KNOWN.keys() - c.FIELDS.values() - {"output_reasoning", "web_searches"})
    ),
)
"""The same of names that only our own spans and those of unknown libraries have."""


_OUTSIDE: Final = 'D.o["*"] == true or D.o[Coalesce([S.said, ""])] == true'
_THOUGHTS: Final = 'D.h["*"] == true or D.h[Coalesce([S.said, ""])] == true'


def counting(table: Table) -> Iterator[str]:
    """Disjoint counts of tokens, and why there are none that can be priced."""
    for key, name in _COUNTS.items():
        yield f"set(S.{key}, {spelled(name)})"
        yield from _from_metadata(f"S.{key}", name, f"S.meta != nil and S.{key} == nil")
    yield f"set(S.total, {spelled(d.TOTAL)})"
    yield f"set(S.none, true) where {' and '.join(f'S.{key} == nil' for key in _COUNTS)}"
    yield "set(S.unsaid_in, true) where S.i == nil"
    yield "set(S.unsaid_out, true) where S.o == nil"
    yield "set(S.unsaid_read, true) where S.r == nil"
    yield "set(S.split, true) where S.w5 != nil or S.w1 != nil"
    for key in _COUNTS:
        yield f"set(S.{key}, 0) where S.{key} == nil"
    whole = " and ".join(f"IsInt(S.{key})" for key in _COUNTS)
    yield f"set(S.odd, true) where not ({whole}) or (S.total != nil and not IsInt(S.total))"
    for key in (*_COUNTS, "total"):
        # A count may come as text, or as a number with a point behind which nothing stands.
        yield (
            f"set(S.{key}, Int(Trim(S.{key}))) where S.odd == true and IsString(S.{key})"
            f' and IsMatch(S.{key}, "^ *-?[0-9]{{1,18}} *$")'
        )
        yield (
            f"set(S.{key}, Int(S.{key})) where S.odd == true and IsDouble(S.{key}) and Double(Int(S.{key})) == S.{key}"
        )
    yield f'set(S.bad, "no_whole_number") where S.odd == true and not ({whole})'
    yield f'set(S.bad, "negative") where S.bad == nil and ({" or ".join(f"S.{key} < 0" for key in _COUNTS)})'
    largest = " or ".join(f"S.{key} > {table.most}" for key in _COUNTS)
    yield f'set(S.bad, "too_large") where S.bad == nil and ({largest})'
    for key in _COUNTS:
        yield f"set(S.{key}, 0) where S.bad != nil"
    # What was written to the cache, by how long it lives: what no lifetime is told of lives five minutes.
    yield "set(S.parts, S.w5 + S.w30 + S.w1 + S.w12)"
    yield "set(S.torn, true) where S.w > 0 and S.w < S.parts"
    yield "set(S.wrote, S.w)"
    yield "set(S.wrote, S.parts) where S.w < S.parts"
    yield "set(S.w5, S.w5 + S.wrote - S.parts)"
    yield "set(S.cached, S.r + S.wrote)"
    # Nearly always a total says nothing that the others do not say.
    yield "set(S.told, true) where S.total == nil or S.total == S.i + S.o"
    # Cached tokens are in the input, or beside it: the library says which, of which provider.
    six = " and ".join(f"{at(sign)} == nil" for sign in _VERCEL_6)
    yield f"set(S.outside, true) where S.cached > 0 and ({_OUTSIDE}) and {six}"
    yield "set(S.less, true) where S.i - S.cached < 0"
    yield (
        "set(S.guessed, true) where S.cached > 0 and S.outside == nil and S.unsaid_in == nil and D.g == true"
        " and ((S.told == nil and S.total == S.i + S.o + S.cached)"
        " or (S.less == true and (S.total == nil or S.total != S.i + S.o)))"
    )
    yield "set(S.i, S.i + S.cached) where S.outside == true or S.guessed == true"
    yield "set(S.prompt, S.i)"
    yield "set(S.prompt, S.cached) where S.i - S.cached < 0"
    # Reasoning is in the output, or beside it: where only the total has room for it, it is beside.
    yield "set(S.beside, S.total - S.i - S.o) where S.told == nil and IsInt(S.total)"
    yield f"set(S.q, S.beside) where S.q == 0 and S.beside > 0 and ({_THOUGHTS})"
    yield f"set(S.o, S.o + S.q) where S.q > 0 and ({_THOUGHTS} or S.q == S.beside)"
    yield "set(S.plain, S.i - S.cached)"
    yield "set(S.torn, true) where S.plain < 0 and S.unsaid_in == nil"
    yield "set(S.plain, 0) where S.plain < 0"
    yield "set(S.spoken, S.o - S.q)"
    yield "set(S.torn, true) where S.spoken < 0 and S.unsaid_out == nil"
    yield "set(S.spoken, 0) where S.spoken < 0"


def choosing(table: Table) -> Iterator[str]:
    """The card: of the tier and region, the instant, the hour and the length of the prompt."""
    if table.anything:
        yield "set(S.id, T.any[S.p]) where S.id == nil and S.p != nil"
    there = "S.c == nil and S.id != nil"
    for tier, geo in (("S.tier", "S.geo"), ("S.tier", '""'), ('""', "S.geo"), ('""', '""')):
        yield f'set(S.c, T.cards[Concat([S.id, {tier}, {geo}], "#")]) where {there}'
        if tier == "S.tier" and geo == '""':
            yield f'set(S.est, "tier_unpriced") where {there} and S.tier != ""'
    yield "set(S.c, {}) where S.c == nil"
    yield 'set(S.est, "") where S.c.z == true'
    if table.oldest or table.hours:
        uneven = " or (S.id != nil and T.uneven[S.id] == true)" if table.uneven else ""
        yield f"set(S.then, true) where span.start_time_unix_nano < {table.latest}{uneven}"
    for _ in range(table.oldest):
        yield "set(S.c, T.cards[S.c.b]) where S.then == true and span.start_time_unix_nano < S.c.f"
    for offset in dict.fromkeys(hours.offset for hours in table.hours):
        here = f"S.then == true and S.c.v == {offset}"
        yield f"set(S.minutes, span.start_time_unix_nano / {_MINUTE} + {offset}) where {here}"
        yield f"set(S.days, S.minutes / 1440) where {here}"
        yield f"set(S.minute, S.minutes - S.days * 1440) where {here}"
        # The first day of 1970 was a Thursday.
        yield f"set(S.day, S.days + 3 - (S.days + 3) / 7 * 7) where {here}"
    for number, hours in enumerate(table.hours):
        clause = _holds(hours.days, hours.start, hours.end)
        yield f"set(S.c, T.cards[S.c.w{number}]) where S.then == true and S.c.w{number} != nil and ({clause})"
    for _ in range(table.steps):
        yield "set(S.c, T.cards[S.c.l]) where S.prompt > S.c.n"


def _holds(days: Sequence[int], start: int, end: int) -> str:
    def on(which: Iterable[int]) -> str:
        return "(" + " or ".join(f"S.day == {day}" for day in sorted(which)) + ")"

    after, before = f"S.minute >= {start}", f"S.minute < {end}"
    if len(days) == 7:
        return f"{after} {'and' if start < end else 'or'} {before}"
    if start < end:
        return f"{after} and {before} and {on(days)}"
    return f"({after} and {on(days)}) or ({before} and {on((day + 1) % 7 for day in days)})"


def judging() -> Iterator[str]:
    """The status where there is no price, and what makes one an estimate."""
    for status, whys in groupby(_whys(), itemgetter(0)):
        yield from (f"set(S.reason, {reason}) where S.reason == nil and {where}" for _, reason, where in whys)
        yield f"set(S.status, {literal(status)}) where S.status == nil and S.reason != nil"
    yield 'set(S.lost, Coalesce([D.l[Coalesce([S.said, ""])], D.l["*"]])) where S.status == nil and D.l != nil'
    yield "set(S.lost, {}) where S.lost == nil"
    yield f'set(S.est, "estimated_usage") where {at(c.ESTIMATED)} == true'
    yield "set(S.est, S.c.e) where S.c.e != nil"
    calls = " or ".join(f"S.op == {literal(op)}" for op in sorted(d.WITHOUT_CACHE))
    tools = " or ".join(f"S.op == {literal(op)}" for op in sorted(d.WITH_TOOLS))
    api = at(d.API)
    without = " and ".join(f"({api} == nil or {api} != {literal(name)})" for name in sorted(d.APIS_WITHOUT_TOOLS))
    offered = (
        'span.attributes["gen_ai.tool.definitions"] != nil or span.attributes["ai.prompt.tools"] != nil'
        ' or span.attributes["llm.tools.0.tool.json_schema"] != nil or D.t == nil'
        ' or (D.w != "" and span.attributes[D.w] == nil)'
        f' or IsMatch({at(_PARAMETERS)}, "(?i)search|code_|mcp|plugins")'
        ' or IsMatch(span.attributes["model_request_parameters"], "(?i)\\"kind\\": ?\\"[a-z_]*(?:search|code_|mcp)")'
    )
    audio = " or ".join(f"{at(name)} != nil" for name in _MODAL if "audio" in name)
    told = " or ".join(f"{at(key)} != nil" for dialect in d.DIALECTS for key in dialect.cost)
    for key, where in (
        ("more", "true"),
        ("ttl", "S.wrote > 0 and S.split == nil"),
        ("cache", f"S.unsaid_read == true and not ({calls})"),
        ("tier", "S.untiered == true"),
        ("tools", f"({tools}) and {without} and ({offered})"),
        ("audio", f"S.c.a == true and not ({audio})"),
        ("writes", "S.c.y == true and S.wrote == 0"),
    ):
        yield f'set(S.est, "untold:{key}") where S.lost.{key} == true and {where}'
    # Where the library itself has a figure of what it does not tell, ours would be another.
    yield f"set(S.reason, S.est) where S.status == nil and D.f == true and S.est != nil and ({told})"
    yield f'set(S.status, "partial") where S.status == nil and S.reason != nil and D.f == true and ({told})'


def _whys() -> Iterator[tuple[str, str, str]]:
    """Why there may be no price, what comes first before the others: status, reason and condition."""
    yield "partial", 'Concat(["unread:", D.x], "")', 'D.x != nil and (D.j == "" or span.attributes[D.j] != nil)'
    for name, signs in _SIGNS.items():
        there = " or ".join(f"{at(sign)} != nil" for sign in signs)
        yield "partial", literal(f"unread:{name}"), f'D.k == "" and ({there})'
    yield "invalid_usage", "S.bad", "S.bad != nil"
    for key, reason in _ASIDE.items():
        yield "partial", literal(reason), f"{at(key)} != nil"
    for names in (_MODAL, _OTHERS):
        inside = [f"S.meta.{path}" for path, target in _IN_METADATA.items() if target in names]
        there = " or ".join(f"{place} > 0" for place in (*map(at, names), *inside))
        scope = "" if names is _MODAL else "D.n == true and "
        yield "partial", '"unpriced_meter"', f"{scope}({there})"
    yield "no_usage", '"no_counts"', "S.none == true"
    yield "unknown_provider", '"not_in_this_configuration"', "S.p == nil"
    yield "unknown_model", '"not_in_this_configuration"', "S.id == nil"
    yield "unknown_model", '"no_price_at_that_time"', "S.c.s == nil"
    for meter, key in METERS.items():
        there = f"S.c.x != nil and S.c.x.{key} == true and S.{_QUANTITIES[key]} > 0"
        yield "partial", literal(f"unpriced:{meter}"), there


_QUANTITIES: Final = {
    "i": "plain", "o": "spoken", "q": "q", "r": "r", "w": "w5", "t": "w30", "h": "w1", "d": "w12",
}  # fmt: skip
"""Rate of a card -> the count that it is for."""
_COMPONENTS: Final = {
    "input": ("i",), "output": ("o", "q"), "cache_read": ("r",), "cache_write": ("w", "t", "h", "d"),
}  # fmt: skip


def pricing(table: Table) -> Iterator[str]:
    """The price, in integers, and what goes on the span."""
    amounts = {
        component: " + ".join(f"S.{_QUANTITIES[key]} * S.c.{key}" for key in keys)
        for component, keys in _COMPONENTS.items()
    }
    yield f"set(S.pico, {' + '.join(amounts.values())}) where S.status == nil"
    priced = "S.pico != nil"
    yield f'set(S.status, "free") where {priced} and S.c.z == true and S.pico == 0'
    yield f'set(S.status, "estimated") where S.status == nil and {priced} and S.est != nil and S.est != ""'
    yield 'set(S.reason, S.est) where S.status == "estimated"'
    yield f'set(S.status, "priced") where S.status == nil and {priced}'

    def put(name: str, value: str, where: str = "") -> str:
        return f"set({at(name)}, {value})" + (f" where {where}" if where else "")

    yield put(c.STATUS, "S.status")
    yield put(REASON, "S.reason", "S.reason != nil")
    yield put(PICODOLLARS, "S.pico", priced)
    yield put(TOTAL, f"Double(S.pico) / {PICO}.0", priced)
    for component, keys in _COMPONENTS.items():
        used = " or ".join(f"S.{_QUANTITIES[key]} > 0" for key in keys)
        yield put(f"costspan.cost.{component}", f"Double({amounts[component]}) / {PICO}.0", f"{priced} and ({used})")
        counts = " + ".join(f"S.{_QUANTITIES[key]}" for key in keys)
        yield put(TOKENS[component], counts, f"S.bad == nil and ({used})")
    yield put(SAVINGS, f"Double(S.r * S.c.i - {amounts['cache_read']}) / {PICO}.0", f"{priced} and S.r > 0")
    yield put(BOOK_VERSION, literal(table.version), priced)
    yield put(PRICE_SOURCE, "S.c.s", priced)
    yield put(c.INCONSISTENT, "true", "S.torn == true")
    yield put(c.GUESSED, "true", "S.guessed == true")
    # Metrics are told apart by the conventions' names, whatever the span called them.
    yield put(c.PROVIDER, "S.said", f"{at(c.PROVIDER)} == nil and S.said != nil")
    yield put(c.REQUEST_MODEL, "S.asked", f"{at(c.REQUEST_MODEL)} == nil and S.asked != nil")
    yield put(c.OPERATION, "S.op", f"{at(c.OPERATION)} == nil")


def statements(table: Table) -> dict[str, list[str]]:
    """All of it: what each part is about -> its statements."""
    return {
        "who was called, for what model": list(naming(table)),
        "how many tokens, each of one kind": list(counting(table)),
        "the rates that hold": list(choosing(table)),
        "what cannot be priced, and what is an estimate": list(judging()),
        "the price": list(pricing(table)),
    }


_PLAIN: Final = (
    c.OPERATION, c.PROVIDER, d.SYSTEM, c.REQUEST_MODEL, c.RESPONSE_MODEL, c.SERVER_ADDRESS, d.API,
    "openai.response.service_tier", d.INPUT, d.OUTPUT, d.CACHE_READ, d.CACHE_WRITE,
    "gen_ai.usage.cache_creation.input_tokens", d.REASONING, d.TOTAL, "llm.usage.total_tokens", *_OTHERS,
)  # fmt: skip
"""What a plain call may say, of all that the statements look at."""
_RARE: Final = (
    "set(S.op, T.operations", "replace_pattern(S.host", "set(S.domain", "replace_pattern(S.said", 'set(S.p, "aws")',
    "set(S.geo, S.host)", "set(S.odd", "set(S.bad", "set(S.outside", "set(S.less", "set(S.o, S.o + S.q)",
    "set(S.torn", "set(S.then",
    'set(S.reason, "unpriced_meter") where S.reason == nil and D.n',
)  # fmt: skip
"""Statements that have nothing to do for a plain call."""


def plain(table: Table) -> tuple[list[str], dict[str, list[str]]]:
    """How nearly all calls are told from the others, and what those need: names of the table, and counts that agree."""
    said, tier, operation = spelled(c.PROVIDER), at("openai.response.service_tier"), at(c.OPERATION)
    sent, received, total = at(d.INPUT), at(d.OUTPUT), spelled(d.TOTAL)
    model, provider = at(c.RESPONSE_MODEL, c.REQUEST_MODEL), f"T.providers[{said}]"
    assumed = (
        f"IsString({operation})",
        *conditions(),
        "D.x == nil",
        f"IsString({said}) and {provider} != nil",
        f"IsString({model}) and ({_is_plain(provider, model)}) and {_plain_id(provider, model)} != nil",
        f'{tier} == nil or {tier} == "default"',
        f"IsInt({sent}) and IsInt({received})",
        f"{total} == nil or {total} == {sent} + {received}",
    )
    return shorter(statements(table), assumed, _RARE, _PLAIN)
