"""One line at start-up, or none: every way in, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.instrumentation.loopback import Loopback

from .program import START, output, run

TOTAL = "print(costspan.summary()['total']['cost'].normalize(), costspan.summary()['total']['calls'])"
INSTRUMENT = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))


def test_one_line_prices_the_calls_of_this_process(provider: Loopback) -> None:
    assert output(f"import costspan; costspan.init(); call(); {TOTAL}", provider.url) == "0.006 1\n"


def test_before_the_sdk_is_imported(provider: Loopback) -> None:
    code = f"""
    import sys
    assert "openai" not in sys.modules
    import openai
    client = openai.OpenAI(base_url="{provider.url}/v1", api_key="k")
    client.chat.completions.create(model="gpt-4.1", messages=[])
    {TOTAL}
    """
    assert output(code, before=START) == "0.006 1\n"


def test_a_second_call_changes_nothing(provider: Loopback) -> None:
    code = f"import costspan; costspan.init(); costspan.init(); call(); {TOTAL}"
    assert output(code, provider.url) == "0.006 1\n"


def test_an_import_alone(provider: Loopback) -> None:
    assert output(f"import costspan.auto, costspan; call(); {TOTAL}", provider.url) == "0.006 1\n"


def test_switched_off_it_patches_nothing(provider: Loopback) -> None:
    code = """
    from openai.resources.chat.completions import Completions
    before = Completions.create
    import costspan
    costspan.init()
    assert Completions.create is before
    call()
    print(costspan.summary()["total"]["calls"], costspan.flush(), costspan.record("openai", "m", {}), costspan.reset())
    """
    assert output(code, provider.url, COSTSPAN_ENABLED="false") == "0 True None None\n"


def test_shutdown_gives_every_method_back_and_init_starts_anew(provider: Loopback) -> None:
    code = f"""
    from openai.resources.chat.completions import AsyncCompletions, Completions
    before = (Completions.create, AsyncCompletions.create)
    import costspan
    costspan.init(); call(); costspan.shutdown()
    assert (Completions.create, AsyncCompletions.create) == before
    call()
    costspan.init(); call(); {TOTAL}
    """
    assert output(code, provider.url) == "0.006 1\n"


def test_providers_are_made_from_the_standard_variables(provider: Loopback) -> None:
    code = "import costspan; costspan.init(); call(); costspan.flush()"
    told = output(
        code,
        provider.url,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="console",
        OTEL_SERVICE_NAME="shop",
    )
    assert '"costspan.cost.total": 0.006' in told
    assert '"name": "costspan.cost"' in told
    assert '"service.name": "shop"' in told
    assert '"service.instance.id"' in told


def test_without_any_variable_nothing_is_exported_and_nothing_complains(provider: Loopback) -> None:
    done = run("import costspan; costspan.init(); call(); costspan.flush()", provider.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_exporter_that_is_not_installed_is_named_and_the_application_runs(provider: Loopback) -> None:
    done = run(f"import costspan; costspan.init(); call(); {TOTAL}", provider.url, OTEL_TRACES_EXPORTER="nosuch")
    assert done.stdout == "0.006 1\n"
    assert "OTEL_TRACES_EXPORTER=nosuch" in done.stderr


def test_providers_given_as_arguments_are_joined(provider: Loopback) -> None:
    code = """
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import costspan
    memory = InMemorySpanExporter()
    mine = TracerProvider()
    mine.add_span_processor(SimpleSpanProcessor(memory))
    costspan.init(tracer_provider=mine)
    call()
    (span,) = memory.get_finished_spans()
    print(span.attributes["costspan.cost.total"])
    """
    assert output(code, provider.url) == "0.006\n"


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_sampling_does_not_change_the_money(provider: Loopback, sampler: str) -> None:
    code = """
    import costspan
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    costspan.init()
    for _ in range(3):
        call()
    points = {m.name: sum(p.value for p in m.data.data_points)
              for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics
              if m.name in ("costspan.cost", "costspan.calls", "costspan.tokens")}
    print(sorted((name, round(value, 12)) for name, value in points.items()))
    """
    expected = "[('costspan.calls', 3), ('costspan.cost', 0.018), ('costspan.tokens', 4500)]\n"
    assert output(code, provider.url, OTEL_TRACES_SAMPLER=sampler) == expected


def test_own_prices(provider: Loopback) -> None:
    code = f"""
    import costspan
    costspan.init(prices={{"openai/gpt-4.1-2025-04-14": {{"input": "1", "output": "2"}}}})
    call(); {TOTAL}
    """
    assert output(code, provider.url) == "0.002 1\n"


def test_a_budget_that_blocks_refuses_before_the_call(provider: Loopback) -> None:
    code = """
    import costspan
    costspan.init(budgets=[costspan.Budget("day", limit="0.02", period="day", policy="block")])
    made = 0
    try:
        while True:
            call(max_tokens=500)
            made += 1
    except costspan.BudgetExceeded as error:
        print(made, error.budget, costspan.summary()["total"]["cost"] <= error.limit)
    """
    assert output(code, provider.url) == "3 day True\n"
    assert len(provider.requests) == 3


@pytest.mark.skipif(INSTRUMENT is None, reason="costspan is not installed here")
def test_no_line_at_all(provider: Loopback) -> None:
    code = f"import costspan; call(); {TOTAL}"
    assert INSTRUMENT is not None
    told = output(code, provider.url, command=(INSTRUMENT, "--traces_exporter", "none", "--metrics_exporter", "none"))
    assert told == "0.006 1\n"


@pytest.mark.skipif(INSTRUMENT is None, reason="costspan is not installed here")
def test_one_provider_can_be_left_alone(provider: Loopback) -> None:
    code = f"import costspan; costspan.init(); call(); {TOTAL}"
    assert output(code, provider.url, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="costspan-openai") == "0 0\n"


def test_an_instrumentor_alone_starts_everything_as_a_declarative_file_does(provider: Loopback) -> None:
    code = f"""
    import costspan
    from costspan.instrumentors import OpenAIInstrumentor
    OpenAIInstrumentor().instrument()
    OpenAIInstrumentor().instrument()
    call(); {TOTAL}
    OpenAIInstrumentor().uninstrument()
    call(); {TOTAL}
    """
    assert output(code, provider.url) == "0.006 1\n0.006 1\n"


def test_forked_workers_count_for_themselves_and_never_over_each_other(provider: Loopback) -> None:
    code = """
    import json, os
    import costspan
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    costspan.init()
    call()
    def told():
        return [(r.resource.attributes["service.instance.id"], str(dict(s.scope.attributes or {})), p.value)
                for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics
                if m.name == "costspan.calls" for p in m.data.data_points]
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            connect()  # a connection cannot be shared by two processes
            call(); call()
            print(json.dumps([told(), costspan.summary()["total"]["calls"]]), flush=True)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    print(json.dumps([told(), costspan.summary()["total"]["calls"]]))
    """
    lines = [json.loads(line) for line in output(code, provider.url).splitlines()]
    assert sorted(calls for _, calls in lines) == [1, 2, 2]
    series = [(instance, scope) for told, _ in lines for instance, scope, _ in told]
    assert len(set(series)) == 3
    assert len({instance for instance, _ in series}) == 3
