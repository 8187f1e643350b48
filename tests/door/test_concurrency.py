"""Money is exact under concurrency and under any sampler; memory does not grow. The bars do the same at full size."""

from __future__ import annotations

from tests.bars import load


def test_counters_spans_and_totals_of_many_threads_are_the_sum_of_their_calls() -> None:
    assert load.run("threads", threads=8, calls=12) == {"calls": 96, "wrong": []}


def test_counters_spans_and_totals_of_many_tasks_are_the_sum_of_their_calls() -> None:
    assert load.run("tasks", tasks=40, calls=2) == {"calls": 80, "wrong": []}


def test_what_the_sampler_drops_is_counted_call_for_call() -> None:
    on, off = (
        load.run("sampling", rounds=1, environment={"OTEL_TRACES_SAMPLER": sampler})
        for sampler in ("always_on", "always_off")
    )
    assert off["counted"] == on["counted"]
    assert (on["spans"], off["spans"]) == (len(on["counted"]), 0)


def test_calls_leave_nothing_behind() -> None:
    found = load.run("memory", warm=200, calls=600)
    assert found["after"] - found["before"] < 2 * 2**20
