"""What a call used: disjoint quantities, whatever the provider's habit of counting."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from costspan_pricing.meters import METERS

if TYPE_CHECKING:
    from collections.abc import Mapping


class UsageError(ValueError):
    """A quantity that cannot be: negative, fractional where only whole units exist, or no number at all."""


class Usage:
    """An immutable mapping of meter to quantity, each an integer in its meter's scale (whole tokens, microseconds).

    Zeros are dropped, so a `Usage` of nothing is false. A meter that the registry does not know is kept: it will make
    the cost ``partial`` instead of vanishing.

    >>> Usage({"input": 1000, "output": 200}) + Usage({"input": 5})
    Usage({'input': 1005, 'output': 200})
    """

    __slots__ = ("_inconsistent", "_quantities")

    _quantities: dict[str, int]
    _inconsistent: bool

    def __init__(self, quantities: Mapping[str, int] | None = None, *, inconsistent: bool = False) -> None:
        """Take quantities that are disjoint already; `from_inclusive` takes the ones that overlap."""
        self._quantities = {
            meter: _whole(meter, quantity) for meter, quantity in (quantities or {}).items() if quantity
        }
        self._inconsistent = inconsistent

    @property
    def quantities(self) -> Mapping[str, int]:
        """Meter to quantity, in the meter's scale; never zero."""
        return MappingProxyType(self._quantities)

    @property
    def inconsistent(self) -> bool:
        """Whether the reported numbers contradicted each other (more cached tokens than tokens, say)."""
        return self._inconsistent

    @classmethod
    def from_inclusive(
        cls,
        *,
        input: float | None = None,  # noqa: A002  the field's own word
        output: float | None = None,
        cache_read: float | None = None,
        cache_write: float | None = None,
        cache_write_5m: float | None = None,
        cache_write_30m: float | None = None,
        cache_write_1h: float | None = None,
        cache_write_12h: float | None = None,
        reasoning: float | None = None,
        input_audio: float | None = None,
        input_image: float | None = None,
        input_video: float | None = None,
        cache_read_audio: float | None = None,
        cache_read_image: float | None = None,
        cache_read_video: float | None = None,
        output_audio: float | None = None,
        output_image: float | None = None,
        output_video: float | None = None,
        cache_outside: bool = False,
        reasoning_outside: bool = False,
        extra: Mapping[str, float] | None = None,
    ) -> Usage:
        """Turn counts that contain each other into disjoint meters. ``None`` means that a count was not reported.

        ``input`` is the whole prompt and contains ``cache_read``, ``cache_write`` and the audio, image and video
        counts; with ``cache_outside`` the two cache counts come on top of it (Anthropic's own form). ``cache_write`` is
        the sum over all lifetimes; what its split leaves over is a 5-minute write. ``input_audio`` contains
        ``cache_read_audio``, and so on. ``output`` contains ``reasoning``, unless ``reasoning_outside`` (Gemini's own
        form), and the output of each modality. ``extra`` holds further meters in natural units (95.5 seconds).

        Where the provider says how much was cached and how much was audio, but not how much of the audio was cached,
        the overlap is taken to be the least that the counts allow.

        A part larger than its whole is priced as reported, the remainder is taken as 0 and ``inconsistent`` is set.
        Raises `UsageError` naming the field for a negative number, a fraction of a token, NaN, a boolean or any other
        type.

        >>> Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000)
        Usage({'cache_read': 8000, 'input': 2000, 'output': 1000})
        >>> Usage.from_inclusive(input=100, cache_read=200).inconsistent
        True
        """
        quantities: dict[str, int] = {}
        inconsistent = False

        # A count of the right type is not worth a function call: this runs on every call that is made.
        total = 0
        if input is not None:
            total = input if type(input) is int and input >= 0 else _whole("input", input)
        parts = 0
        read = 0
        if cache_read is not None:
            read = cache_read if type(cache_read) is int and cache_read >= 0 else _whole("cache_read", cache_read)
            if read:
                parts = read
                quantities["cache_read"] = read
        if (
            cache_write is not None
            or cache_write_5m is not None
            or cache_write_1h is not None
            or cache_write_30m is not None
            or cache_write_12h is not None
        ):
            split = {
                "cache_write_5m": cache_write_5m,
                "cache_write_30m": cache_write_30m,
                "cache_write_1h": cache_write_1h,
                "cache_write_12h": cache_write_12h,
            }
            written, torn = _written(quantities, cache_write, split)
            inconsistent |= torn
            parts += written
        if cache_outside:
            total += parts

        if (
            input_audio is not None
            or input_image is not None
            or input_video is not None
            or cache_read_audio is not None
            or cache_read_image is not None
            or cache_read_video is not None
        ):
            modal, torn = _by_modality(
                quantities,
                read,
                total - parts if input is not None else None,
                {"audio": input_audio, "image": input_image, "video": input_video},
                {"audio": cache_read_audio, "image": cache_read_image, "video": cache_read_video},
            )
            inconsistent |= torn
            parts += modal

        if total > parts:
            quantities["input"] = total - parts
        elif total < parts and input is not None:
            inconsistent = True

        if output is not None or reasoning is not None:
            total = 0
            if output is not None:
                total = output if type(output) is int and output >= 0 else _whole("output", output)
            parts = 0
            if reasoning is not None:
                thought = reasoning if type(reasoning) is int and reasoning >= 0 else _whole("reasoning", reasoning)
                if thought:
                    parts = thought
                    quantities["output_reasoning"] = thought
                    if reasoning_outside:
                        total += thought
            if output_audio is not None or output_image is not None or output_video is not None:
                for meter, count in (
                    ("output_audio", output_audio),
                    ("output_image", output_image),
                    ("output_video", output_video),
                ):
                    if count:
                        quantities[meter] = _whole(meter, count)
                        parts += quantities[meter]
            if total > parts:
                quantities["output"] = total - parts
            elif total < parts and output is not None:
                inconsistent = True

        if extra:
            for meter, quantity in extra.items():
                if scaled := _scaled(meter, quantity):
                    quantities[meter] = quantities.get(meter, 0) + scaled

        usage = _new(cls)
        usage._quantities = quantities  # noqa: SLF001
        usage._inconsistent = inconsistent  # noqa: SLF001
        return usage

    def __add__(self, other: Usage) -> Usage:
        """The two together, meter by meter; inconsistent if one of them is."""
        if not isinstance(other, Usage):
            return NotImplemented
        quantities = dict(self._quantities)
        for meter, quantity in other._quantities.items():  # noqa: SLF001
            quantities[meter] = quantities.get(meter, 0) + quantity
        return Usage(quantities, inconsistent=self._inconsistent or other._inconsistent)  # noqa: SLF001

    def __bool__(self) -> bool:
        return bool(self._quantities)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Usage):
            return NotImplemented
        return self._quantities == other._quantities and self._inconsistent == other._inconsistent

    def __hash__(self) -> int:
        return hash((frozenset(self._quantities.items()), self._inconsistent))

    def __repr__(self) -> str:
        return f"Usage({self._quantities!r}{', inconsistent=True' if self._inconsistent else ''})"


