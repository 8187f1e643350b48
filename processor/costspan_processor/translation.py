"""Any library's span: the words of its dialect are put into those of the GenAI conventions.

What decides how counts are meant, in this order: the scope, then the provider, then arithmetic. A
span whose convention is not known and whose counts decide it carries `costspan.usage.guessed`; one whose library leaves
out what the price depends on is an estimate.
"""

from __future__ import annotations

import ast
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from costspan_processor.conventions import (
    ESTIMATED,
    FIELDS,
    GUESSED,
    KIND,
    MAX_TOKENS,
    OLDER,
    OPERATION,
    PROVIDER,
    REPORTED_COST,
    REQUEST_MODEL,
    RESPONSE_ID,
    RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVICE_TIER,
    STATUS,
    UNSAID,
    Kind,
    Plain,
    getter,
    number,
    read,
)  # fmt: skip
from costspan_processor.dialects import (
    ALL,
    API,
    APIS_WITHOUT_TOOLS,
    AUDIO,
    CACHE,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHE_WRITE_5M,
    CLOUDS,
    DIALECTS,
    INPUT,
    MAKERS_ON_BEDROCK,
    OPERATIONS,
    OUTPUT,
    REASONING,
    SPELLINGS,
    SPOKEN,
    SYSTEM,
    TIER,
    TOOLS,
    TOTAL,
    TTL,
    UNCACHED,
    VERCEL_PROVIDERS,
    WITH_TOOLS,
    WITHOUT_CACHE,
    WRITES,
    Dialect,
)  # fmt: skip
from costspan_processor.hosts import provider_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costspan_processor.conventions import Reading

_CONVENTIONS: Final = Dialect("conventions", (), guess=True, lost={"anthropic": (TTL,)})
"""Of a library that nobody has described: the conventions, unless the counts say otherwise."""

_MARKS: Final = frozenset(
    {OPERATION, PROVIDER, REQUEST_MODEL, SYSTEM}
    | {name for names in SPELLINGS.values() for name in names}
    | {key for dialect in DIALECTS for key in (*dialect.inside, *(k for k in dialect.keys if "token" in k))}
)
says_nothing: Final[Callable[[Mapping[str, Any]], bool]] = _MARKS.isdisjoint
"""Whether a span has none of the attributes that any dialect would know a call by."""

_NOT_PROVIDERS: Final = frozenset({
    "strands-agents", "gcp.vertex.agent", "langchain", "langgraph", "llamaindex", "llama_index", "crewai",
    "openai-agents", "openai_agents", "litellm", "haystack", "agno", "semantic_kernel", "_other", "unknown", "",
})  # fmt: skip
"""What frameworks write where a provider belongs."""
_ON_BEDROCK: Final = {"claude": "anthropic", "nova": "amazon", "titan": "amazon", "llama": "meta", "command": "cohere"}
_MAKERS: Final = re.compile(
    rf"(?P<aws>(?:[a-z]{{2,6}}\.)?(?:{'|'.join(MAKERS_ON_BEDROCK)})\.\S+)"
    r"|(?P<openai>(?:gpt-|chatgpt-|o\d(?:-|$)|text-embedding-3|text-embedding-ada|dall-e|whisper-1|tts-1|codex-|ft:gpt).*)"
    r"|(?P<anthropic>claude-.*)|(?P<google>(?:gemini-|text-embedding-00|gemma-).*)|(?P<deepseek>deepseek-.*)"
    r"|(?P<mistral>(?:mistral|codestral|ministral|magistral|pixtral|devstral)-.*)|(?P<cohere>(?:command|rerank-|embed-).*)"
    r"|(?P<xai>grok-.*)",
    re.IGNORECASE,
)

_NAMES: Final = frozenset(KIND)
"""The conventions' names for what calls have in common."""
_KEPT: Final = frozenset({*KIND, *FIELDS, *OLDER, RESPONSE_ID, MAX_TOKENS, TOTAL})
"""What the conventions name and is read."""

_CALLS: Final = frozenset({OPERATION, PROVIDER, REQUEST_MODEL})
"""One of these makes a span one of a call: counts alone do not."""
_PLAIN: Final = frozenset({INPUT, OUTPUT, CACHE_READ, REASONING, CACHE_WRITE, TOTAL, RESPONSE_ID, MAX_TOKENS})
"""What the spans of a call of text alone may say beside its names."""

