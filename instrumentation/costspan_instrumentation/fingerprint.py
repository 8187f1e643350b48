"""What makes prompts comparable and tells nobody what they say: keyed hashes. Off unless a key is set.

The same prompt has the same hash, and so has the same beginning of two prompts: system instructions and tools, which a
provider's cache could keep. Without the key a hash cannot be compared with that of a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import get

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costspan_instrumentation.provider import Attributes

_INSTRUCTS: Final = frozenset({"system", "developer"})
"""Roles of messages that come before what is asked."""
_STANDING: Final = frozenset({
    "system", "instructions", "additional_instructions", "system_instruction", "tools", "toolConfig", "config",
})  # fmt: skip
"""Arguments that say the same in one question after another."""
_DEEPEST: Final = 32


class Fingerprints:
    """Hashes with one key."""

    def __init__(self, key: str) -> None:
        self._key = blake2b(key.encode(), digest_size=32).digest()

    def __call__(self, names: Sequence[str], arguments: Mapping[str, Any]) -> Attributes:
        """Hashes of a prompt, which is what `arguments` have under `names`.

        Empty where there is no prompt, or one that cannot be read twice, such as a generator.
        """
        instructions: list[Any] = []
        messages: list[Any] = []
        for name in names:
            value = arguments.get(name)
            if value is None:
                continue
            if name in _STANDING:
                instructions.append(value)
            elif isinstance(value, list | tuple):
                leading = next((at for at, item in enumerate(value) if get(item, "role") not in _INSTRUCTS), len(value))
                instructions += value[:leading]
                messages += value[leading:]
            else:
                messages.append(value)
        whole, prefix = blake2b(key=self._key, digest_size=16), blake2b(key=self._key, digest_size=16)
        try:
            in_prefix = sum(_add(piece, whole, prefix) for piece in _pieces(instructions))
            size = in_prefix + sum(_add(piece, whole) for piece in _pieces(messages))
        except _UnreadableError:
            return {}
        if not size:
            return {}
        found: Attributes = {semconv.PROMPT_HASH: whole.hexdigest()}
        if in_prefix:
            found[semconv.PROMPT_PREFIX_HASH] = prefix.hexdigest()
            found[semconv.PROMPT_PREFIX_SHARE] = 1000 * in_prefix // size
        return found


class _UnreadableError(Exception):
    """There is something in a prompt that reading would use up, or that has no end."""


def _add(piece: str | bytes, *hashes: Any) -> int:
    """Take a piece into hashes, so that where it ends matters too; returns the characters that a model reads of it."""
    data = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
    for hash_ in hashes:
        hash_.update(len(data).to_bytes(8, "little"))
        hash_.update(data)
    return len(piece) if isinstance(piece, str) and not piece.startswith("data:") else 0


def _pieces(value: Any, depth: int = 0) -> Iterator[str | bytes]:
    """Everything that a prompt says, in order; names of fields too, in an order of their own."""
    if depth > _DEEPEST:
        raise _UnreadableError
    if isinstance(value, str | bytes):
        yield value
    elif value is None or isinstance(value, int | float):
        yield repr(value).encode()
    elif isinstance(value, Mapping):
        # As bytes, so that they count as no characters of the prompt.
        for key in sorted(value, key=str):
            yield str(key).encode()
            if key in {"role", "type"} and isinstance(value[key], str):
                yield value[key].encode()
            else:
                yield from _pieces(value[key], depth + 1)
    elif isinstance(value, Iterable):
        if not hasattr(value, "__len__"):
            raise _UnreadableError
        for item in value:
            yield from _pieces(item, depth + 1)
    elif hasattr(value, "__dict__"):
        yield from _pieces({key: item for key, item in vars(value).items() if not key.startswith("_")}, depth + 1)
    else:
        yield type(value).__qualname__.encode()
