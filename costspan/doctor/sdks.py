"""The provider SDKs: which are installed, and what of each is patched.

That is found out and not read from a table: a process of its own imports every SDK that is installed, has the engine
patch it and looks which methods are ours. So an SDK that cannot be imported, prints something or never returns does no
harm here, and the doctor's own process stays as it was.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from costspan import startup
from costspan.doctor import Problem
from costspan_processor.observer import CostObserver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from costspan_instrumentation.provider import Endpoint, Provider

ABOUT: Final = "sdks"

_SECONDS: Final = 60
"""An SDK that takes longer to import hangs."""

_ENGINE: Final = "costspan_instrumentation.engine"
"""The module whose wrappers stand where a method is patched."""

_PROBE: Final = "from costspan.doctor.sdks import probe; probe()"


# ------------------------------------------------------------------ what is patched


def package(provider: Provider) -> str:
    """The distribution that a provider's table is for.

    >>> package(startup.PROVIDERS["costspan-google-genai"])
    'google-genai'
    """
    return re.split(r"[^\w.-]", provider.requires, maxsplit=1)[0]


def called(endpoint: Endpoint) -> str:
    """What an endpoint is called: by its path in the client where modules follow that, else by class and method.

    Names of one call in several versions, in a synchronous and an asynchronous client, are the same.

    >>> from costspan_instrumentation.provider import Endpoint
    >>> def name(module, method):
    ...     return called(Endpoint(module, method, "chat", lambda _: {}, lambda _: {}))
    >>> name("openai.resources.chat.completions.completions", "Completions.create")
    'chat.completions.create'
    >>> name("google.genai.models", "Models._generate_content"), name("acme.aio", "AsyncRawChat.complete")
    ('Models.generate_content', 'Chat.complete')
    """
    owner, _, method = endpoint.method.rpartition(".")
    path = endpoint.module.partition(".resources.")[2].split(".")
    if path[-1:] == path[-2:-1]:
        path.pop()
    owner = ".".join(path) or _PLAIN.sub("", owner)
    return f"{owner}.{method.lstrip('_')}".lstrip(".")


_PLAIN: Final = re.compile(r"^(?:Async|Aio|Sync)?(?:Raw(?=[A-Z]))?")


def coverage(provider: Provider) -> list[dict[str, Any]]:
    """Every call that a provider's table knows: in which modes it is patched in this process, or why it is not.

    A call that has several endpoints, for several versions of the SDK, lacks none if it has one.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for endpoint in provider.endpoints:
        name = called(endpoint)
        new: dict[str, Any] = {
            "name": name,
            "operation": endpoint.operation,
            "sync": False,
            "async": False,
            "raw": False,
            "stream": False,
            "unpatched": [],
            "lacking": None,
        }
        call = found.setdefault((name, endpoint.operation), new)
        lacking = _look_for(endpoint, call)
        call["lacking"] = None if call["sync"] or call["async"] or call["unpatched"] else lacking or call["lacking"]
    return [call for call in found.values() if call["lacking"] != _REPLACED]


_REPLACED: Final = "another endpoint stands in for it"


def _look_for(endpoint: Endpoint, call: dict[str, Any]) -> str:
    """Adds to a call in which modes this endpoint of it is patched; returns why it is not, if it is not."""
    reason = f"it has no {endpoint.module}"
    class_name, _, method = endpoint.method.rpartition(".")
    for name in (endpoint.module, *endpoint.moved_from):
        module = sys.modules.get(name)
        if module is None:
            continue
        owners = [module] if not class_name else _classes(module, class_name)
        reason = f"{name} has no {endpoint.method if owners else class_name}"
        for owner in owners:
            if endpoint.unless and hasattr(owner, endpoint.unless):
                return _REPLACED
            for held in filter(None, (method, endpoint.async_method)):
                if not callable(getattr(owner, held, None)):
                    continue
                if not _ours(owner, held):
                    call["unpatched"].append(f"{owner.__name__}.{held}")
                    continue
                is_async = (
                    held == endpoint.async_method
                    or owner.__name__.startswith(("Async", "Aio"))
                    or inspect.iscoroutinefunction(inspect.unwrap(getattr(owner, held)))
                )
                call["async" if is_async else "sync"] = True
                resource = ".resources." in endpoint.module and hasattr(owner, "with_raw_response")
                call["raw"] = call["raw"] or resource or "Raw" in owner.__name__
                call["stream"] = call["stream"] or endpoint.chunk is not None
    return reason


def own_spans(provider: Provider) -> bool:
    """Whether this version of the SDK makes spans of its own, which ours take the place of."""
    places = ((sys.modules.get(native.module), native.function) for native in provider.native_spans)
    return any(module is not None and _ours(module, function) for module, function in places)


def _classes(module: Any, name: str) -> list[Any]:
    return [found for found in (getattr(module, name, None), getattr(module, f"Async{name}", None)) if found]


def _ours(owner: Any, name: str) -> bool:
    """Whether calls of a method come through our engine: patched in this class or in the one that it is from.

    Somebody else may have patched it too, before or after.
    """
    held = inspect.getattr_static(owner, name, None)
    seen: list[Any] = []
    while held is not None and not any(held is one for one in seen):
        # A method that is bound to a client is a wrapper whose parent is the class's.
        if any(type(wrapper).__module__ == _ENGINE for wrapper in (held, getattr(held, "_self_parent", None))):
            return True
        seen.append(held)
        held = getattr(held, "__func__", None) or getattr(held, "__wrapped__", None)
    return False


# ------------------------------------------------------------------ in a process of its own


