"""What a call used: disjoint quantities, whatever the provider's habit of counting."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from costspan_pricing.meters import INPUT_SIDE, METERS

if TYPE_CHECKING:
    from collections.abc import Mapping

HOT: Final = ("input", "cache_read", "cache_write_5m", "output", "output_reasoning")
"""The meters of nearly every call. They live in slots of their own, since a dict costs more than the arithmetic."""

_NOTHING: Final[dict[str, int]] = {}


class UsageError(ValueError):
    """A quantity that cannot be: negative, fractional where only whole units exist, or no number at all."""


class Usage:
    """An immutable mapping of meter to quantity, each an integer in its meter's scale (whole tokens, microseconds).

    Zeros are dropped, so a `Usage` of nothing is false. A meter that the registry does not know is kept: it will make
    the cost ``partial`` instead of vanishing.

    >>> Usage({"input": 1000, "output": 200}) + Usage({"input": 5})
    Usage({'input': 1005, 'output': 200})
    """

    __slots__ = (
        "_cache_read",
        "_cache_write_5m",
        "_inconsistent",
        "_input",
        "_output",
        "_output_reasoning",
        "_prompt",
        "_rest",
    )

    _input: int
    _cache_read: int
    _cache_write_5m: int
    _output: int
    _output_reasoning: int
    _prompt: int
    _rest: dict[str, int]
    _inconsistent: bool

    def __init__(self, quantities: Mapping[str, int] | None = None, *, inconsistent: bool = False) -> None:
        """Take quantities that are disjoint already; `from_inclusive` takes the ones that overlap."""
        rest = {meter: _whole(meter, quantity) for meter, quantity in (quantities or {}).items() if quantity}
        self._prompt = sum(n for meter, n in rest.items() if meter in METERS and METERS[meter].component in INPUT_SIDE)
        self._input = rest.pop("input", 0)
        self._cache_read = rest.pop("cache_read", 0)
        self._cache_write_5m = rest.pop("cache_write_5m", 0)
        self._output = rest.pop("output", 0)
        self._output_reasoning = rest.pop("output_reasoning", 0)
        self._rest = rest
        self._inconsistent = inconsistent

    @property
    def quantities(self) -> Mapping[str, int]:
        """Meter to quantity, in the meter's scale; never zero."""
        hot = (self._input, self._cache_read, self._cache_write_5m, self._output, self._output_reasoning)
        return MappingProxyType(
            {meter: quantity for meter, quantity in zip(HOT, hot, strict=True) if quantity} | self._rest
        )

    @property
    def inconsistent(self) -> bool:
        """Whether the reported numbers contradicted each other (more cached tokens than tokens, say)."""
        return self._inconsistent

    @classmethod
    def from_inclusive(
        cls,
        # Not keyword-only, although nobody should pass them by position: Python fills those in five times as slowly.
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
        Usage({'input': 2000, 'cache_read': 8000, 'output': 1000})
        >>> Usage.from_inclusive(input=100, cache_read=200).inconsistent
        True
        """
        usage = _new(cls)
        usage._rest = _NOTHING
        usage._cache_read = usage._cache_write_5m = usage._output_reasoning = 0
        inconsistent = False

        # A count of the right type is not worth a function call: this runs on every call that is made.
        total = 0
        if input is not None:
            total = input if type(input) is int and input >= 0 else _whole("input", input)
        parts = 0
        if cache_read is not None:
            parts = cache_read if type(cache_read) is int and cache_read >= 0 else _whole("cache_read", cache_read)
            usage._cache_read = parts
        if cache_write or cache_write_5m or cache_write_1h or cache_write_30m or cache_write_12h:
            written, torn = usage._write(cache_write, cache_write_5m, cache_write_30m, cache_write_1h, cache_write_12h)
            inconsistent = torn
            parts += written
        if cache_outside:
            total += parts
        if input_audio or input_image or input_video or cache_read_audio or cache_read_image or cache_read_video:
            modal, torn = usage._divide(
                None if input is None else total - parts,
                ("input_audio", input_audio, "cache_read_audio", cache_read_audio),
                ("input_image", input_image, "cache_read_image", cache_read_image),
                ("input_video", input_video, "cache_read_video", cache_read_video),
            )
            inconsistent |= torn
            parts += modal
        if total >= parts:
            usage._prompt = total
            usage._input = total - parts
        else:
            usage._prompt = parts
            usage._input = 0
            inconsistent |= input is not None

        total = 0
        if output is not None:
            total = output if type(output) is int and output >= 0 else _whole("output", output)
        parts = 0
        if reasoning is not None:
            parts = reasoning if type(reasoning) is int and reasoning >= 0 else _whole("reasoning", reasoning)
            usage._output_reasoning = parts
            if reasoning_outside:
                total += parts
        if output_audio or output_image or output_video:
            parts += usage._keep("output_audio", output_audio)
            parts += usage._keep("output_image", output_image)
            parts += usage._keep("output_video", output_video)
        if total >= parts:
            usage._output = total - parts
        else:
            usage._output = 0
            inconsistent |= output is not None

        usage._inconsistent = inconsistent
        if extra:
            more = {meter: _scaled(meter, quantity) for meter, quantity in extra.items()}
            return usage + cls(more)
        return usage

    def _write(
        self, reported: float | None, m5: float | None, m30: float | None, h1: float | None, h12: float | None
    ) -> tuple[int, bool]:
        """Put cache writes under the meter of their lifetime; returns their sum and whether the split exceeds it."""
        short = _whole("cache_write_5m", m5) if m5 else 0
        parts = short
        if m30 or h1 or h12:
            parts += self._keep("cache_write_30m", m30)
            parts += self._keep("cache_write_1h", h1)
            parts += self._keep("cache_write_12h", h12)
        total = parts if reported is None else _whole("cache_write", reported)
        self._cache_write_5m = short + max(0, total - parts)
        return max(total, parts), total < parts

    def _divide(self, room: int | None, *modalities: tuple[str, float | None, str, float | None]) -> tuple[int, bool]:
        """Split input and cache reads by modality, given as meter and count of the input and of the cache reads in it.

        ``room`` are the tokens of the prompt that are in no cache count. Returns the tokens that this took out of it,
        and whether the counts contradict each other.
        """
        read = self._cache_read
        taken = told = 0
        inconsistent = False
        for meter, count, read_meter, read_count in modalities:
            cached = self._keep(read_meter, read_count)
            if count:
                whole = _whole(meter, count)
                inconsistent |= whole < cached
                taken += self._keep(meter, max(0, whole - cached))
            told += cached
        text = read - told
        if text < 0:
            # Cached audio of a provider that gives no sum of its cache reads; with a sum, it is a contradiction.
            inconsistent |= read > 0
            taken -= text
            text = 0
        if text and not told and room is not None and taken > room:
            # Nobody said how much of the audio was cached: what does not fit into the prompt otherwise must have been.
            for meter, _, read_meter, _ in modalities:
                moved = min(taken - room, self._rest.get(meter, 0), text)
                if moved > 0:
                    self._rest[read_meter] = moved
                    self._rest[meter] -= moved
                    if not self._rest[meter]:
                        del self._rest[meter]
                    text -= moved
                    taken -= moved
        self._cache_read = text
        return taken, inconsistent

    def _keep(self, meter: str, count: float | None) -> int:
        """Take up a count under a meter that has no slot of its own."""
        if not count:
            return 0
        quantity = count if type(count) is int and count > 0 else _whole(meter, count)
        if self._rest is _NOTHING:
            self._rest = {}
        self._rest[meter] = quantity
        return quantity

    def __add__(self, other: Usage) -> Usage:
        """The two together, meter by meter; inconsistent if one of them is."""
        if not isinstance(other, Usage):
            return NotImplemented
        quantities = dict(self.quantities)
        for meter, quantity in other.quantities.items():
            quantities[meter] = quantities.get(meter, 0) + quantity
        return Usage(quantities, inconsistent=self._inconsistent or other._inconsistent)

    def __bool__(self) -> bool:
        return bool(self.quantities)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Usage):
            return NotImplemented
        return self.quantities == other.quantities and self._inconsistent == other._inconsistent

    def __hash__(self) -> int:
        return hash((frozenset(self.quantities.items()), self._inconsistent))

    def __repr__(self) -> str:
        return f"Usage({dict(self.quantities)!r}{', inconsistent=True' if self._inconsistent else ''})"


_new = object.__new__


def _whole(field: str, value: object) -> int:
    """The count as an integer, or a `UsageError` that names the field."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{field} must be a whole number, not {value!r}")
    if isinstance(value, float) and not value.is_integer():  # NaN and the infinities are none either
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
