"""Calls that have nothing to do with each other are counted at once, as they would be one by one."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_processor.once import Once

ids = st.sampled_from([bytes((number,)) * 8 for number in range(12)])
parents = ids | st.just(b"")
calls = st.tuples(ids, parents, st.sampled_from(["sdk", "framework"]), st.integers(0, 4), st.integers(4, 8)).flatmap(
    lambda told: st.tuples(
        st.tuples(*map(st.just, told), st.sampled_from([1, 2])),
        st.sampled_from([None, None, "chatcmpl-1", "chatcmpl-2"]),
        st.tuples(st.sampled_from([0, 10, 20, 30]), st.sampled_from([0, 1, 2, 3])),
    )
)
requests = st.tuples(st.lists(calls, min_size=1, max_size=4), st.dictionaries(ids, parents, max_size=2))


@settings(max_examples=500)
@given(st.lists(requests, min_size=1, max_size=4))
def test_taking_all_is_taking_one_by_one(sent: list[tuple[list[Any], dict[bytes, bytes]]]) -> None:
    one_by_one, at_once = Once(), Once()
    for request, links in sent:
        plain, other = dict(links), dict(links)
        one_by_one.pass_by(plain)
        at_once.pass_by(other)
        told, responses, counts = zip(*request, strict=True)
        all_taken = at_once.takes_all(tuple(zip(*told, strict=True)), responses, counts, other)
        order = sorted(request, key=lambda call: (call[0][4], -call[0][3]))
        taken = [_takes(one_by_one, call, plain) for call in order]
        if all_taken:
            assert all(taken)
        else:
            assert [_takes(at_once, call, other) for call in order] == taken
        assert at_once.above == one_by_one.above
        assert at_once._calls == one_by_one._calls
        assert at_once._responses == one_by_one._responses
        assert {key: _of(at_once, key) for key in at_once._lately} == {
            key: _of(one_by_one, key) for key in one_by_one._lately
        }


def _takes(once: Once, call: Any, links: dict[bytes, bytes]) -> bool:
    told, response_id, counts = call
    contains = once.ends(told[0], told[1], links)
    return not contains and once.takes(told, response_id, counts, links)


def _of(once: Once, key: Any) -> list[tuple[str, int, int]]:
    """The calls that used the same, in whatever order: one that repeats one of them repeats any."""
    found, latest = [], once._lately[key]
    while latest is not None:
        found.append(latest[:3])
        latest = latest[5]
    return sorted(found, key=itemgetter(0, 1, 2))
