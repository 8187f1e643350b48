"""What is left of statements for those spans of which something is known: values are put in, and much falls out.

Statements and conditions are in the short form that `ottl` writes out. What is left does the same as all of them where
the conditions hold that come with it; so there is one set of statements, and nobody keeps a second one by hand.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_COMPARED: Final[dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]]] = {
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne), ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge),
}  # fmt: skip
_COMPUTED: Final[dict[type[ast.operator], tuple[str, int]]] = {
    ast.Add: ("+", 1), ast.Sub: ("-", 1), ast.Mult: ("*", 2), ast.Div: ("/", 2),
}  # fmt: skip
_WORDS: Final = {"true": True, "false": False, "nil": None}
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_SPAN: Final = "span.attributes"


def shorter(
    parts: Mapping[str, list[str]], assumed: Iterable[str], rare: tuple[str, ...], plain: Iterable[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """The conditions under which a span needs only some of the statements, and these, each under the title it had.

    `assumed` holds of such a span: conditions on what it says and on tables, not on the scratch pad. `rare` are the
    beginnings of statements whose own conditions do not hold of it. `plain` are the attributes that it may have: it has
    none of the others that the statements look at.
    """
    known = _Known(plain)
    for condition in assumed:
        known.assume(_parsed(condition), True)

    def left(inlined: frozenset[str]) -> list[tuple[str, str]]:
        pad = _Pad(known, rare, inlined)
        return _needed([(title, written) for title, statements in parts.items() for written in pad.run(statements)])

    reads = Counter(place for _, written in left(frozenset()) for place in _read(written))
    found = left(frozenset(place for place, times in reads.items() if times == 1))
    absent = ", ".join(f"{_OF_SPAN}[{json.dumps(name)}]" for name in sorted(known.absent))
    return (
        [*known.conditions, *([f"Coalesce([{absent}]) == nil"] if absent else [])],
        {title: [written for whose, written in found if whose == title] for title in parts},
    )


def _parsed(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _text(node: ast.expr, outer: int = 0) -> str:
    """An expression as the language writes it, in brackets if it binds weaker than what is around it."""
    match node:
        case ast.Constant(value):
            return "nil" if value is None else json.dumps(value, ensure_ascii=False)
        case ast.Name(name):
            return name
        case ast.Attribute(value, attr):
            base = _text(value, 9)
            return f'{base}["{attr}"]' if base.endswith("]") else f"{base}.{attr}"
        case ast.Subscript(value, key):
            return f"{_text(value, 9)}[{_text(key)}]"
        case ast.Call(func, args):
            return f"{_text(func)}({', '.join(map(_text, args))})"
        case ast.List(elts):
            return f"[{', '.join(map(_text, elts))}]"
        case ast.Dict([]):
            return "{}"
        case ast.UnaryOp(ast.Not(), operand):
            return f"not {_text(operand, 5)}"
        case ast.BinOp(left, op, right):
            sign, strength = _COMPUTED[type(op)]
            text, inner = f"{_text(left, 6 + strength)} {sign} {_text(right, 7 + strength)}", 6 + strength
        case ast.Compare(left, [op], [right]):
            text, inner = f"{_text(left, 6)} {_COMPARED[type(op)][0]} {_text(right, 6)}", 4
        case ast.BoolOp(op, values):
            inner = 3 if isinstance(op, ast.And) else 2
            text = (" and " if inner == 3 else " or ").join(_text(value, inner + 1) for value in values)
        case _:
            raise AssertionError(ast.dump(node))
    return f"({text})" if inner < outer else text


def _is(node: ast.expr, value: Any) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


class _Known:
    """What is known of a span, and what follows from it for an expression."""

    def __init__(self, plain: Iterable[str]) -> None:
        self._plain = frozenset(plain)
        self._values: dict[str, ast.expr] = {}
        self.absent = set[str]()
        """The attributes whose absence something has followed from."""
        self.conditions: list[str] = []
        """What must be tested: assumptions that do not follow from those before them."""

    def assume(self, condition: ast.expr, holds: bool) -> None:
        """Take a condition to hold, or not to."""
        node = self.simple(condition)
        while isinstance(node, ast.UnaryOp):
            node, holds = node.operand, not holds
        assert not _is(node, not holds), f"{_text(condition)} is never {holds}"
        assert "@" not in _text(node), f"{_text(node)} depends on a place that may hold several things"
        if not isinstance(node, ast.Constant):
            self.conditions.append(_text(node if holds else ast.UnaryOp(ast.Not(), node), 3))
            self._learn(node, holds)

    def _learn(self, node: ast.expr, holds: bool) -> None:
        match node:
            case ast.BoolOp(op, values) if holds is isinstance(op, ast.And):
                for value in values:
                    self._learn(value, holds)
            case ast.UnaryOp(ast.Not(), operand):
                self._learn(operand, not holds)
                return
            case ast.Call(ast.Name("IsInt" | "IsString"), [value]) if holds:
                self._values[f"{_text(value)} == nil"] = ast.Constant(False)
            case ast.Compare(value, [ast.NotEq()], [ast.Constant(None)]):
                self._values[f"{_text(value)} == nil"] = ast.Constant(not holds)
            case ast.Compare(value, [ast.Eq()], [other]) if holds and not _is(other, None):
                self._values[_text(value)] = other
        self._values[_text(node)] = ast.Constant(holds)

    def is_there(self, node: ast.expr) -> bool:
        """Whether a value is certain not to be nil."""
        if isinstance(node, ast.Constant):
            return node.value is not None
        return isinstance(node, (ast.Dict, ast.BinOp)) or _is(self._values.get(f"{_text(node)} == nil", node), False)

    def simple(self, node: ast.expr) -> ast.expr:
        """An expression without what is known."""
        node = self._reduced(node)
        return self._values.get(_text(node), node)

    def _reduced(self, node: ast.expr) -> ast.expr:
        match node:
            case ast.Name(name) if name in _WORDS:
                return ast.Constant(_WORDS[name])
            case ast.Subscript(ast.Attribute(ast.Name("span"), "attributes"), ast.Constant(str() as name)):
                if name in self._plain:
                    return node
                self.absent.add(name)
                return ast.Constant(None)
            case ast.Attribute(value, attr):
                value = self.simple(value)
                return value if _is(value, None) else ast.Attribute(value, attr)
            case ast.Subscript(value, key):
                value = self.simple(value)
                return value if _is(value, None) else ast.Subscript(value, self.simple(key))
            case ast.List(elts):
                return ast.List([self.simple(part) for part in elts])
            case ast.Call(ast.Name("Coalesce"), [ast.List(elts)]):
                return self._coalesced(elts)
            case ast.Call(func, args):
                return _called(func, [self.simple(part) for part in args])
            case ast.UnaryOp(ast.Not(), operand):
                operand = self.simple(operand)
                return (
                    ast.Constant(not operand.value)
                    if isinstance(operand, ast.Constant)
                    else ast.UnaryOp(ast.Not(), operand)
                )
            case ast.BinOp(left, op, right):
                return _computed(self.simple(left), op, self.simple(right))
            case ast.Compare(left, [op], [right]):
                return self._compared(self.simple(left), op, self.simple(right))
            case ast.BoolOp(op, values):
                return self._joined(op, values)
        return node

    def _coalesced(self, elts: list[ast.expr]) -> ast.expr:
        found: list[ast.expr] = []
        for part in elts:
            value = self.simple(part)
            if _is(value, None):
                continue
            values = [value]
            if isinstance(value, ast.Call) and _text(value.func) == "Coalesce" and isinstance(value.args[0], ast.List):
                values = value.args[0].elts
            known = {_text(other) for other in found}
            found += (other for other in values if _text(other) not in known)
            if self.is_there(first := _first(found)):
                return first
        return _first(found)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
        if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
            one, other = left.value, right.value
            if isinstance(op, (ast.Eq, ast.NotEq)) or (isinstance(one, int) and isinstance(other, int)):
                return ast.Constant(_COMPARED[type(op)][1](one, other))
            return ast.Constant(False)
        for here, there in ((left, right), (right, left)):
            # Nothing is less or more than nil, and what is there is not nil.
            if _is(here, None) and (self.is_there(there) or not isinstance(op, (ast.Eq, ast.NotEq))):
                return ast.Constant(isinstance(op, ast.NotEq))
        if isinstance(op, ast.NotEq):
            same = self._values.get(_text(ast.Compare(left, [ast.Eq()], [right])))
            if isinstance(same, ast.Constant):
                return ast.Constant(not same.value)
        return ast.Compare(left, [op], [right])

    def _joined(self, op: ast.boolop, values: list[ast.expr]) -> ast.expr:
        ends = isinstance(op, ast.Or)
        left: list[ast.expr] = []
        for value in values:
            part = self.simple(value)
            if _is(part, ends):
                return part
            if not _is(part, not ends):
                left += part.values if isinstance(part, ast.BoolOp) and type(part.op) is type(op) else [part]
        there = {_text(part) for part in left}
        if any(text.endswith(" == nil") and text.replace(" == nil", " != nil") in there for text in there):
            return ast.Constant(ends)
        if len(left) > 1:
            return ast.BoolOp(op, left)
        return left[0] if left else ast.Constant(not ends)


def _first(values: list[ast.expr]) -> ast.expr:
    if len(values) > 1:
        return ast.Call(ast.Name("Coalesce"), [ast.List(values)], [])
    return values[0] if values else ast.Constant(None)


def _called(func: ast.expr, args: list[ast.expr]) -> ast.expr:
    name, subject = _text(func), args[0]
    if isinstance(subject, ast.Constant):
        value = subject.value
        if name in {"IsInt", "IsString", "IsDouble"}:
            kind = {"IsInt": int, "IsString": str, "IsDouble": float}[name]
            return ast.Constant(type(value) is kind)
        if name in {"IsMatch", "HasPrefix", "HasSuffix"} and value is None:
            return ast.Constant(False)
        if name in {"ToLowerCase", "String", "Trim"} and isinstance(value, str):
            return ast.Constant(
                value.strip(" ") if name == "Trim" else value.lower() if name == "ToLowerCase" else value
            )
    return ast.Call(func, args, [])


def _computed(left: ast.expr, op: ast.operator, right: ast.expr) -> ast.expr:
    if isinstance(left, ast.Constant) and isinstance(right, ast.Constant) and isinstance(left.value, int):
        counted = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}.get(type(op))
        if counted is not None and isinstance(right.value, int):
            return ast.Constant(counted(left.value, right.value))
    match left, op, right:
        case (_, ast.Add() | ast.Sub(), ast.Constant(0)):
            return left
        case (ast.Constant(0), ast.Add(), _):
            return right
        case (ast.Constant(0), ast.Mult(), _) | (_, ast.Mult(), ast.Constant(0)):
            return ast.Constant(0)
    return ast.BinOp(left, op, right)


class _Pad:
    """The scratch pad while statements run: what each place holds, in terms of the span and the tables."""

    def __init__(self, known: _Known, rare: tuple[str, ...], inlined: frozenset[str]) -> None:
        self._known = known
        self._rare = rare
        self._inlined = inlined
        self._held: dict[str, ast.expr] = {}
        self._texts: dict[str, str] = {}
        self._changes = 0

    def run(self, statements: Iterable[str]) -> list[str]:
        """What is left of statements."""
        left = []
        for statement in statements:
            done, _, condition = statement.partition(" where ")
            where = self._value(_parsed(condition or "true"))
            if statement.startswith(self._rare):
                self._known.assume(where, False)
                continue
            if _is(where, False):
                continue
            call = _parsed(done)
            assert isinstance(call, ast.Call)
            place = _text(call.args[0])
            if (written := self._written(call, place, where)) is not None:
                left.append(written + ("" if _is(where, True) else f" where {self._shown(where)}"))
                self._hold(call, place, where)
        return left

    def _value(self, node: ast.expr) -> ast.expr:
        """An expression in terms of the span and the tables."""
        return self._known.simple(_Resolved(self._held).visit(node))

    def _written(self, call: ast.Call, place: str, where: ast.expr) -> str | None:
        """The statement without its condition; None if it changes nothing."""
        if place.startswith("S.") and _text(self._now(place)) == _text(self._after(call, place, where)):
            return None
        arguments = [self._shown(self._value(part)) for part in call.args[1:]]
        return f"{_text(call.func)}({', '.join([place, *arguments])})"

    def _now(self, place: str) -> ast.expr:
        return self._held.get(place, ast.Constant(None))

    def _hold(self, call: ast.Call, place: str, where: ast.expr) -> None:
        if place.startswith("S."):
            self._held[place] = value = self._after(call, place, where)
            self._texts.pop(place, None)
            if not _is_cheap(value):
                self._texts[place] = _text(value)

    def _after(self, call: ast.Call, place: str, where: ast.expr) -> ast.expr:
        """What a place holds after a statement: a name of its own if that cannot be said."""
        before = self._now(place)
        if _text(call.func) == "set":
            value = self._value(call.args[1])
            if _is(where, True):
                return value
            if _text(where) == f"{_text(before, 6)} == nil":
                return self._known.simple(ast.Call(ast.Name("Coalesce"), [ast.List([before, value])], []))
        self._changes += 1
        return ast.Name(f"{place}@{self._changes}")

    def _shown(self, node: ast.expr) -> str:
        """An expression as it is written at this point: with the places that hold parts of it."""
        places: dict[str, str] = {}
        for place, text in self._texts.items():
            if place not in self._inlined or "@" in text:
                places.setdefault(text, place)
        return _text(_Placed(places).visit(deepcopy(node)))


def _is_cheap(node: ast.expr) -> bool:
    """Whether a value is as quickly had from where it comes from as from the pad."""
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Subscript) and _text(node.value) == _OF_SPAN)


class _Resolved(ast.NodeTransformer):
    """Puts what places hold in their stead."""

    def __init__(self, held: dict[str, ast.expr]) -> None:
        self._held = held

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "S":
            return self._held.get(f"S.{node.attr}", ast.Constant(None))
        return ast.Attribute(self.visit(node.value), node.attr)


class _Placed(ast.NodeTransformer):
    """Puts places in the stead of what they hold."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            place = self._places.get(_text(node))
            if place is not None:
                return ast.Name(place)
            assert not (isinstance(node, ast.Name) and "@" in node.id), f"no place holds {node.id} any more"
        return self.generic_visit(node)


def _needed(statements: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Statements, each with its title, without those that write what nothing reads."""
    kept: list[tuple[str, str]] = []
    read = set[str]()
    for title, statement in reversed(statements):
        written = re.match(
            r"set\((S\.\w+), (?!.* where )|(?:set|replace_pattern)\((S\.\w+), ", _STRING.sub('""', statement)
        )
        if written is not None and read.isdisjoint(filter(None, written.groups())):
            continue
        if written is not None and written[1] is not None:
            read.discard(written[1])
        read.update(_read(statement))
        kept.append((title, statement))
    return kept[::-1]


def _read(statement: str) -> list[str]:
    """The places that a statement reads, each as often as it does."""
    return re.findall(r"(?<!^set\()\bS\.\w+", _STRING.sub('""', statement))
