"""A program that the doctor runs: what its processes have seen of themselves, and what is wrong with it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan import __version__
from costspan.doctor import DIRECTORY, Problem
from costspan.rates import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ABOUT: Final = "program"

_KEEPS_ALL: Final = ("AlwaysOnSampler", "ParentBased{root:AlwaysOnSampler", "AlwaysRecordSampler", "costspan")
"""How descriptions of samplers begin under which every span is at least recorded."""


def watch(command: Sequence[str], *, aside: bool) -> tuple[dict[str, Any], list[Problem]]:
    """Run a program to its end, and report what was patched, counted and set up in it.

    `aside`: its standard output goes to standard error. Raises `costspan.run.RunError` if it cannot be run.
    """
    from costspan.run import _SITE, _supervised

    with tempfile.TemporaryDirectory(prefix="costspan-doctor-", ignore_cleanup_errors=True) as private:
        folder = Path(private, "seen")
        folder.mkdir()
        path = os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")]))
        with _aside() if aside else _as_it_is():
            status = _supervised(command, {**os.environ, "PYTHONPATH": path, DIRECTORY: str(folder)})
        # A process that outlives the program finds nowhere to write.
        done = folder.rename(Path(private, "done"))
        processes = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(done.glob("*.json"))]
        unseen = [file.read_text(encoding="utf-8") for file in sorted(done.glob("*.problem"))]
    facts = {"command": list(command), "exit_status": status, "unseen": unseen, "processes": processes}
    return facts, list(dict.fromkeys(_judged(facts)))


@contextmanager
def _aside() -> Iterator[None]:
    """Send what is written to standard output to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


# ------------------------------------------------------------------ judging