_OF_AUDIO: Final = ("input_audio", "output_audio", "audio_seconds")
_OF_WRITES: Final = ("cache_write_5m",)
_TOLD_BY: Final = {
    "input_audio": "gen_ai.usage.audio.input_tokens",
    "output_audio": "gen_ai.usage.audio.output_tokens",
    "audio_seconds": "costspan.usage.audio_seconds",
    "cache_write_5m": CACHE_WRITE,
}
_TIERS: Final = frozenset({SERVICE_TIER, "openai.request.service_tier", "openai.response.service_tier"})
_SEARCHES: Final = "costspan.usage.web_searches"
_OFFERED: Final = re.compile(
    r'"(?:type|kind)": ?"(?:(?:web_|x_|file_|browser_|collections_)search|code_|image_generation|advisor|compact|mcp)'
    r'|"type": ?"(?:provider|extension)'
    r'|"(?:google_?search|google_?maps|enterprise_?web_?search|web_search_options|search_parameters|plugins)\w*": ?'
    r'(?!null)|"(?:code_?execution|file_?search)": ?\{',
    re.IGNORECASE,
)
"""A tool of the provider's own among those that a call is offered, as JSON."""
_SIGNS_OF_TOOLS: Final = (
    "search", "Search", "aps\"", '"code', '"image_gen', '"advisor', '"compact', '"mcp', '"plugins', '"provider',
    '"extension',
)  # fmt: skip
"""One of these is there where `_OFFERED` finds something, and costs less to look for."""

_TRANSLATIONS_AT_MOST = 2048
_KNOWN_AT_MOST = 8192
_LETTERS_AT_MOST = 2048
_LITERAL_AT_MOST = 10_000