_new = object.__new__


def _whole(field: str, value: object) -> int:
    """The count as an integer, or a `UsageError` that names the field."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{field} must be a whole number, not {value!r}")
    # NaN and the infinities fail the comparison with their own integer part, or have none.
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise UsageError(f"{field} must be a whole number, not {value!r}")
    if value < 0:
        raise UsageError(f"{field} must not be negative: {value!r}")
    return int(value)


def _scaled(meter: str, value: float) -> int:
    """A natural quantity in the integer scale of its meter, rounded to the nearest step."""
    known = METERS.get(meter)
    if known is None or known.scale == 1:
        return _whole(meter, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{meter} must be a number, not {value!r}")
    if not 0 <= value < float("inf"):
        raise UsageError(f"{meter} must be finite and not negative: {value!r}")
    return round(value * known.scale)


def _written(
    quantities: dict[str, int], reported: float | None, split: Mapping[str, float | None]
) -> tuple[int, bool]:
    """Put cache writes under the meter of their lifetime; returns their sum and whether the split exceeds it."""
    parts = 0
    for meter, count in split.items():
        if count is not None and (tokens := _whole(meter, count)):
            quantities[meter] = tokens
            parts += tokens
    if reported is None:
        return parts, False
    total = _whole("cache_write", reported)
    if total > parts:
        quantities["cache_write_5m"] = quantities.get("cache_write_5m", 0) + total - parts
    return max(total, parts), total < parts


def _by_modality(
    quantities: dict[str, int],
    read: int,
    room: int | None,
    inputs: Mapping[str, float | None],
    reads: Mapping[str, float | None],
) -> tuple[int, bool]:
    """Split input and cache reads by modality.

    ``read`` are all tokens read from the cache, ``room`` the tokens of the prompt that are in no cache count. Returns
    the tokens of the prompt that this took out of ``room``, and whether the counts contradict each other.
    """
    cached: dict[str, int] = {}
    fresh: dict[str, int] = {}
    inconsistent = False
    for modality, count in reads.items():
        if count is not None:
            cached[modality] = _whole(f"cache_read_{modality}", count)
    for modality, count in inputs.items():
        if count is not None:
            whole = _whole(f"input_{modality}", count)
            fresh[modality] = max(0, whole - cached.get(modality, 0))
            inconsistent |= whole < cached.get(modality, 0)
    text = read - sum(cached.values())
    if text < 0:
        inconsistent |= read > 0
        text = 0
    if not cached and room is not None:
        # Nobody said how much of the audio was cached: what does not fit into the prompt otherwise must have been.
        overlap = sum(fresh.values()) - room
        for modality, tokens in fresh.items():
            moved = max(0, min(overlap, tokens, text))
            if moved:
                fresh[modality] -= moved
                cached[modality] = moved
                text -= moved
                overlap -= moved
    quantities.pop("cache_read", None)
    unheard = max(0, sum(cached.values()) - read)  # cached audio of a provider that gives no sum of its cache reads
    for meter, tokens in (
        ("cache_read", text),
        *((f"cache_read_{modality}", tokens) for modality, tokens in cached.items()),
        *((f"input_{modality}", tokens) for modality, tokens in fresh.items()),
    ):
        if tokens:
            quantities[meter] = tokens
    return sum(fresh.values()) + unheard, inconsistent
