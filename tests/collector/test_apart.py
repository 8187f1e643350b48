"""Calls that have nothing to do with each other are counted at once, as they would be one by one."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_processor.collector.apart import Alike, Apart
from costspan_processor.collector.wire import inside, trace_of
from costspan_processor.once import Once

TRACES = [letter * 16 for letter in (b"t", b"u", b"v")]


class Call(NamedTuple):
    """A span that tells of one."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start: int
    end: int
    response_id: str | None
    sent: int
    received: int
    process: int
    scope: str

    def taken(self, once: Once, links: dict[bytes, bytes]) -> bool:
        """Whether it carries its cost, if it is asked about alone."""
        own, above = self.trace_id + self.span_id, inside(self.trace_id, self.parent_id)
        told = own, above, self.scope, self.start, self.end, self.process
        counts = self.sent, self.received
        if once.ends(own, above, links) or once.repeats(told, self.response_id, counts):
            return False
        once.counted(told, self.response_id, counts, links)
        return True


class Other(NamedTuple):
    """A span that tells of none."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes


traces = st.sampled_from(TRACES)
ids = st.sampled_from([bytes((number,)) * 8 for number in range(10)])
ids_of_others = st.sampled_from([bytes((number,)) * 8 for number in range(10, 14)])
parents = ids | ids_of_others | st.just(b"")
calls = st.builds(
    Call,
    traces,
    ids,
    parents,
    st.integers(0, 4),
    st.integers(4, 8),
    st.sampled_from([None, None, "", "chatcmpl-1", "chatcmpl-2"]),
    st.sampled_from([0, 10, 20]),
    st.sampled_from([0, 1]),
    st.sampled_from([1, 2]),
    st.sampled_from(["sdk", "framework"]),
)
others = st.lists(st.builds(Other, traces, ids_of_others, parents), max_size=3)
requests = st.tuples(st.lists(calls, min_size=1, max_size=4), others)


def in_groups(request: list[Call]) -> list[Call]:
    """The calls of each process and library together."""
    return sorted(request, key=attrgetter("process", "scope"))


def alike(request: list[Call]) -> list[Alike]:
    """The same as columns."""
    groups = groupby(in_groups(request), attrgetter("process", "scope"))
    return [Alike(*where, *list(zip(*many, strict=True))[:8]) for where, many in groups]


@settings(max_examples=1000, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8))
def test_taking_at_once_is_taking_one_by_one(sent: list[tuple[list[Call], list[Other]]]) -> None:
    one_by_one, at_once = Once(), Apart(8192, 128)
    passed: set[bytes] = set()
    for request, beside in sent:
        found = {other.trace_id + other.span_id: inside(other.trace_id, other.parent_id) for other in beside}
        # Such a span comes by once.
        links = {span_id: above for span_id, above in found.items() if span_id not in passed}
        passed |= links.keys()
        begun = dict.fromkeys([trace_of(call.trace_id) for call in request])
        taken, near = at_once.come(begun, [trace_of(span_id[:16]) for span_id in links])
        close = {span_id: above for span_id, above in links.items() if trace_of(span_id[:16]) in near}
        one_by_one.pass_by(links)
        at_once.pass_by(close)
        alone = Counter[Call]()
        for call, apart in zip(in_groups(request), at_once.takes_apart(taken, alike(request), close), strict=True):
            alone[call] += apart
        for call in sorted(request, key=lambda call: (call.end, -call.start)):
            assert call.taken(one_by_one, links) == (alone[call] > 0 or call.taken(at_once, close))
    # All that is put off is done once spans of these traces come, and calls are compared.
    at_once.come({}, list(map(trace_of, TRACES)))
    at_once.repeats((b"", b"", "", 0, 0, 0), None, (None, None))
    # What has come by ends no more, whether its mark has gone further up or stays.
    assert at_once.above.keys() - passed == one_by_one.above.keys() - passed
    assert at_once._calls == one_by_one._calls
    assert at_once._responses == one_by_one._responses
    assert {key: of(at_once, key) for key in at_once._lately} == {
        key: of(one_by_one, key) for key in one_by_one._lately
    }


def of(once: Once, key: Any) -> list[tuple[str, int, int]]:
    """The calls that used the same, in whatever order: which of them a span repeats does not depend on it."""
    calls = once._lately[key]
    return sorted(zip(*[iter(calls[1:])] * 3, strict=True))


def many(number: int, scope: str = "sdk", size: int = 100) -> list[Call]:
    """Calls of as many traces, each with counts that no other has."""
    made = range(number * size, (number + 1) * size)
    return [Call(b"%016d" % of, b"a" * 8, b"b" * 8, 1, 2, f"chatcmpl-{of}", of, 1, 1, scope) for of in made]


def test_what_is_remembered_has_a_bound() -> None:
    once = Apart(1000, 500)
    held = []

    def takes(request: list[Call]) -> bool:
        taken, _ = once.come(dict.fromkeys([trace_of(call.trace_id) for call in request]), [])
        held.append(taken)
        return all(once.takes_apart(taken, alike(request), {}))

    sent = [many(number) for number in range(30)]
    assert all(map(takes, sent))
    assert sum(map(len, held)) <= 1000
    # What came last is known, all the more what a library told; what came long ago is not.
    assert not takes(sent[-1])
    assert not takes([call._replace(span_id=b"c" * 8, response_id=None) for call in many(25, "framework")])
    assert takes([call._replace(response_id=None) for call in many(0)])
    # Nor does anything grow by calls that have to do with others.
    for _ in range(30):
        assert not takes(sent[-1])
    assert len(once._traces) <= 1000
    assert max(len(once._held), len(once._unsorted)) <= 10
    assert once._calls_held == sum(map(len, once._held)) <= 1000
    assert once._calls_unsorted == sum(len(alike.starts) for alike in once._unsorted) <= 600


def test_the_calls_of_a_trace_are_told_apart_from_others_of_their_request() -> None:
    once = Apart(1000, 500)
    request = [call._replace(end=9) for call in many(0)]
    taken, _ = once.come(dict.fromkeys([trace_of(call.trace_id) for call in request]), [])
    assert all(once.takes_apart(taken, alike(request), {}))
    trace, span_id = request[7].trace_id, request[7].span_id
    later = Call(trace, b"c" * 8, span_id, 3, 4, None, 5, 5, 1, "sdk")
    taken, _ = once.come({trace_of(trace): None}, [])
    assert once.takes_apart(taken, alike([later]), {}) == [False]
    assert not later.taken(once, {})


def test_a_library_is_known_by_calls_that_were_looked_at_one_by_one() -> None:
    once = Apart(1000, 500)
    for call in many(0, "sdk", 1):
        assert call.taken(once, {})
    around = [call._replace(trace_id=b"t" * 16, start=0, end=9, response_id=None) for call in many(0, "framework", 1)]
    taken, _ = once.come({trace_of(b"t" * 16): None}, [])
    assert once.takes_apart(taken, alike(around), {}) == [False]
