"""`shorter`: what is left of statements for spans of which something is known, and when it is."""

from __future__ import annotations

import pytest

from costspan.otelcol.shorter import shorter

A, B, OUT = (f'span.attributes["{name}"]' for name in ("a", "b", "out"))


def left(*statements: str, assumed: tuple[str, ...] = (), rare: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """For spans that have `a` and nothing else."""
    conditions, parts = shorter({"all": list(statements)}, assumed, rare, ["a"])
    return conditions, parts["all"]


def test_an_attribute_that_a_span_may_not_have_is_nil_on_the_condition_that_it_has_none() -> None:
    conditions, statements = left(f"set({OUT}, Coalesce([{B}, {A}]))", f"set({OUT}, 1) where {B} == 2")
    assert (conditions, statements) == ([f"Coalesce([{B}]) == nil"], [f"set({OUT}, {A})"])


def test_what_is_assumed_falls_out_of_conditions() -> None:
    conditions, statements = left(
        f"set({OUT}, 1) where {A} != nil and T.x[{A}] == 3", f"set({OUT}, 2) where {A} == nil", assumed=(f"IsInt({A})",)
    )
    assert (conditions, statements) == ([f"IsInt({A})"], [f"set({OUT}, 1) where T.x[{A}] == 3"])


def test_a_rare_statement_is_left_out_on_the_condition_that_it_has_nothing_to_do() -> None:
    conditions, statements = left(
        f"set(S.n, Coalesce([{A}, 0]))", "set(S.bad, true) where S.n < 0", f"set({OUT}, S.n) where S.bad == nil",
        rare=("set(S.bad",),
    )  # fmt: skip
    assert (conditions, statements) == ([f"not (Coalesce([{A}, 0]) < 0)"], [f"set({OUT}, Coalesce([{A}, 0]))"])


def test_a_rare_statement_must_depend_on_the_span_and_not_on_what_has_been_worked_out() -> None:
    with pytest.raises(AssertionError, match="may hold several things"):
        left(f"set(S.n, 1) where {A} == 2", "set(S.bad, true) where S.n == 1", rare=("set(S.bad",))


def test_arithmetic_with_nothing_falls_out() -> None:
    _, statements = left("set(S.none, 0)", f"set({OUT}, {A} + S.none - (2 - 2) * {A})", assumed=(f"IsInt({A})",))
    assert statements == [f"set({OUT}, {A})"]


def test_what_is_read_often_is_worked_out_once_and_what_is_read_once_in_its_place() -> None:
    _, statements = left(f"set(S.often, T.x[{A}])", "set(S.once, S.often + 1)", f"set({OUT}, S.once * S.often)")
    assert statements == [f"set(S.often, T.x[{A}])", f"set({OUT}, (S.often + 1) * S.often)"]


def test_what_a_place_held_before_is_not_taken_for_what_it_holds() -> None:
    _, statements = left(
        f"set(S.x, T.x[{A}])", "set(S.was, S.x + 1)", "set(S.x, 2) where S.x == 3", "set(S.x, 4) where S.x == 2",
        "set(S.then, S.x + 1)", "set(S.x, 5) where S.x == 4", f"set({OUT}, S.was + S.then + S.x)",
    )  # fmt: skip
    assert statements == [
        f"set(S.x, T.x[{A}])", "set(S.x, 2) where S.x == 3", "set(S.x, 4) where S.x == 2", "set(S.then, S.x + 1)",
        "set(S.x, 5) where S.x == 4", f"set({OUT}, T.x[{A}] + 1 + S.then + S.x)",
    ]  # fmt: skip


def test_a_default_is_part_of_the_value() -> None:
    _, statements = left(
        f"set(S.n, {A})", "set(S.n, 0) where S.n == nil", "set(S.m, 1) where S.n == nil", f"set({OUT}, S.n)"
    )
    assert statements == [f"set({OUT}, Coalesce([{A}, 0]))"]
