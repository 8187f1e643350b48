"""Metrics at simulated times: a stand-in for the SDK's MeterProvider that is read a hundred times as fast.

A month of scrapes through the SDK and its Prometheus exporter would take half an hour. What is read here has the names,
labels and values that the exporter would show, and can be written as OpenMetrics with the times of the scrapes.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackT
    from opentelemetry.util.types import Attributes

Labels = tuple[tuple[str, str], ...]
"""Sorted; a label without a value is not among them, as Prometheus has it."""

_UNITS: Final = {"1": "", "s": "seconds", "ms": "milliseconds", "By": "bytes", "h": "hours", "d": "days"}
_PER: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
# What the SDK takes where an instrument advises nothing.
_BOUNDS: Final = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0)
_SCRAPE: Final = metrics.CallbackOptions()


STALE: Final[float] = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
"""The value by which Prometheus notes that a series has ended: a NaN like no other."""


class Series(NamedTuple):
    """One series and its samples."""

    name: str
    labels: Labels
    times: array[int]
    """Unix seconds."""
    values: Sequence[float]


class Group:
    """Series that are always scraped together: the buckets, count and sum of a histogram, or a single one.

    A row holds the values of one scrape: a tuple of all, or the number itself of a single one. So a histogram that has
    not changed since the last scrape costs one append.
    """

    __slots__ = ("keys", "rows", "times")

    def __init__(self, keys: Sequence[tuple[str, Labels]]) -> None:
        self.keys: Final = tuple(keys)
        self.times: Final = array("q")
        self.rows: Final[list[Any]] = []

    def add(self, at: int, row: Any) -> None:
        """Append the values of a scrape, which must be later than the last one."""
        self.times.append(at)
        self.rows.append(row)

    def end(self, at: int) -> None:
        """Mark that a scrape at `at` has not found the series any more, as Prometheus does."""
        self.add(at, STALE if len(self.keys) == 1 else (STALE,) * len(self.keys))

    def lines(self, row: Any, without: Collection[str]) -> list[str]:
        """The lines of the text format for these values, without the labels that a scrape adds."""
        values = (row,) if len(self.keys) == 1 else row
        lines = []
        for (name, labels), value in zip(self.keys, values, strict=True):
            shown = ",".join(f"{label}={_quoted(text)}" for label, text in labels if label not in without)
            lines.append(f"{name}{{{shown}}} {value!r}")
        return lines

    def series(self) -> list[Series]:
        """The series, with their samples."""
        times, single = self.times[:], len(self.keys) == 1
        columns = [self.rows[:]] if single else list(zip(*self.rows, strict=True)) or [()] * len(self.keys)
        return [Series(*key, times, values) for key, values in zip(self.keys, columns, strict=True)]


class Family(NamedTuple):
    """The series of one metric."""

    name: str
    kind: str
    """As OpenMetrics calls it: `counter`, `gauge`, `histogram`, `info`, `unknown`."""
    description: str
    groups: dict[Labels, Group]


class History:
    """Samples of many series."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}

    @property
    def names(self) -> set[str]:
        """Names of all samples: what may stand in a query."""
        return {name for family in self.families.values() for group in family.groups.values() for name, _ in group.keys}

    def __iter__(self) -> Iterator[Series]:
        for family in self.families.values():
            for group in family.groups.values():
                yield from group.series()

    def __len__(self) -> int:
        groups = [group for family in self.families.values() for group in family.groups.values()]
        return sum(len(group.keys) * len(group.times) for group in groups)

    def family(self, name: str, kind: str, description: str = "") -> Family:
        """The metric of this name, made if there is none."""
        found = self.families.get(name)
        if found is None:
            found = self.families[name] = Family(name, kind, description, {})
        return found

    def group(self, family: Family, labels: Mapping[str, str], bounds: Sequence[float] | None = None) -> Group:
        """The series of these labels, made if there are none; `bounds` are those of a histogram's buckets."""
        own = tuple(sorted((label, value) for label, value in labels.items() if value))
        found = family.groups.get(own)
        if found is None:
            name = family.name
            if bounds is None:
                end = {"counter": "_total", "info": "_info"}.get(family.kind, "")
                keys = [(name + end, own)]
            else:
                tops = [*map(str, bounds), "+Inf"]
                keys = [(f"{name}_bucket", tuple(sorted((*own, ("le", top))))) for top in tops]
                keys += [(f"{name}_count", own), (f"{name}_sum", own)]
            found = family.groups[own] = Group(keys)
        return found

    def take(self) -> Iterator[Series]:
        """All samples so far, which are forgotten as they are given."""
        for family in self.families.values():
            for group in family.groups.values():
                if group.times:
                    yield from group.series()
                    del group.times[:], group.rows[:]


