"""The report on a terminal, in 80 columns or more: what is well is short, what is wrong says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from costspan.doctor.others import BY_ENTRY_POINT
from costspan.doctor.program import concerned
from costspan.doctor.sdks import patched
from costspan.rates import plural
from costspan.render import UNKNOWN, format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costspan.doctor import Problem
    from costspan.doctor.report import Report

Line = tuple[str, str, str]
"""A mark, a name, and what there is to say of it."""

_GOOD, _BAD, _ODD, _PLAIN = "✓", "✗", "!", "·"
_STYLES: Final = {_GOOD: "green", _BAD: "bold red", _ODD: "yellow", _PLAIN: "dim"}
_THEN: Final = "they are priced then, and charged to budgets, which cannot refuse their calls"
_NAMES: Final = 18
"""Columns of the names."""


def show(report: Report) -> None:
    """Print the report."""
    console = Console(highlight=False, emoji=False, markup=False)
    if console.is_terminal:
        _print(report, console)
        return
    with console.capture() as printed:
        _print(report, console)
    for line in printed.get().splitlines():
        print(line.rstrip())


def _print(report: Report, console: Console) -> None:
    facts = report.facts
    about = facts["costspan"]
    console.print(Text.assemble((f"costspan {about['version']}", "bold"), f" on Python {about['python']}"))
    for title, lines in (
        ("Provider SDKs", _sdks(facts["sdks"])),
        ("Other instrumentation", _others(facts["instrumentations"])),
        ("OpenTelemetry", _opentelemetry(facts["opentelemetry"])),
        ("Where it goes", _ways_out(facts)),
        ("Prices", _prices(facts["prices"])),
        ("Budgets", _budgets(facts["budgets"], facts["program"])),
        ("Settings", _settings(facts["settings"])),
        *((("The program", _program(facts["program"])),) if facts["program"] else ()),
    ):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(_grid(lines))
    for problem in report.problems:
        console.print()
        console.print(_problem(problem))
    console.print()
    faults = sum(problem.level == "fault" for problem in report.problems)
    warnings = len(report.problems) - faults
    if not report.problems:
        console.print(Text("Nothing is wrong.", style="green"))
    else:
        said = ", ".join(plural(n, what) for n, what in ((faults, "fault"), (warnings, "warning")) if n)
        console.print(Text(said, style="bold red" if faults else "yellow"))


def _grid(lines: Iterator[Line] | list[Line]) -> Padding:
    grid: Table = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(min_width=_NAMES, overflow="fold", max_width=26)
    grid.add_column(overflow="fold")
    for mark, name, said in lines:
        grid.add_row(Text(mark, style=_STYLES[mark]), Text(name), Text(said))
    return Padding(grid, (0, 0, 0, 1))


def _problem(problem: Problem) -> Table:
    grid: Table = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    fault = problem.level == "fault"
    mark = _BAD if fault else _ODD
    grid.add_row(
        Text(mark, style=_STYLES[mark]), Text.assemble((f"{problem.level}: ", _STYLES[mark]), (problem.what, "bold"))
    )
    grid.add_row("", Text(problem.why))
    grid.add_row("", Text.assemble(("→ ", "cyan"), problem.remedy))
    return grid


# ------------------------------------------------------------------ the sections


def _sdks(facts: list[dict[str, Any]]) -> Iterator[Line]:
    missing = [fact["package"] for fact in facts if fact["version"] is None]
    for fact in facts:
        if fact["version"] is None:
            continue
        methods = patched(fact["calls"])
        lacking = [call["name"] for call in fact["calls"] if call["lacking"]]
        said = [f"{plural(len(methods), 'method')} patched" if methods else "nothing patched"]
        if fact["switched_off"]:
            said = ["left out by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]
        elif fact["errors"]:
            said = ["cannot be patched as it should"]
        if not fact["tested"]:
            said.append(f"tested is {fact['requires']}")
        if fact["own_spans"]:
            said.append("its own spans give way")
        if lacking and methods:
            said.append(f"this version lacks {', '.join(lacking)}")
        bad = bool(fact["errors"]) or not methods
        mark = _BAD if bad else _GOOD if fact["tested"] and not fact["switched_off"] else _ODD
        yield mark, f"{fact['package']} {fact['version']}", "; ".join(said)
    if missing:
        yield _PLAIN, "not installed", ", ".join(missing)


def _others(facts: list[dict[str, Any]]) -> Iterator[Line]:
    for fact in facts:
        spans = {"priced": "its spans are priced", "not read": "its spans are not read"}[fact["spans"]]
        if fact["framework"]:
            spans += ", those of agents and chains are not billed"
        of = f" of {', '.join(fact['of'])}" if fact["of"] else ""
        active = "" if fact["active"] == BY_ENTRY_POINT else f"{fact['active']}; "
        yield _PLAIN, f"{fact['maker']}{of}", f"{fact['package']} {fact['version']}: {active}{spans}"
    if not facts:
        yield _PLAIN, "none", "costspan alone sees the calls"


def _opentelemetry(facts: Mapping[str, Any]) -> Iterator[Line]:
    if not facts:
        return
    versions = facts["versions"]
    yield (
        _GOOD,
        f"SDK {versions['opentelemetry-sdk']}",
        f"API {versions['opentelemetry-api']}, instrumentation {versions['opentelemetry-instrumentation']}",
    )
    yield {
        "live": (_GOOD, "foreign spans", f"can be written to when they end: {_THEN}"),
        "replaced": (_GOOD, "foreign spans", f"are frozen when they end, and get new attributes: {_THEN}"),
        "exporter": (_BAD, "foreign spans", "cannot be written to when they end; only an exporter can add prices"),
    }[facts["ending_spans"]]
    yield _ODD if facts["sampler_drops"] else _GOOD, "sampler", facts["sampler"]
    if facts["distro"]:
        yield _PLAIN, "distribution", ", ".join(facts["distro"])
    if facts["config_file"]:
        yield _PLAIN, "configured by", facts["config_file"]
    if facts["disabled"]:
        yield _ODD, "switched off", "by OTEL_SDK_DISABLED"


def _ways_out(facts: Mapping[str, Any]) -> Iterator[Line]:
    if facts["spans"].get("origin") == "OTEL_CONFIG_FILE":
        yield _PLAIN, "spans and metrics", "as OTEL_CONFIG_FILE says"
        return
    silent = [what for what in ("spans", "metrics") if not facts[what].get("exporters")]
    for what in ("spans", "metrics"):
        yield from _way_out(what, facts[what].get("exporters", []))
    if silent:
        said = "stay in the process: no OTEL_* variable sends them (OTEL_EXPORTER_OTLP_ENDPOINT, say)"
        yield _PLAIN, " and ".join(silent), said


def _way_out(what: str, exporters: list[dict[str, Any]]) -> Iterator[Line]:
    for exporter in exporters:
        reached = {True: ", somebody listens", False: ", nobody answers", None: ""}[exporter["reachable"]]
        said = " ".join(filter(None, [exporter["name"], exporter["protocol"] and f"({exporter['protocol']})"]))
        to = f" to {exporter['endpoint']}" if exporter["endpoint"] else ""
        bad = exporter["reachable"] is False or exporter["error"]
        yield _BAD if bad else _GOOD, what, f"{said}{to}{reached}{', cannot be used' if exporter['error'] else ''}"


def _prices(facts: Mapping[str, Any]) -> Iterator[Line]:
    if not facts:
        return
    age = plural(facts["age_days"], "day") + " ago" if facts["age_days"] > 0 else "today"
    yield _GOOD, f"book {facts['book']}", f"{facts['providers']} providers, last checked {facts['checked']} ({age})"
    for layer in facts["layers"]:
        if layer["layer"] != "bundled":
            yield (
                _BAD if layer["error"] else _GOOD,
                f"over it: {layer['layer']}",
                f"{layer['origin']}{' is left out' if layer['error'] else ''}",
            )


def _budgets(facts: Mapping[str, Any], program: Mapping[str, Any] | None) -> Iterator[Line]:
    if not facts:
        return
    for budget in facts["budgets"]:
        yield _PLAIN, budget["name"], _budget({"period": "month", "policy": "warn", "scope": {}, **budget})
    if not facts["budgets"]:
        there = "has none" if facts["file_found"] else "is not there"
        yield _PLAIN, "none", f"{facts['file']} {there}"
    if program is None:
        yield _PLAIN, "others", "may be given to init() by the program: costspan doctor -- COMMAND shows them"
    if facts["store"] != "memory":
        yield _GOOD if facts["reachable"] else _BAD, "kept", f"in {facts['store']}"
    elif facts["budgets"]:
        yield _PLAIN, "kept", "in the memory of each process, for itself: COSTSPAN_BUDGET_STORE says where else"
    if facts["routing"]:
        yield _GOOD, "routing", "every model has a price"
    if facts["notified"]:
        yield _GOOD, "events", f"are sent to {plural(facts['notified'], 'Apprise URL')}"


def _budget(budget: Mapping[str, Any]) -> str:
    scope = ", ".join(f"{key}={value}" for key, value in budget["scope"].items())
    return f"${budget['limit']} a {budget['period']}, {budget['policy']}s{', ' if scope else ''}{scope}"


def _settings(facts: list[dict[str, Any]]) -> Iterator[Line]:
    changed = [fact for fact in facts if fact["origin"] != "default"]
    for fact in changed:
        value = fact["value"]
        said = ", ".join(value) if isinstance(value, list) else str(value)
        yield _PLAIN, fact["setting"], f"{said.lower() if isinstance(value, bool) else said} ({fact['variable']})"
    yield _PLAIN, "the others" if changed else "all", "as by default"


def _program(facts: Mapping[str, Any]) -> Iterator[Line]:
    yield _PLAIN, "ended", f"with status {facts['exit_status']}: {' '.join(facts['command'])}"
    processes = concerned(facts)
    for process in processes:
        if len(processes) > 1:
            yield _PLAIN, f"process {process['pid']}", " ".join(process["command"])
        yield from _process(process)


def _process(process: Mapping[str, Any]) -> Iterator[Line]:
    started = process["started"]
    if started is None:
        yield _BAD, "costspan", "was never started"
    else:
        yield _GOOD, "costspan", f"started {started['where']}"
        for name, to in (("spans", "exporters"), ("metrics", "readers")):
            there = ", ".join(started[name][to]) or "nowhere"
            yield _PLAIN, f"{name} go to", f"{there} ({started[name]['provider'].rpartition('.')[2]})"
        for budget in started["budgets"]:
            yield _PLAIN, f"budget {budget['name']}", _budget(budget)
        if not started["budgets"]:
            yield _PLAIN, "budgets", "none"
    for sdk in process["sdks"]:
        said = f"{plural(sdk['patched'], 'method')} patched" if sdk["patched"] else "imported, and not patched"
        yield _GOOD if sdk["patched"] else _BAD, sdk["package"], said
    for instrumentor in process["instrumentors"]:
        yield _PLAIN, "also active", instrumentor
    for scope, seen in process["scopes"].items():
        rolled = f", {seen['rollups']} rolled up" if seen["rollups"] else ""
        yield _PLAIN, plural(seen["spans"], "span"), f"by {scope}, {seen['priced']} priced{rolled}"
    if (summary := process["summary"]) is not None:
        from decimal import Decimal

        total = summary["total"]
        cost = UNKNOWN if total["calls"] == total["unpriced"] else format_usd(Decimal(total["cost"]))
        yield (
            _GOOD if total["calls"] else _ODD if process["sdks"] else _PLAIN,
            "calls counted",
            f"{total['calls']}, {cost}",
        )