class Translation:
    """How spans with the same attributes and scope are put into the conventions' words: worked out once for all.

    What names a call is the same in many: the conventions' words for it are kept, and only the counts are new.
    """

    __slots__ = (
        "answer", "beside", "cached", "costs", "counts", "dialect", "encoded", "inside", "known", "moves", "names",
        "naming", "plain", "reasoning", "reasons", "received", "searched", "sent", "settles", "shown", "shows", "sums",
        "ticks", "total", "written",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, shape: tuple[str, ...]) -> None:
        self.dialect = dialect
        self.encoded = dialect.encoded
        present = frozenset(shape)
        moves = {key: key for key in shape if key in _KEPT or key.startswith("costspan.usage.")}
        for target, names in SPELLINGS.items():
            if target not in present and (found := next((name for name in names if name in present), None)):
                moves[found] = target
        moves.update((key, target) for key, target in dialect.keys.items() if key in present)
        self.moves = {key: target for key, target in moves.items() if target in _NAMES}
        # Only where counts decide are totals looked at.
        self.reasons = {REASONING, TOTAL} <= set(moves.values())
        unread = _NAMES if dialect.guess or dialect.thoughts or self.reasons else _NAMES | {TOTAL}
        self.counts = tuple((key, target) for key, target in moves.items() if target not in unread)
        kind = dialect.kinds[:1] if dialect.kinds is not None and dialect.kinds[0] in present else ()
        api = (API,) if API in present else ()
        self.names = getter(tuple(dict.fromkeys((*self.moves, *kind, *api))))
        self.shows = bool(dialect.shown) and (not dialect.shown_with or not present.isdisjoint(dialect.shown_with))
        self.shown = tuple(key for key in shape if key.startswith(dialect.shown)) if self.shows else ()
        self.known: dict[tuple[Any, ...], Known] = {}
        self.inside = tuple(
            (key, paths, tuple(path.rpartition(".")[2] for path in paths))
            for key, paths in dialect.inside.items()
            if key in present
        )
        self.beside = tuple((key, target) for key, target in dialect.beside.items() if key in present)
        named = (*self.moves, *kind, *api, *(key for key, _, _ in self.inside), *self.shown)
        self.naming = tuple(dict.fromkeys(named))
        """The attributes that tell everything but counts, and of which response they are."""
        targets = {*moves.values(), *(target for _, paths, _ in self.inside for target in paths.values())}
        cached = bool(targets & {CACHE_READ, CACHE_WRITE, CACHE_WRITE_5M, CACHE_WRITE_1H, UNCACHED, SPOKEN})
        self.settles = bool(cached or dialect.thoughts or dialect.lost or self.reasons)
        self.sums = bool(targets & {UNCACHED, SPOKEN})
        keys = {target: key for key, target in self.counts}
        self.ticks = dialect.ticks if dialect.ticks in present else ""
        self.plain = (
            {INPUT, OUTPUT} <= keys.keys() <= _PLAIN
            and len(keys) == len(self.counts)
            and not self.beside
            and not self.encoded
            and not self.sums
            and not self.ticks
        )
        self.searched = _SEARCHES in targets
        self.costs = not present.isdisjoint(dialect.cost)
        self.answer = keys.get(RESPONSE_ID, "")
        """The attribute that holds the response's id."""
        self.sent, self.received = keys.get(INPUT, ""), keys.get(OUTPUT, "")
        self.cached, self.written = keys.get(CACHE_READ, ""), keys.get(CACHE_WRITE, "")
        self.reasoning, self.total = keys.get(REASONING, ""), keys.get(TOTAL, "")

    def plain_counts(self, attributes: Mapping[str, Any]) -> tuple[Kind, int, int, int, int] | None:
        """What `conventions.plain_counts` would find in the translated span, without translating it."""
        if not self.plain:
            return None
        try:
            known = self.known[self.names(attributes)]
        except (KeyError, TypeError):
            return None
        if known.kind is None:
            return None
        for key, _, endings in self.inside:
            holder = attributes[key]
            for ending in endings:
                if ending in holder:
                    return None
        if known.offers and self._offers(attributes):
            return None
        get = attributes.get
        reasoning = get(self.reasoning, 0)
        return known.counts(
            attributes[self.sent],
            attributes[self.received],
            get(self.cached, 0),
            get(self.written, 0),
            reasoning,
            get(self.total, 0) if reasoning else 0,
        )

    def of_text(self, attributes: Mapping[str, Any]) -> Known | None:
        """What all spans have in common that say this under `naming`: its `counts` are then what `plain_counts` finds.

        None where counts are not all that matters in them, and at the first sight of such a span.
        """
        empty = {**attributes, self.sent: 0, self.received: 0}
        return None if self.plain_counts(empty) is None else self.known[self.names(empty)]

    def __call__(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The span in the conventions' words."""
        names, told = self.names(attributes), attributes
        try:
            known = self.known[names]
        except (KeyError, TypeError):
            known = self._named(attributes, names)
        named, habits = known.said, known.habits
        said = named.copy()
        if self.encoded:
            attributes = {key: _decoded(attributes[key]) for key in attributes}
        for key, target in self.counts:
            said[target] = attributes[key]
        for key, paths, endings in self.inside:
            holder = attributes[key]
            for ending in endings:
                # Nearly always it says nothing of what is looked for, and need not be taken apart to see that.
                if ending in holder:
                    _from_inside(_decoded(holder), paths, said)
                    break
        for key, target in self.beside:
            said[target] = _sum(said.get(target), attributes[key])
        if self.ticks and type(ticks := _count(told[self.ticks])) is int and ticks > 0:
            said[REPORTED_COST] = f"{ticks}E-10"
        if UNSAID in said and any(key in said for key in _TOLD_BY.values()):
            said[UNSAID] = tuple(meter for meter in said[UNSAID] if _TOLD_BY[meter] not in said)
        if (
            habits is not None
            and (not _settle(said, habits) or (known.offers and self._offers(told)))
            and REPORTED_COST not in said
        ):
            said[ESTIMATED] = True
            if (cost := next((attributes[key] for key in self.dialect.cost if key in attributes), None)) is not None:
                said[REPORTED_COST] = cost
        if TOTAL in said:
            del said[TOTAL]
        return said

    def _named(self, attributes: Mapping[str, Any], names: tuple[Any, ...]) -> Known:
        dialect = self.dialect
        said = {target: attributes[key] for key, target in self.moves.items()}
        if dialect.encoded:
            said = {key: _decoded(value) for key, value in said.items()}
        if dialect.kinds is not None and dialect.kinds[0] in attributes:
            key, meant = dialect.kinds
            value = attributes[key]
            operation = meant.get(_decoded(value) if dialect.encoded else value)
            if operation is not None:
                said.setdefault(OPERATION, operation)
            elif OPERATION not in said:
                said[OPERATION] = "invoke_workflow"
        if OPERATION in said:
            said[OPERATION] = OPERATIONS.get(said[OPERATION], said[OPERATION])
        _name_provider(said)
        habits = None
        offers = False
        if self.settles:
            lost = dialect.lost.get(str(said.get(PROVIDER)), dialect.lost.get("*", ()))
            operation = said.get(OPERATION) or "chat"
            tools = TOOLS in lost and operation in WITH_TOOLS and attributes.get(API) not in APIS_WITHOUT_TOOLS
            offers = tools and self.shows
            unsaid: tuple[str, ...] = _OF_AUDIO if AUDIO in lost else ()
            if operation in WITHOUT_CACHE:
                lost = tuple(what for what in lost if what != CACHE)
            elif WRITES in lost and not self.written:
                unsaid += _OF_WRITES
            if unsaid:
                said[UNSAID] = unsaid
            habits = _habits(dialect, str(said.get(PROVIDER)), lost, tools and not offers)
            if not any(habits) and not self.sums and not self.reasons and not offers:
                habits = None
        known = Known(said, habits, self._plain_kind(said, habits), offers)
        if sum(len(name) for name in names if isinstance(name, str)) <= _LETTERS_AT_MOST:
            _make_room()
            with suppress(TypeError):  # a list where a name belongs
                self.known[names] = known
        return known

    def _plain_kind(self, said: Mapping[str, Any], habits: _Habits | None) -> Kind | None:
        """The kind of call, where the counts alone are all that was used: the cached tokens in the input or beside."""
        if not self.plain or GUESSED in said or said.keys().isdisjoint(_CALLS):
            return None
        if habits is not None:
            if habits.thoughts or (habits.guess and not habits.outside and (self.cached or self.written)):
                return None
            unsaid = (habits.loses_reads and not self.cached) or (habits.loses_tier and _TIERS.isdisjoint(said))
            if habits.loses_more or unsaid:
                if self.costs:
                    return None
                said = {**said, ESTIMATED: True}
        kind = Kind(said)
        return kind if kind.billed else None

    def _offers(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a call was offered tools of the provider's own, or used any, of which nobody tells how often."""
        for key in self.shown:
            told = attributes[key]
            if type(told) is float and told:
                return True  # what they cost
            told = str(told).replace("web_search", "") if self.searched else str(told)
            for word in _SIGNS_OF_TOOLS:
                if word in told and _OFFERED.search(told):
                    return True
        return False


class Known:
    """What all spans with the same names have in common, in the conventions' words."""

    __slots__ = ("habits", "kind", "offers", "outside", "said")

    def __init__(self, said: dict[str, Any], habits: _Habits | None, kind: Kind | None, offers: bool) -> None:
        self.said: Final = said
        self.habits: Final = habits
        self.kind: Final = kind
        """None where a span may say more than the counts of text."""
        self.outside: Final = habits is not None and habits.outside
        self.offers: Final = offers
        """Whether it must be looked up in each span which tools the call was offered."""

    def counts(
        self, sent: Any, received: Any, cached: Any, written: Any, reasoning: Any, total: Any
    ) -> tuple[Kind, int, int, int, int] | None:
        """`plain_counts` of a span with these counts, 0 where it has none; `kind` is not None."""
        if (
            type(sent) is int
            and type(received) is int
            and type(cached) is int
            and type(reasoning) is int
            and written == 0
            and cached >= 0
            and 0 <= reasoning <= received
            and not (reasoning and total == sent + received + reasoning)
        ):
            if self.outside:
                sent += cached
            if sent >= cached:
                return self.kind, sent, cached, received, reasoning  # type: ignore[return-value]
        return None


class _Habits(NamedTuple):
    """How a library counts the tokens of a provider."""

    outside: bool
    guess: bool
    thoughts: bool
    loses_lifetimes: bool
    loses_reads: bool
    loses_tier: bool
    loses_more: bool


_SOMETIMES: Final = frozenset({TTL, CACHE, TIER, TOOLS, AUDIO, WRITES})
"""What is not lost of every call."""


def _habits(dialect: Dialect, provider: str, lost: tuple[str, ...], loses_more: bool) -> _Habits:
    return _Habits(
        _holds(dialect.outside, provider),
        dialect.guess,
        _holds(dialect.thoughts, provider),
        TTL in lost,
        CACHE in lost,
        TIER in lost,
        loses_more or not _SOMETIMES.issuperset(lost),
    )


def _settle(said: dict[str, Any], habits: _Habits) -> bool:
    """Put parts that are reported beside their total into it; False if what the price needs is not all there."""
    outside, guess, thoughts, loses_lifetimes, loses_reads, loses_tier, loses_more = habits
    write = said.get(CACHE_WRITE)
    split = CACHE_WRITE_5M in said or CACHE_WRITE_1H in said
    if write == 0:
        del said[CACHE_WRITE]
    elif write is None and split:
        write = _sum(said.get(CACHE_WRITE_5M), said.get(CACHE_WRITE_1H))
    if outside or guess or UNCACHED in said:
        cached = _sum(said.get(CACHE_READ), write)
        if UNCACHED in said:
            said[INPUT] = _sum(said.pop(UNCACHED), cached)
        elif cached and outside:
            said[INPUT] = _sum(said.get(INPUT), cached)
        elif cached and _is_outside(said, cached):
            said[INPUT] = _sum(said.get(INPUT), cached)
            said[GUESSED] = True
    if SPOKEN in said:
        said[OUTPUT] = _sum(said.pop(SPOKEN), said.get(REASONING))
    else:
        # One that is no count stays where it is, to be refused by name.
        reasoning, beside = _count(said.get(REASONING)), None
        if (total := _count(said.get(TOTAL))) is not None:
            beside = total - (_count(said.get(INPUT)) or 0) - (_count(said.get(OUTPUT)) or 0)
        if thoughts and REASONING not in said:
            reasoning = beside
        if reasoning and reasoning > 0 and (thoughts or reasoning == beside):
            said[REASONING] = reasoning
            said[OUTPUT] = _sum(said.get(OUTPUT), reasoning)
    if loses_lifetimes and write and not split:
        return False
    if loses_tier and _TIERS.isdisjoint(said):
        return False
    return not loses_more and not (loses_reads and CACHE_READ not in said)


def _from_inside(holder: Any, paths: Mapping[str, str], said: dict[str, Any]) -> None:
    """What an attribute that holds JSON says of a call, where nothing else has said it."""
    for path, target in paths.items():
        if target not in said and (value := _at(holder, path)) is not None:
            said[target] = value


def _name_provider(said: dict[str, Any]) -> None:
    """Give a call its provider: from its host, or from the model's name where a framework stands in its place."""
    provider = said.get(PROVIDER)
    # An SDK of OpenAI's talks to many hosts, and some libraries name the SDK.
    if isinstance(host := said.get(SERVER_ADDRESS), str) and "://" in host:
        with suppress(ValueError):  # what is no address names nobody
            said[SERVER_ADDRESS] = host = urlsplit(host).hostname or host
    if provider == "openai" and isinstance(host, str):
        said[PROVIDER] = provider = provider_of(host) or provider
    if isinstance(provider, str) and provider.lower() not in _NOT_PROVIDERS:
        provider = provider.removesuffix("_llm")  # LlamaIndex
        # openai.chat, anthropic.messages, google.generative-ai: the Vercel AI SDK tells the endpoint too.
        if "." in provider and (head := provider.partition(".")[0]) not in CLOUDS:
            provider = head
        said[PROVIDER] = provider = VERCEL_PROVIDERS.get(provider, provider)
        # Bedrock's models bear their maker's name in front. Some take it for the provider, some take it off.
        for key in (REQUEST_MODEL, RESPONSE_MODEL):
            model = said.get(key)
            if not isinstance(model, str):
                continue
            if provider == "aws.bedrock" and (maker := _ON_BEDROCK.get(re.split(r"[-\d]", model)[0])):
                said[key] = f"{maker}.{model}"
            elif re.match(rf"(?:\w+\.)?{re.escape(provider)}\.", model):
                said[PROVIDER] = "aws.bedrock"
        if (
            # No model of OpenAI's own is named so: a gateway's, whose prices are its own.
            (provider == "openai" and "/" in str(said.get(REQUEST_MODEL, "")))
            # Its models run on one's own machine for nothing, and on its own for money.
            or (provider.lower() == "ollama" and host is None)
            or _is_another_makers(said.get(RESPONSE_MODEL), said.get(REQUEST_MODEL))
        ):
            said[GUESSED] = True
        return
    model = said.get(RESPONSE_MODEL, said.get(REQUEST_MODEL))
    if not isinstance(model, str):
        return
    prefix, slash, _ = model.partition("/")
    found = _MAKERS.fullmatch(model)
    maker = prefix if slash else found.lastgroup if found is not None else None
    if maker is not None:
        said[PROVIDER] = maker
        said[GUESSED] = True


def _is_another_makers(answered: Any, asked: Any) -> bool:
    """Whether a gateway has let the model of somebody else answer than the one that was asked for."""
    if answered == asked or not isinstance(answered, str) or not isinstance(asked, str):
        return False
    wanted, got = _MAKERS.fullmatch(asked), _MAKERS.fullmatch(answered)
    if wanted is None or wanted.lastgroup == "aws":
        return False
    return got is None or got.lastgroup not in {wanted.lastgroup, "aws"}


def _is_outside(said: Mapping[str, Any], cached: Any) -> bool:
    """Whether counts that nobody has explained can only be read with the cached tokens beside the input."""
    sent, received, total = (_count(said.get(key)) for key in (INPUT, OUTPUT, TOTAL))
    if sent is None or not isinstance(cached, int):
        return False
    if total is not None and received is not None:
        if total == sent + received + cached:
            return True
        if total == sent + received and sent >= cached:
            return False
    return sent < cached


def _holds(providers: frozenset[str], provider: str) -> bool:
    return providers is ALL or provider in providers


def _count(value: Any) -> int | None:
    count = number(value)
    return count if type(count) is int else None


def _sum(*counts: Any) -> Any:
    """The sum of counts; what is none comes back itself, to be refused by name."""
    total = 0
    for value in counts:
        if value is not None:
            count = value if type(value) is int else number(value)
            if type(count) is not int or count < 0:
                return value
            total += count
    return total


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    # LiteLLM writes Python's own form.
    if value.startswith("{") and len(value) <= _LITERAL_AT_MOST:
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(value)
    return value


def _at(holder: Any, path: str) -> Any:
    """What stands at a path of keys; a key may hold dots itself."""
    if not isinstance(holder, dict):
        return None
    if path in holder:
        return holder[path]
    head, dot, rest = path.partition(".")
    return _at(holder.get(head), rest) if dot else None


def dialect_of(scope_name: str, service: str = "", shape: tuple[str, ...] = ()) -> Dialect:
    """The dialect of a scope, of a service, or of spans with these attributes."""
    for dialect in DIALECTS:
        for scope in dialect.scopes:
            if scope_name == scope or (scope.endswith("*") and scope_name.startswith(scope[:-1])):
                return dialect
        if (service and service in dialect.services) or any(sign in shape for sign in dialect.signs):
            return dialect
    return _CONVENTIONS


def speaks_of_calls(scope_name: str) -> bool:
    """Whether a scope is one of a library in the table."""
    return dialect_of(scope_name) is not _CONVENTIONS


_translations: dict[tuple[str, str], dict[tuple[str, ...], Translation]] = {}
"""By scope and service, and by the attributes of a span."""


_known = 0
"""How often names have been remembered since all were forgotten."""


def _make_room() -> None:
    """Forget what is known of all spans, if it is too much: there is no end of names that somebody may send."""
    global _known  # noqa: PLW0603
    _known += 1
    if _known > _KNOWN_AT_MOST:
        _known = 0
        for of_scope in _translations.values():
            for one in of_scope.values():
                one.known.clear()


def in_convention(
    attributes: Mapping[str, Any],
    scope: str = "",
    resource: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """What a span says of a call in the words of the conventions; a span that has been priced already, as it is.

    `scope` names the library that made the span, `resource` holds the service's attributes.
    """
    return attributes if STATUS in attributes else translation(attributes, scope, resource)(attributes)


def told(
    attributes: Mapping[str, Any], scope: str, resource: Mapping[str, Any] | None, *, aggregate: bool = False
) -> tuple[Reading | Plain | None, object]:
    """The call that a span tells of, as `conventions.read` has it, and the id of the response."""
    translate = translation(attributes, scope, resource)
    counts = translate.plain_counts(attributes)
    if counts is None:
        said = translate(attributes)
        return read(said, aggregate=aggregate), said.get(RESPONSE_ID)
    plain = Plain()
    plain.kind, sent, cached, received, reasoned = counts
    plain.plain = sent, cached, received, reasoned
    plain.output_tokens = received
    return plain, attributes.get(translate.answer)


def translation(attributes: Mapping[str, Any], scope: str, resource: Mapping[str, Any] | None) -> Translation:
    """What puts such a span into the words of the conventions: a function of its attributes."""
    service = ""
    if resource is not None and resource.get("service.name") in _SERVICES:
        service = str(resource["service.name"])
    shape = tuple(attributes)
    try:
        return _translations[scope, service][shape]
    except KeyError:
        if sum(map(len, _translations.values())) >= _TRANSLATIONS_AT_MOST:
            _translations.clear()
        found = Translation(dialect_of(scope, service, shape), shape)
        return _translations.setdefault((scope, service), {}).setdefault(shape, found)


_SERVICES: Final = frozenset(service for dialect in DIALECTS for service in dialect.services)