class Recorder(metrics.MeterProvider):
    """A MeterProvider whose instruments write into a history when `scrape()` asks them.

    `target` are the labels that a scrape gives to all series, `resource` the attributes that `target_info` shows.
    """

    def __init__(self, history: History, target: Mapping[str, str], resource: Mapping[str, Any]) -> None:
        self.history: Final = history
        self.target: Final = target
        self.instruments: Final[list[_Instrument]] = []
        info = {_label(key): _text(value) for key, value in resource.items()}
        self._target: Final = history.family("target", "info")
        self._info: Final = history.group(self._target, {**info, **target})

    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Attributes | None = None
    ) -> metrics.Meter:
        """A meter; its scope goes on each series, as `otel_scope_*`."""
        scope = {f"otel_scope_{_label(key)}": _text(value) for key, value in (attributes or {}).items()}
        scope |= {
            "otel_scope_name": name,
            "otel_scope_version": version or "",
            "otel_scope_schema_url": schema_url or "",
        }
        return _Meter(self, name, version, schema_url, scope)

    def scrape(self, at: int) -> list[Group]:
        """Keep what the process shows now as of `at` (unix seconds); returns which series that are."""
        self._info.add(at, 1.0)
        shown = [self._info]
        for instrument in self.instruments:
            for group, row in instrument.read():
                group.times.append(at)
                group.rows.append(row)
                shown.append(group)
        return shown

    def exposition(self) -> str:
        """What the process shows now, in the text format of Prometheus."""
        lines = ["# TYPE target_info gauge", *self._info.lines(1.0, self.target)]
        for instrument in self.instruments:
            family = instrument.family
            # In this format a counter's family has the name of its samples.
            name = family.name + ("_total" if family.kind == "counter" else "")
            lines += [f"# HELP {name} {family.description}", f"# TYPE {name} {family.kind}"]
            for group, row in instrument.read():
                lines += group.lines(row, self.target)
        return "\n".join(lines) + "\n"


class _Instrument:
    """An instrument, and its series by the attributes that they were recorded under."""

    def __init__(self, meter: _Meter, name: str, unit: str, description: str, kind: str) -> None:
        self.family: Final = meter.provider.history.family(_name(name, unit, kind), kind, description)
        self._history = meter.provider.history
        self._labels = {**meter.scope, **meter.provider.target}
        self._known: dict[tuple[tuple[str, Any], ...], Group] = {}

    def group(self, attributes: Attributes, bounds: Sequence[float] | None = None) -> Group:
        """The series of these attributes."""
        key = tuple(attributes.items()) if attributes else ()
        try:
            found = self._known.get(key)
        except TypeError:  # a list
            key = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in key)
            found = self._known.get(key)
        if found is None:
            own = {_label(label): _text(value) for label, value in key}
            found = self._known[key] = self._history.group(self.family, {**self._labels, **own}, bounds)
        return found

    def read(self) -> Iterable[tuple[Group, Any]]:
        """The rows of now."""
        raise NotImplementedError


class _Observed(_Instrument):
    """Reads callbacks, each time."""

    def __init__(
        self, meter: _Meter, name: str, unit: str, description: str, kind: str, callbacks: Sequence[CallbackT]
    ) -> None:
        super().__init__(meter, name, unit, description, kind)
        self._callbacks = callbacks
        self._last: list[tuple[Attributes, Group]] = []

    def read(self) -> Iterable[tuple[Group, Any]]:
        # Callbacks observe the same attributes in the same order as the last time, nearly always.
        last = self._last
        known: list[tuple[Attributes, Group]] = []
        found = []
        for callback in self._callbacks:
            for observation in callback(_SCRAPE):  # type: ignore[operator]
                attributes = observation.attributes
                position = len(known)
                if position < len(last) and (last[position][0] is attributes or last[position][0] == attributes):
                    group = last[position][1]
                else:
                    group = self.group(attributes)
                known.append((attributes, group))
                found.append((group, float(observation.value)))
        self._last = known
        return found


class _Kept(_Instrument):
    """Keeps a number for each set of attributes."""

    def __init__(self, meter: _Meter, name: str, unit: str, description: str, kind: str) -> None:
        super().__init__(meter, name, unit, description, kind)
        self._values: dict[Group, float] = {}

    def read(self) -> Iterable[tuple[Group, Any]]:
        return self._values.items()

    def add(self, amount: float, attributes: Attributes | None = None, context: Context | None = None) -> None:  # noqa: ARG002
        group = self.group(attributes)
        self._values[group] = self._values.get(group, 0.0) + amount

    def set(self, amount: float, attributes: Attributes | None = None, context: Context | None = None) -> None:  # noqa: ARG002
        self._values[self.group(attributes)] = float(amount)