def concerned(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The processes that have to do with models: others, such as a build tool that is also Python, are left out."""
    return [p for p in facts["processes"] if p["started"] or p["sdks"] or p["recorded_in_vain"]]


def _judged(facts: Mapping[str, Any]) -> Iterator[Problem]:
    processes = concerned(facts)
    if not facts["processes"]:
        yield Problem(
            "fault",
            ABOUT,
            "no Python process of the program could be looked into"
            + "".join(f"; {problem}" for problem in dict.fromkeys(facts["unseen"])),
            "Nothing is known of it.",
            "Run it with a Python that has costspan and does not ignore PYTHONPATH (-I, -E, -S), and let it end by "
            "itself or by Ctrl-C.",
        )
    elif not any(process["started"] for process in facts["processes"]):
        yield Problem(
            "fault",
            ABOUT,
            "the program never started costspan",
            "Nothing was patched, priced or counted.",
            "Call costspan.init() at its start, or run it with `costspan run --` or `opentelemetry-instrument`.",
        )
    for process in processes:
        yield from _of_process(process, any(other["started"] for other in facts["processes"]))


def _of_process(process: Mapping[str, Any], elsewhere: bool) -> Iterator[Problem]:
    started = process["started"]
    who = f"process {process['pid']} ({' '.join(process['command'][:2])})"
    if process["costspan"] != __version__:
        yield Problem(
            "warning",
            ABOUT,
            f"the program uses costspan {process['costspan']}, this is {__version__}",
            "The other sections of this report are about another installation.",
            "Run the doctor of the program's environment: python -m costspan doctor",
        )
    if process["recorded_in_vain"]:
        yield Problem(
            "fault",
            ABOUT,
            f"{who} called costspan.record() {process['recorded_in_vain']} x where costspan was not started",
            "These calls are not counted.",
            "Call costspan.init() before; a process that is spawned starts Python anew, and needs its own.",
        )
    if not started:
        if elsewhere and process["sdks"]:
            yield Problem(
                "fault",
                ABOUT,
                f"{who} never started costspan, and imported {', '.join(sdk['package'] for sdk in process['sdks'])}",
                "Its calls were not priced and not counted.",
                "Call costspan.init() in a module that every process imports: one that is spawned starts Python anew.",
            )
        return
    yield from _of_patches(process)
    yield from _of_counts(process)
    for done in process["providers_set"]:
        if not done["accepted"] and done["late"]:
            signal = {"traces": "TracerProvider", "metrics": "MeterProvider"}[done["signal"]]
            yield Problem(
                "fault",
                ABOUT,
                f"the program's {signal} ({done['where']}) was refused: init() ({started['where']}) came first",
                "OpenTelemetry keeps the first one, which costspan has made. The program's own exporters get nothing.",
                "Call costspan.init() after the program has set its providers, or hand them over: "
                "costspan.init(tracer_provider=..., meter_provider=...).",
            )
    for tracer in process["tracers"]:
        if not tracer["sampler"].startswith(_KEEPS_ALL):
            earlier = "was made before costspan.init() and " if tracer["before_init"] else ""
            yield Problem(
                "warning",
                ABOUT,
                f"the tracer of {tracer['scope']} {earlier}drops spans ({tracer['sampler'].partition(',')[0]})",
                "Calls that it alone sees are missing from costs and budgets where the sampler drops them.",
                "Call costspan.init() before it is set up."
                if tracer["before_init"]
                else "Let costspan instrument the SDK itself, or sample in the collector and not here.",
            )
    blocking = [budget["name"] for budget in started["budgets"] if budget["policy"] == "block"]
    alone = process["calls"]["others"] - sum(twice["calls"] for twice in process["twice"])
    if blocking and alone > 0:
        yield Problem(
            "warning",
            ABOUT,
            f"{plural(alone, 'call')} seen by other instrumentation alone, and {', '.join(blocking)} should block",
            "Such calls are charged to budgets when they end; they cannot be refused beforehand.",
            "Let costspan instrument the SDK that makes them.",
        )


def _of_patches(process: Mapping[str, Any]) -> Iterator[Problem]:
    for sdk in process["sdks"]:
        if methods := list(dict.fromkeys(sdk["unpatched"])):
            more = f" and {len(methods) - 5} more" if len(methods) > 6 else ""
            yield Problem(
                "fault",
                ABOUT,
                f"{sdk['package']} was imported and not patched: {', '.join(methods[:5] if more else methods)}{more}",
                "Calls through these methods were not priced and not counted.",
                f"Look for code that replaces them after costspan.init(), and for {sdk['instrumentor']} in "
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS.",
            )
    for place, error in process["errors"].items():
        yield Problem(
            "fault",
            ABOUT,
            f"costspan itself failed in {place} ({error['count']} x): {error['first']}",
            "The program's calls are not affected, but their costs may be missing or incomplete.",
            "Please report it, with this line and the version of the SDK.",
        )


def _of_counts(process: Mapping[str, Any]) -> Iterator[Problem]:
    for twice in process["twice"]:
        yield Problem(
            "fault",
            ABOUT,
            f"{plural(twice['calls'], 'call')} counted twice, by spans of {' and '.join(twice['scopes'])}",
            "Costs are doubled, and so is what budgets are charged.",
            "Switch one of the two off for this SDK (OTEL_PYTHON_DISABLED_INSTRUMENTATIONS under "
            "opentelemetry-instrument, else in the program).",
        )
    summary = process["summary"]
    for line in summary["unpriced"]:
        model = f"{line['provider']}/{line['model']}"
        yield Problem(
            "warning",
            ABOUT,
            f"{plural(line['calls'], 'call')} of {model} not priced, or not in full: {line['status']}",
            "They are missing from every total, in whole or in part.",
            _UNPRICED.get(line["status"], "See what the provider returned.").format(model=model),
        )
    if not summary["total"]["calls"] and process["sdks"]:
        names = ", ".join(sdk["package"] for sdk in process["sdks"])
        yield Problem(
            "warning",
            ABOUT,
            f"{names} was imported, and no call was seen",
            "If the program made calls, they are not counted.",
            "Look at whether it calls models over plain HTTP or through an SDK that is not listed above; "
            "`costspan.record()` counts such calls.",
        )


_UNPRICED: Final = {
    "unknown_model": "Say what it is, COSTSPAN_MODEL_NAMES={model}=<model of the book>, or what it costs: "
    "costspan.init(prices={{'{model}': {{'input': '...', 'output': '...'}}}}) or a file (docs/prices.md).",
    "unknown_provider": "Say what it costs: costspan.init(prices={{'{model}': {{'input': '...', 'output': '...'}}}}), "
    "or a file (docs/prices.md).",
    "no_usage": "The answers told none. For streams ask for it in the call, and see that COSTSPAN_STREAM_USAGE is on.",
    "partial": "The book lacks the price of a part of them; `costspan prices show {model}` says which it has.",
}
