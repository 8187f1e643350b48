"""Calls that have nothing to do with each other are counted at once, as they would be one by one."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_processor.once import Once

ids = st.sampled_from([bytes((number,)) * 8 for number in range(10)])
others = st.sampled_from([bytes((number,)) * 8 for number in range(10, 14)])
"""Of spans that tell of no call."""
parents = ids | others | st.just(b"")
calls = st.tuples(ids, parents, st.sampled_from(["sdk", "framework"]), st.integers(0, 4), st.integers(4, 8)).flatmap(
    lambda told: st.tuples(
        st.tuples(*map(st.just, told), st.sampled_from([1, 2])),
        st.sampled_from([None, None, "chatcmpl-1", "chatcmpl-2"]),
        st.tuples(st.sampled_from([0, 10, 20, 30]), st.sampled_from([0, 1, 2, 3])),
    )
)
requests = st.tuples(st.lists(calls, min_size=1, max_size=4), st.dictionaries(others, parents, max_size=3))


@settings(max_examples=300, deadline=None)
@given(st.lists(requests, min_size=1, max_size=4))
def test_taking_all_is_taking_one_by_one(sent: list[tuple[list[Any], dict[bytes, bytes]]]) -> None:
    one_by_one, at_once = Once(), Once()
    passed: set[bytes] = set()
    for request, links in sent:
        # Such a span comes by once.
        links = {span_id: parent_id for span_id, parent_id in links.items() if span_id not in passed}
        passed |= links.keys()
        plain, other = dict(links), dict(links)
        one_by_one.pass_by(plain)
        at_once.pass_by(other)
        told, responses, counts = zip(*request, strict=True)
        used: Any = tuple(zip(*counts, strict=True))
        all_taken = at_once.takes_all(tuple(zip(*told, strict=True)), responses, used, other)
        order = sorted(request, key=lambda call: (call[0][4], -call[0][3]))
        taken = [_takes(one_by_one, call, plain) for call in order]
        if all_taken:
            assert all(taken)
        else:
            assert [_takes(at_once, call, other) for call in order] == taken
        # What has come by ends no more, whether its mark has gone further up or stays.
        assert at_once.above.keys() - passed == one_by_one.above.keys() - passed
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
    calls = once._lately[key]
    found = list(zip(*[iter(calls[1:])] * 3, strict=True))
    return sorted(found, key=itemgetter(0, 1, 2))