class _Cells:
    """A histogram under one set of attributes."""

    __slots__ = ("attributes", "counts", "group", "row", "sum")

    def __init__(self, attributes: Attributes, group: Group, buckets: int) -> None:
        self.attributes = attributes
        self.group = group
        self.counts = [0] * buckets
        self.sum = 0.0
        self.row: tuple[float, ...] | None = None
        """As it was last shown; None if it has changed."""


class _Histogram(_Instrument, metrics.Histogram):
    def __init__(self, meter: _Meter, name: str, unit: str, description: str, bounds: Sequence[float] | None) -> None:
        super().__init__(meter, name, unit, description, "histogram")
        self._bounds = _BOUNDS if bounds is None else tuple(bounds)
        self._cells: dict[Group, _Cells] = {}
        # Whoever records under the same dictionary each time is found by it alone; `_Cells` keeps the dictionary, so no
        # other one has its id.
        self._by_id: dict[int, _Cells] = {}

    def record(self, amount: float, attributes: Attributes | None = None, context: Context | None = None) -> None:  # noqa: ARG002
        cells = self._by_id.get(id(attributes))
        if cells is None:
            group = self.group(attributes, self._bounds)
            cells = self._cells.get(group)
            if cells is None:
                cells = self._cells[group] = _Cells(attributes, group, len(self._bounds) + 1)
                self._by_id[id(attributes)] = cells
        cells.counts[bisect_left(self._bounds, amount)] += 1
        cells.sum += amount
        cells.row = None

    def read(self) -> Iterable[tuple[Group, Any]]:
        for cells in self._cells.values():
            if cells.row is None:
                counts = tuple(accumulate(cells.counts))
                cells.row = (*counts, counts[-1], cells.sum)
        return [(cells.group, cells.row) for cells in self._cells.values()]


class _Counter(_Kept, metrics.Counter):
    pass


class _UpDownCounter(_Kept, metrics.UpDownCounter):
    pass


class _Gauge(_Kept, metrics._Gauge):
    pass


class _ObservableCounter(_Observed, metrics.ObservableCounter):
    pass


class _ObservableUpDownCounter(_Observed, metrics.ObservableUpDownCounter):
    pass


class _ObservableGauge(_Observed, metrics.ObservableGauge):
    pass


_Made = TypeVar("_Made", bound=_Instrument)


class _Meter(metrics.Meter):
    def __init__(
        self, provider: Recorder, name: str, version: str | None, schema_url: str | None, scope: Mapping[str, str]
    ) -> None:
        super().__init__(name, version, schema_url)
        self.provider = provider
        self.scope = scope

    def _added(self, instrument: _Made) -> _Made:
        self.provider.instruments.append(instrument)
        return instrument

    def create_counter(self, name: str, unit: str = "", description: str = "") -> metrics.Counter:
        return self._added(_Counter(self, name, unit, description, "counter"))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> metrics.UpDownCounter:
        return self._added(_UpDownCounter(self, name, unit, description, "gauge"))

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> metrics._Gauge:
        return self._added(_Gauge(self, name, unit, description, "gauge"))

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> metrics.Histogram:
        return self._added(_Histogram(self, name, unit, description, explicit_bucket_boundaries_advisory))

    def create_observable_counter(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableCounter:
        return self._added(_ObservableCounter(self, name, unit, description, "counter", callbacks or ()))

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableUpDownCounter:
        return self._added(_ObservableUpDownCounter(self, name, unit, description, "gauge", callbacks or ()))

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableGauge:
        return self._added(_ObservableGauge(self, name, unit, description, "gauge", callbacks or ()))


def _name(name: str, unit: str, kind: str) -> str:
    """The family's name in Prometheus: dots become underscores, and the unit comes last."""
    name = re.sub(r"[^a-zA-Z0-9:]+", "_", name)
    if kind == "counter":
        name = name.removesuffix("_total")
    unit = re.sub(r"\{.*\}", "", unit)
    whole, slash, part = unit.partition("/")
    unit = _UNITS.get(whole, whole)
    if slash:
        unit = f"{unit}_per_{_PER.get(part, part)}".strip("_")
    unit = re.sub(r"[^a-zA-Z0-9:]+", "_", unit).strip("_")
    return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"


def _label(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]+", "_", key)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
