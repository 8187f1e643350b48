"""Any library's span -> a call: the words of its dialect are put into those of the GenAI conventions, and read.

What decides how counts are meant, in this order: the scope's name and version, then the provider, then arithmetic. A
span whose convention is not known and whose counts decide it carries `costspan.usage.guessed`; one whose library leaves
out what the price depends on is an estimate.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.conventions import (
    ESTIMATED,
    GUESSED,
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_MODEL,
    STATUS,
    Plain,
    Reading,
    number,
)  # fmt: skip
from costspan_processor.conventions import read as read_convention
from costspan_processor.dialects import (
    ALL,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    CACHE_WRITE_5M,
    DIALECTS,
    INPUT,
    OPERATIONS,
    OUTPUT,
    REASONING,
    SPELLINGS,
    SYSTEM,
    TOTAL,
    TTL,
    Dialect,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CONVENTIONS: Final = Dialect("conventions", (), guess=True)
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
_VERCEL: Final = {"amazon-bedrock": "aws.bedrock", "google-vertex": "vertex", "azure-openai": "azure"}
_MAKERS: Final = re.compile(
    r"(?P<aws>(?:[a-z]{2,6}\.)?(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|writer|qwen|openai)\.\S+)"
    r"|(?P<openai>(?:gpt-|chatgpt-|o\d(?:-|$)|text-embedding-3|text-embedding-ada|dall-e|whisper-1|tts-1|codex-|ft:gpt).*)"
    r"|(?P<anthropic>claude-.*)|(?P<google>(?:gemini-|text-embedding-00|gemma-).*)|(?P<deepseek>deepseek-.*)"
    r"|(?P<mistral>(?:mistral|codestral|ministral|magistral|pixtral|devstral)-.*)|(?P<cohere>(?:command|rerank-|embed-).*)"
    r"|(?P<xai>grok-.*)",
    re.IGNORECASE,
)

_TRANSLATIONS_AT_MOST = 1024


class _Translation:
    """How spans with the same attributes and scope are put into the conventions' words: worked out once for all."""

    __slots__ = ("beside", "dialect", "inside", "kind", "moves", "settles")

    def __init__(self, dialect: Dialect, shape: tuple[str, ...]) -> None:
        self.dialect = dialect
        present = frozenset(shape)
        moves = {key: key for key in shape if key.startswith(("gen_ai.", "costspan.", "server.", "error.", "openai."))}
        for target, names in SPELLINGS.items():
            if target not in present and (found := next((name for name in names if name in present), None)):
                moves[found] = target
        moves.update((key, target) for key, target in dialect.keys.items() if key in present)
        self.moves = tuple(moves.items())
        self.inside = tuple((key, paths) for key, paths in dialect.inside.items() if key in present)
        self.beside = tuple((key, target) for key, target in dialect.beside.items() if key in present)
        self.kind = dialect.kinds if dialect.kinds is not None and dialect.kinds[0] in present else None
        targets = {*moves.values(), *(target for _, paths in self.inside for target in paths.values())}
        cached = bool(targets & {CACHE_READ, CACHE_WRITE, CACHE_WRITE_5M, CACHE_WRITE_1H})
        self.settles = bool(cached or dialect.thoughts or dialect.lost)

    @property
    def changes_nothing(self) -> bool:
        """Whether such spans speak as the conventions do."""
        provider_said = any(target == PROVIDER for _, target in self.moves)
        return provider_said and not (
            self.settles
            or self.inside
            or self.beside
            or self.kind
            or self.dialect.encoded
            or any(key != target for key, target in self.moves)
        )

    def __call__(self, attributes: Mapping[str, Any], version: str) -> dict[str, Any]:
        """The span in the conventions' words."""
        said = {target: attributes[key] for key, target in self.moves}
        if self.dialect.encoded:
            said = {key: _decoded(value) for key, value in said.items()}
        for key, paths in self.inside:
            holder = _decoded(attributes[key])
            for path, target in paths.items():
                if target not in said and (value := _at(holder, path)) is not None:
                    said[target] = value
        if self.kind is not None:
            key, meant = self.kind
            value = attributes[key]
            operation = meant.get(_decoded(value) if self.dialect.encoded else value)
            if operation is not None:
                said.setdefault(OPERATION, operation)
            elif OPERATION not in said or key == "openinference.span.kind":
                said[OPERATION] = "invoke_workflow"
        if OPERATION in said:
            said[OPERATION] = OPERATIONS.get(said[OPERATION], said[OPERATION])
        _name_provider(said)
        for key, target in self.beside:
            said[target] = _sum(said.get(target), attributes[key])
        if self.settles:
            self._settle(said, version)
        said.pop(TOTAL, None)
        return said

    def _settle(self, said: dict[str, Any], version: str) -> None:
        """Put parts that are reported beside their total into it."""
        dialect, provider = self.dialect, str(said.get(PROVIDER))
        read, write = said.get(CACHE_READ), said.get(CACHE_WRITE)
        if write is None and (CACHE_WRITE_5M in said or CACHE_WRITE_1H in said):
            write = _sum(said.get(CACHE_WRITE_5M), said.get(CACHE_WRITE_1H))
        cached = _sum(read, write)
        if cached and (_holds(dialect.outside, provider) and (not dialect.before or _older(version, dialect.before))):
            said[INPUT] = _sum(said.get(INPUT), cached)
        elif cached and dialect.guess and _is_outside(said, cached):
            said[INPUT] = _sum(said.get(INPUT), cached)
            said[GUESSED] = True
        if _holds(dialect.thoughts, provider):
            reasoning = said.get(REASONING)
            if reasoning is None and (total := _count(said.get(TOTAL))) is not None:
                reasoning = total - (_count(said.get(INPUT)) or 0) - (_count(said.get(OUTPUT)) or 0)
            if reasoning and reasoning > 0:
                said[REASONING] = reasoning
                said[OUTPUT] = _sum(said.get(OUTPUT), reasoning)
        lost = dialect.lost.get(provider, dialect.lost.get("*"))
        if lost is not None and (
            lost is not TTL or (write and CACHE_WRITE_5M not in said and CACHE_WRITE_1H not in said)
        ):
            said.setdefault(ESTIMATED, True)