def probe() -> None:
    """Looks at the providers whose instrumentors are the arguments; a line of JSON for each on standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an SDK prints is no answer
    errors: list[str] = []

    def note(_: object, where: str, error: BaseException) -> None:
        errors.append(f"{where}: {_said(error)}")

    CostObserver.failed = note  # type: ignore[method-assign, assignment]
    startup.init(enabled=True, tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    for name in sys.argv[1:]:
        provider = startup.PROVIDERS[name]
        errors.clear()
        _load(provider, errors)
        answer = {"name": name, "calls": coverage(provider), "own_spans": own_spans(provider), "errors": errors}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # threads that an SDK has started are not waited for


def _load(provider: Provider, errors: list[str]) -> None:
    """Import all modules that hold methods of a provider; those that this version lacks are none."""
    modules = [m for endpoint in provider.endpoints for m in (endpoint.module, *endpoint.moved_from)]
    for module in dict.fromkeys((*modules, *(native.module for native in provider.native_spans))):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                errors.append(f"import {module}: {_said(error)}")
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever an SDK does when it is imported
            errors.append(f"import {module}: {_said(error)}")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _probed(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What `probe` says of providers. One that ends the process or hangs is named, and the others are tried again."""
    left = list(names)
    while left:
        done = _run(left)
        for line in done[0].splitlines():
            answer = json.loads(line)
            left.remove(answer["name"])
            yield answer
        if left:
            yield {"name": left.pop(0), "calls": [], "own_spans": False, "errors": [done[1]]}


def _run(names: Sequence[str]) -> tuple[str, str]:
    """What a probing process has answered, and what it ended of."""
    # LiteLLM would fetch its prices from the network.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", **os.environ}
    path = os.pathsep.join(
        filter(None, dict.fromkeys([*sys.path, *environment.get("PYTHONPATH", "").split(os.pathsep)]))
    )
    try:
        done = subprocess.run(  # noqa: S603  # our own code, and names of our own
            [sys.executable, "-c", _PROBE, *names],
            env={**environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS * len(names),
            check=False,
        )
    except subprocess.TimeoutExpired as hung:
        return (hung.stdout or b"").decode(), "its import did not come to an end"
    except OSError as error:
        return "", f"no process could be started to import it: {error}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return (
        done.stdout.decode(),
        f"its import ended Python (status {done.returncode}){': ' if last else ''}{''.join(last)}",
    )


# ------------------------------------------------------------------ the section


def look(environ: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every provider: its SDK, the version, and what of it is or would be patched."""
    disabled = {name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")} - {""}
    facts: list[dict[str, Any]] = []
    for name, provider in startup.PROVIDERS.items():
        try:
            installed = version(package(provider))
        except PackageNotFoundError:
            installed = None
        facts.append(
            {
                "instrumentor": name,
                "package": package(provider),
                "requires": provider.requires,
                "version": installed,
                "tested": None if installed is None else get_dependency_conflicts([provider.requires]) is None,
                "switched_off": bool(disabled & {name, "*"}),
                "calls": [],
                "own_spans": False,
                "errors": [],
            }
        )
    by_name = {fact["instrumentor"]: fact for fact in facts}
    for answer in _probed([name for name, fact in by_name.items() if fact["version"] is not None]):
        by_name[answer.pop("name")].update(answer)
    problems = [problem for fact in facts if fact["version"] is not None for problem in _judged(fact)]
    return facts, [*problems, *_misspelt(disabled)]


def patched(calls: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The calls that are patched."""
    return [call for call in calls if call["sync"] or call["async"]]


def _judged(fact: Mapping[str, Any]) -> Iterator[Problem]:
    sdk = f"{fact['package']} {fact['version']}"
    if fact["errors"]:
        yield Problem(
            "fault",
            ABOUT,
            f"{sdk} cannot be patched as it should: {'; '.join(fact['errors'])}",
            "Its calls go through as ever, but some or all of them are not priced and not held to budgets.",
            f"python -c 'import {startup.PROVIDERS[fact['instrumentor']].endpoints[0].module}' shows the whole error; "
            f"pip install --force-reinstall {fact['package']} mends a broken installation.",
        )
    elif not patched(fact["calls"]):
        yield Problem(
            "fault",
            ABOUT,
            f"{sdk} has none of the methods that costspan knows",
            "Its calls are not priced and not held to budgets.",
            f"Install a version that is tested: pip install '{fact['requires']}'. A newer costspan may know this one; "
            "until then `costspan.record()` counts a call by hand.",
        )
    if not fact["tested"]:
        yield Problem(
            "warning",
            ABOUT,
            f"{sdk} is not among the versions that costspan is tested with ({fact['requires']})",
            "What it has of the known methods is patched, but their usage may be read wrongly or not at all.",
            f"pip install '{fact['requires']}'",
        )
    if fact["switched_off"]:
        yield Problem(
            "warning",
            ABOUT,
            f"{fact['package']} is left out by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
            "costspan does not see its calls; at most spans of another instrumentation are priced.",
            f"If that is not meant, take {fact['instrumentor']} (or *) out of the variable.",
        )


def _misspelt(disabled: Iterable[str]) -> Iterator[Problem]:
    from costspan_pricing.words import did_you_mean

    for name in sorted(disabled):
        if name.startswith("costspan") and name not in startup.PROVIDERS:
            hint = did_you_mean(name, startup.PROVIDERS)
            yield Problem(
                "warning",
                ABOUT,
                f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names {name!r}, which is no instrumentor of costspan{hint}",
                "Nothing is left out by it.",
                f"The names are {', '.join(startup.PROVIDERS)}.",
            )