def _name_provider(said: dict[str, Any]) -> None:
    """Give a call its provider, from the model's name where a framework stands in its place."""
    provider = said.get(PROVIDER)
    if isinstance(provider, str) and provider.lower() not in _NOT_PROVIDERS:
        # openai.chat, anthropic.messages, google.generative-ai: the Vercel AI SDK tells the endpoint too.
        if "." in provider and not provider.startswith(("aws.", "gcp.", "az.", "azure.", "ibm.")):
            provider = provider.partition(".")[0]
        said[PROVIDER] = _VERCEL.get(provider, provider)
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


def _older(version: str, limit: str) -> bool:
    """Whether a version is before another, by the numbers in both."""
    numbers = [tuple(map(int, re.findall(r"\d+", text)[:3])) for text in (version, limit)]
    return bool(numbers[0]) and numbers[0] < numbers[1]


def _count(value: Any) -> int | None:
    count = number(value)
    return count if type(count) is int else None


def _sum(*counts: Any) -> Any:
    """The sum of counts; what is none comes back itself, to be refused by name."""
    total = 0
    for value in counts:
        if value is not None:
            count = number(value)
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
        return value


def _at(holder: Any, path: str) -> Any:
    """What stands at a path of keys; a key may hold dots itself."""
    if not isinstance(holder, dict):
        return None
    if path in holder:
        return holder[path]
    head, dot, rest = path.partition(".")
    return _at(holder.get(head), rest) if dot else None


def dialect_of(scope_name: str, service: str = "") -> Dialect:
    """The dialect that a scope speaks, or a service."""
    for dialect in DIALECTS:
        for scope in dialect.scopes:
            if scope_name == scope or (scope.endswith("*") and scope_name.startswith(scope[:-1])):
                return dialect
        if service and service in dialect.services:
            return dialect
    return _CONVENTIONS


_translations: dict[tuple[str, ...], _Translation | None] = {}


def _translation(attributes: Mapping[str, Any], scope_name: str, service: str) -> _Translation | None:
    key = (scope_name, service, *attributes)
    try:
        return _translations[key]
    except KeyError:
        pass
    found: _Translation | None = _Translation(dialect_of(scope_name, service), tuple(attributes))
    if found is not None and found.changes_nothing:
        found = None
    if len(_translations) >= _TRANSLATIONS_AT_MOST:
        _translations.clear()
    _translations[key] = found
    return found


def in_convention(
    attributes: Mapping[str, Any],
    scope_name: str = "",
    scope_version: str = "",
    resource: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """The attributes of any library's span in the words of the conventions; the same object if they are those already.

    `scope_name` and `scope_version` name the library that made the span, `resource` holds the service's attributes.
    """
    if STATUS in attributes:
        return attributes
    service = str(resource.get("service.name", "")) if resource else ""
    translation = _translation(attributes, scope_name, service if service in _SERVICES else "")
    return attributes if translation is None else translation(attributes, scope_version)


_SERVICES: Final = frozenset(service for dialect in DIALECTS for service in dialect.services)


def read(
    attributes: Mapping[str, Any],
    scope_name: str = "",
    scope_version: str = "",
    resource: Mapping[str, Any] | None = None,
) -> Reading | Plain | None:
    """The call that any library's span describes; None if it describes none that is billed."""
    return read_convention(in_convention(attributes, scope_name, scope_version, resource))
