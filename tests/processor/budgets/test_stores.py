"""What every store does: each sentence of the interface, on memory, on a file and on a server."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.budgets.store import Answer, Balance, Claim, Record, Settlement, Store
from tests.processor.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.processor.budgets.conftest import Opener
    from tests.processor.budgets.server import RedisServer

TEAM = "team:2026-11"
NOTHING = Balance(0, 0, 0)


def claim(account: str = TEAM, most: int | None = 1000, also: tuple[str, ...] = (), keep_until: int = 0) -> Claim:
    return Claim(account, most, also, keep_until)


def settle(store: Store, key: str, amount: int, *claims: Claim) -> Answer:
    (answer,) = store.settle([Settlement(key, amount, claims)])
    return answer


def money(store: Store, *accounts: str) -> list[Balance]:
    """Spent, held and unsettled of these accounts."""
    names = accounts or (TEAM,)
    found = store.read([Claim(name) for name in names]).balances
    return [found[name] for name in names]


class TestReserve:
    def test_holds_the_amount_and_says_what_there_is(self, store: Store) -> None:
        answer = store.reserve("a", 600, [claim(), claim("all", None)], 60)
        assert answer[:3] == (True, None, {TEAM: (0, 600, 0), "all": (0, 600, 0)})
        assert answer.epoch

    def test_what_is_held_and_what_is_spent_leave_no_room(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        refused = store.reserve("b", 401, [claim()], 60)
        assert refused[:3] == (False, TEAM, {TEAM: (0, 600, 0)})
        settle(store, "a", 100)
        assert store.reserve("b", 901, [claim()], 60)[:3] == (False, TEAM, {TEAM: (100, 0, 0)})
        assert store.reserve("b", 900, [claim()], 60).admitted

    def test_all_accounts_or_none(self, store: Store) -> None:
        claims = [claim("wide", 10_000), claim("narrow", 500), claim("narrower", 400)]
        answer = store.reserve("a", 600, claims, 60)
        assert answer[:3] == (False, "narrow", {"wide": NOTHING, "narrow": NOTHING, "narrower": NOTHING})
        assert money(store, "wide", "narrow", "narrower") == [NOTHING] * 3
        assert store.holds() == []

    def test_an_account_without_most_refuses_nothing(self, store: Store) -> None:
        assert store.reserve("a", 10**15, [claim(most=None)], 60).admitted

    def test_a_call_that_costs_nothing_is_never_refused(self, store: Store) -> None:
        settle(store, "x", 5000, claim())
        assert store.reserve("a", 0, [claim()], 60).admitted
        assert not store.reserve("b", 1, [claim()], 60).admitted

    def test_one_that_is_held_is_answered_as_before(self, store: Store) -> None:
        first = store.reserve("a", 600, [claim()], 60)
        assert store.reserve("a", 600, [claim()], 60) == first
        assert store.reserve("a", 5000, [claim("other")], 60)[:3] == (True, None, {"other": NOTHING})
        assert money(store) == [(0, 600, 0)]

    def test_one_that_was_refused_may_ask_again(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        assert not store.reserve("b", 600, [claim()], 60).admitted
        settle(store, "a", 0)
        assert store.reserve("b", 600, [claim()], 60).admitted

    def test_the_money_of_also_counts_and_is_shown(self, store: Store) -> None:
        settle(store, "x", 300, claim("hour 1"))
        store.reserve("y", 200, [claim("hour 2", 1000, ("hour 1",))], 60)
        now = claim("hour 3", 1000, ("hour 1", "hour 2", "hour 0"))
        assert store.reserve("a", 501, [now], 60)[:3] == (False, "hour 3", {"hour 3": (300, 200, 0)})
        assert store.reserve("b", 500, [now], 60)[:3] == (True, None, {"hour 3": (300, 700, 0)})
        assert money(store, "hour 1", "hour 2", "hour 3") == [(300, 0, 0), (0, 200, 0), (0, 500, 0)]
        assert settle(store, "b", 400, now).balances == {"hour 3": (700, 200, 0)}

    def test_the_calls_of_first_are_ended_before(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        first = [Settlement("a", 100), Settlement("b", 50, (claim(), claim("all")))]
        assert store.reserve("c", 850, [claim()], 60, first)[:3] == (True, None, {TEAM: (150, 850, 0)})
        assert money(store, TEAM, "all") == [(150, 850, 0), (50, 0, 0)]

    def test_they_are_ended_even_if_there_is_no_room(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        refused = asyncio.run(store.areserve("c", 901, [claim()], 60, [Settlement("a", 100)]))
        assert refused[:3] == (False, TEAM, {TEAM: (100, 0, 0)})
        assert money(store) == [(100, 0, 0)]

    def test_on_an_event_loop_it_is_the_same(self, store: Store) -> None:
        async def work() -> list[Answer]:
            first = await store.areserve("a", 600, [claim()], 60)
            return [first, *await asyncio.gather(*(store.areserve(key, 300, [claim()], 60) for key in "bcd"))]

        answers = asyncio.run(work())
        assert sorted(answer.admitted for answer in answers) == [False, False, True, True]
        assert asyncio.run(work())[0].admitted
        assert money(store) == [(0, 900, 0)]

    def test_where_no_event_loop_of_asyncio_runs_it_works_all_the_same(self, store: Store) -> None:
        steps = store.areserve("a", 600, [claim()], 60)
        with pytest.raises(StopIteration) as done:
            steps.send(None)
        assert done.value.value.admitted


class TestSettle:
    def test_what_it_cost_takes_the_place_of_the_hold(self, store: Store) -> None:
        store.reserve("a", 600, [claim(), claim("all")], 60)
        assert settle(store, "a", 250, claim()).balances == {TEAM: (250, 0, 0)}
        assert money(store, TEAM, "all") == [(250, 0, 0)] * 2
        assert store.holds() == []

    def test_zero_releases_the_hold(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        assert settle(store, "a", 0, claim()).balances == {TEAM: NOTHING}

    def test_an_actual_above_the_limit_is_recorded_never_cut(self, store: Store) -> None:
        store.reserve("a", 900, [claim()], 60)
        assert settle(store, "a", 5000, claim()).balances[TEAM] == (5000, 0, 0)
        assert not store.reserve("b", 1, [claim()], 60).admitted

    def test_a_hold_is_replaced_in_its_own_accounts(self, store: Store) -> None:
        """Those of the settlement may be of the next period."""
        store.reserve("a", 600, [claim("november")], 60)
        assert settle(store, "a", 500, claim("december")).balances == {"december": NOTHING}
        assert money(store, "november", "december") == [(500, 0, 0), NOTHING]

    def test_without_a_hold_the_claims_are_charged_whatever_they_allow(self, store: Store) -> None:
        assert settle(store, "a", 5000, claim(), claim("all", 1)).balances == {TEAM: (5000, 0, 0), "all": (5000, 0, 0)}

    def test_without_a_hold_and_without_claims_nowhere(self, store: Store) -> None:
        answer = settle(store, "ghost", 100)
        assert answer[:3] == (True, None, {})
        assert store.accounts("") == {}
        assert not settle(store, "ghost", 100, claim()).balances[TEAM].spent, "it was settled"

    def test_many_in_order_each_with_its_own_answer(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        ends = [Settlement("a", 100), Settlement("b", 7, (claim(),)), Settlement("c", 5, (claim(), claim("all")))]
        answers = store.settle([*ends, Settlement("b", 9, (claim(),))])
        assert [answer.balances for answer in answers] == [
            {},
            {TEAM: (107, 0, 0)},
            {TEAM: (112, 0, 0), "all": (5, 0, 0)},
            {TEAM: (112, 0, 0)},
        ]
        assert store.settle([]) == []

    def test_a_key_that_was_settled_changes_nothing(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        for amount in (100, 100, 0, 300):
            assert settle(store, "a", amount, claim()).balances == {TEAM: (100, 0, 0)}
        assert store.reserve("a", 600, [claim()], 60)[:3] == (True, None, {TEAM: (100, 0, 0)})
        assert store.reserve("a", 10**9, [claim()], 60).admitted
        assert store.holds() == []

    def test_however_many_were_settled_since(self, store: Store) -> None:
        store.reserve("a", 600, [claim()], 60)
        settle(store, "a", 100, claim())
        for number in range(10):
            store.settle([Settlement(f"{number} {other}", 1, (claim("others"),)) for other in range(50)])
        assert settle(store, "a", 300, claim()).balances == {TEAM: (100, 0, 0)}
        assert store.reserve("a", 600, [claim()], 60)[:3] == (True, None, {TEAM: (100, 0, 0)})
        assert store.holds() == []

    def test_a_settlement_that_overtakes_its_reservation_is_the_last_word(self, store: Store) -> None:
        """After a time-out nobody knows whether the reservation is still under way."""
        settle(store, "a", 0)
        store.reserve("a", 600, [claim()], 60)
        assert money(store) == [NOTHING]


class TestTime:
    def test_an_expired_hold_is_charged_at_its_estimate(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 600, [claim()], 60)
        clock.now += 59
        assert money(store) == [(0, 600, 0)]
        clock.now += 1
        assert money(store) == [(600, 0, 600)]
        assert store.accounts("team") == {TEAM: (600, 0, 600)}
        assert not store.reserve("b", 401, [claim()], 60).admitted

    @pytest.mark.parametrize("step", ["reserve", "refused", "settle", "renew"])
    def test_by_whatever_step_comes_next(self, step: str, store: Store, clock: Clock) -> None:
        store.reserve("a", 600, [claim()], 60)
        clock.now += 61
        if step == "renew":
            store.renew("me", ["a"], 60)
            assert money(store) == [(600, 0, 600)]
        elif step == "settle":
            assert settle(store, "b", 1, claim()).balances[TEAM] == (601, 0, 600)
        else:
            answer = store.reserve("b", 1 if step == "reserve" else 1000, [claim()], 60)
            assert answer.balances[TEAM] == ((600, 1, 600) if step == "reserve" else (600, 0, 600))

    def test_many_at_once(self, store: Store, clock: Clock) -> None:
        for number in range(150):
            store.reserve(str(number), 1, [claim()], 60)
        clock.now += 61
        assert money(store) == [(150, 0, 150)]
        assert {hold.expired for hold in store.holds()} == {True}

    def test_a_late_settlement_replaces_the_estimate_once(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 600, [claim()], 60)
        clock.now += 61
        money(store)
        for _ in range(2):
            assert settle(store, "a", 250, claim()).balances == {TEAM: (250, 0, 0)}
        assert store.holds() == []

    def test_one_that_expired_is_still_answered_as_before(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 600, [claim()], 60)
        clock.now += 61
        assert store.reserve("a", 600, [claim()], 60)[:3] == (True, None, {TEAM: (600, 0, 600)})

    def test_renewed_holds_live_on(self, store: Store, clock: Clock) -> None:
        for key in "ab":
            store.reserve(key, 600, [claim(most=None)], 60)
        clock.now += 50
        store.renew("me", ["a", "nobody's"], 60)
        clock.now += 59
        assert money(store) == [(600, 600, 600)]
        clock.now += 1
        assert money(store) == [(1200, 0, 1200)]

    def test_what_has_expired_is_not_renewed(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 600, [claim()], 60)
        clock.now += 60
        store.renew("me", ["a"], 60)
        assert money(store) == [(600, 0, 600)]

    def test_nor_if_many_have(self, store: Store, clock: Clock) -> None:
        """More than a step sees to at once."""
        keys = [str(number) for number in range(150)]
        for key in keys:
            store.reserve(key, 1, [claim()], 60)
        clock.now += 61
        store.renew("me", keys, 60)
        assert money(store) == [(150, 0, 150)]

    def test_renewing_counts_who_has_asked_within_their_ttl(self, store: Store, clock: Clock) -> None:
        assert [store.renew(owner, [], 60) for owner in ("a", "b", "a")] == [1, 2, 2]
        clock.now += 30
        assert store.renew("a", [], 60) == 2
        clock.now += 30
        assert store.renew("a", [], 60) == 1

    @pytest.mark.parametrize("hours", [2, -2])
    def test_a_clock_that_is_set_loses_no_money_and_counts_none_twice(
        self, hours: int, store: Store, clock: Clock
    ) -> None:
        store.reserve("a", 600, [claim(most=None)], 60)
        clock.now += 3600 * hours
        store.reserve("b", 500, [claim(most=None)], 60)
        estimate = (600, 500, 600) if hours > 0 else (0, 1100, 0)
        assert money(store) == [estimate]
        clock.now -= 3600 * hours
        assert money(store)[0].spent + money(store)[0].held == 1100
        for _ in range(2):
            store.settle([Settlement("a", 60), Settlement("b", 50)])
        assert money(store) == [(110, 0, 0)]

    def test_now_is_the_time_of_its_clock(self, store: Store, clock: Clock) -> None:
        assert store.now() == clock.now
        clock.now += 5
        assert store.now() == clock.now


class TestRead:
    def test_zero_for_what_nothing_has_touched(self, store: Store) -> None:
        assert store.read([claim()])[:3] == (True, None, {TEAM: NOTHING})
        assert store.accounts("") == {}
        assert store.read([]).balances == {}

    def test_accounts_that_begin_so(self, store: Store) -> None:
        for index, name in enumerate(("team:1", "team:2", "teams", "ärger: 'x' \"y\" \\", "%", "_", "Team:1", "tea")):
            settle(store, name, index + 1, claim(name))
        store.reserve("h", 50, [claim("team:2")], 60)
        assert store.accounts("team:") == {"team:1": (1, 0, 0), "team:2": (2, 50, 0)}
        assert store.accounts("ä") == {"ärger: 'x' \"y\" \\": (4, 0, 0)}
        assert list(store.accounts("%")) == ["%"]
        assert len(store.accounts("")) == 8

    def test_holds_the_oldest_first_and_what_has_become_of_them(self, store: Store, clock: Clock) -> None:
        names = ("ärger:\n'x' y", "all")
        store.reserve("a b", 600, [claim(name) for name in names], 60)
        clock.now += 40
        store.reserve("c", 0, [claim()], 60)
        clock.now += 30
        started = clock.now - 70
        assert store.holds() == [
            ("a b", 600, names, started + 60, True),
            ("c", 0, (TEAM,), started + 100, False),
        ]

    def test_others_see_the_same(self, opened: Opener) -> None:
        one, other = opened(), opened()
        one.reserve("a", 600, [claim()], 60)
        assert other.read([claim()]) == one.read([claim()])
        assert not other.reserve("b", 600, [claim()], 60).admitted
        settle(other, "a", 5)
        assert money(one) == [(5, 0, 0)]


class TestRestore:
    def test_the_highest_that_is_told_counts_once_beside_what_is_spent(self, store: Store) -> None:
        epoch = store.read([]).epoch
        settle(store, "a", 50, claim())
        for known in ({TEAM: 400, "other": 3}, {TEAM: 700}, {TEAM: 600}):
            store.restore(epoch, known)
        assert money(store, TEAM, "other") == [(750, 0, 0), (3, 0, 0)]
        assert store.accounts("") == {TEAM: (750, 0, 0), "other": (3, 0, 0)}

    def test_it_leaves_less_room(self, store: Store) -> None:
        store.restore(store.read([]).epoch, {TEAM: 700})
        assert store.reserve("a", 301, [claim()], 60)[:3] == (False, TEAM, {TEAM: (700, 0, 0)})
        assert store.reserve("a", 300, [claim()], 60).balances == {TEAM: (700, 300, 0)}
        assert settle(store, "a", 299, claim()).balances == {TEAM: (999, 0, 0)}

    def test_what_is_of_another_epoch_changes_nothing(self, store: Store) -> None:
        store.restore("long ago", {TEAM: 700})
        assert money(store) == [NOTHING]


class TestRecords:
    def test_one_of_an_id_is_kept(self, store: Store, clock: Clock) -> None:
        first = Record("a", '{"ä": "\\n b"}', clock.now)
        assert store.post(first)
        assert not store.post(first._replace(text="other"))
        assert store.records() == [first]

    def test_the_newest_first(self, store: Store, clock: Clock) -> None:
        for number in range(3):
            store.post(Record(str(number), "{}", clock.now + number))
        assert [record.id for record in store.records()] == ["2", "1", "0"]

    def test_acknowledged_by(self, store: Store, clock: Clock) -> None:
        store.post(Record("a", "{}", clock.now))
        assert store.acknowledge("a", "Änne")
        assert not store.acknowledge("b", "Änne")
        assert [record.acknowledged_by for record in store.records()] == ["Änne"]


class TestSharedStoresForget:
    """Only what is long over. The store in memory forgets by number, not by time."""

    @pytest.fixture
    def opened(self, request: pytest.FixtureRequest, opened: Opener) -> Opener:
        if isinstance(opened(), MemoryStore):
            pytest.skip("forgets by number")
        return opened

    def test_accounts_after_the_time_they_are_kept_for(self, store: Store, clock: Clock) -> None:
        keep_until = int(clock.now) + 1000
        settle(store, "x", 7, claim("old", keep_until=keep_until), claim("for ever"))
        clock.now += 1000
        self.use(store, 200)
        assert set(store.accounts("")) == {"old", "for ever", "use"}
        clock.now += 1
        self.use(store, 200)
        assert set(store.accounts("")) == {"for ever", "use"}
        assert money(store, "old", "for ever") == [NOTHING, (7, 0, 0)]

    def test_expired_holds_with_their_accounts(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 5, [claim("old", keep_until=int(clock.now) + 1000)], 60)
        store.reserve("b", 5, [claim("for ever")], 60)
        clock.now += 999
        assert [hold.key for hold in store.holds()] == ["a", "b"]
        clock.now += 2
        self.use(store, 200)
        assert [hold.key for hold in store.holds()] == ["b"]
        assert settle(store, "a", 3, claim("old")).balances == {"old": (3, 0, 0)}, "nothing is known of it"

    def test_no_account_with_a_call_under_way(self, store: Store, clock: Clock) -> None:
        store.reserve("a", 5, [claim("old", keep_until=int(clock.now) - 1)], 60)
        self.use(store, 200)
        assert settle(store, "a", 3, claim("old")).balances == {"old": (3, 0, 0)}

    def test_records_after_90_days(self, store: Store, clock: Clock) -> None:
        store.post(Record("a", "{}", clock.now))
        clock.now += 90 * 86400
        assert len(store.records()) == 1
        clock.now += 1
        assert store.records() == []
        store.post(Record("b", "{}", clock.now))
        assert [record.id for record in store.records()] == ["b"]
        assert not store.acknowledge("a", "me")

    def use(self, store: Store, times: int) -> None:
        for _ in range(times):
            settle(store, f"use {uuid.uuid4()}", 1, claim("use"))


class TestThreads:
    def test_no_limit_is_passed_when_they_race(self, store: Store) -> None:
        def work(name: int) -> list[str]:
            admitted = []
            for number in range(25):
                key = f"{name}-{number}"
                if store.reserve(key, 7, [claim()], 60).admitted:
                    admitted.append(key)
                    settle(store, key, 7)
            return admitted

        with ThreadPoolExecutor(8) as threads:
            admitted = [key for keys in threads.map(work, range(8)) for key in keys]
        assert len(admitted) == 142
        assert money(store) == [(994, 0, 0)]

    def test_loops_in_several_threads(self, store: Store) -> None:
        async def work(name: int) -> int:
            answers = [await store.areserve(f"{name}-{number}", 7, [claim()], 60) for number in range(20)]
            return sum(answer.admitted for answer in answers)

        admitted: list[int] = []
        threads = [threading.Thread(target=lambda n=name: admitted.append(asyncio.run(work(n)))) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(admitted) == 142


class Model:
    """A store as one would explain it: everything is kept, and every balance is added up from the beginning."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.charges: list[tuple[str, int]] = []
        self.holds: dict[str, list[Any]] = {}
        self.settled: set[str] = set()
        self.floors: dict[str, int] = {}

    def balance(self, one: Claim) -> Balance:
        names = (one.account, *one.also)
        spent = sum(amount for name, amount in self.charges if name in names)
        spent += sum(self.floors.get(name, 0) for name in names)
        held = unsettled = 0
        for amount, accounts, expires in self.holds.values():
            times = sum(name in names for name in accounts)
            if expires > self.clock.now:
                held += amount * times
            else:
                unsettled += amount * times
        return Balance(spent + unsettled, held, unsettled)

    def answer(self, claims: Sequence[Claim], refused_by: str | None = None) -> tuple[Any, ...]:
        return refused_by is None, refused_by, {one.account: self.balance(one) for one in claims}

    def reserve(self, key: str, amount: int, claims: Sequence[Claim], ttl: float) -> tuple[Any, ...]:
        if key in self.settled or key in self.holds:
            return self.answer(claims)
        for one in claims:
            spent, held, _ = self.balance(one)
            if amount and one.most is not None and spent + held + amount > one.most:
                return self.answer(claims, one.account)
        self.holds[key] = [amount, [one.account for one in claims], self.clock.now + ttl]
        return self.answer(claims)

    def settle(self, settlement: Settlement) -> tuple[Any, ...]:
        key, amount, claims = settlement
        if key not in self.settled:
            self.settled.add(key)
            accounts = self.holds.pop(key)[1] if key in self.holds else [one.account for one in claims]
            self.charges += [(name, amount) for name in accounts]
        return self.answer(claims)

    def renew(self, keys: Sequence[str], ttl: float) -> None:
        for key in keys:
            if key in self.holds and self.holds[key][2] > self.clock.now:
                self.holds[key][2] = self.clock.now + ttl

    def restore(self, known: dict[str, int]) -> None:
        for name, spent in known.items():
            self.floors[name] = max(self.floors.get(name, 0), spent)


NAMES = ("x", "y", "z")
OLDER = ("x-1", "y-1", "z-1")
TTL = 60.0


class AllAgree(RuleBasedStateMachine):
    """Any program of steps, with repeats, late ends and time going on: three stores and the model say the same."""

    folder: Path
    server: RedisServer

    keys = st.sampled_from("abcdef")
    amounts = st.integers(0, 700)
    claims = st.lists(
        st.builds(
            lambda name, most, window: Claim(name, most, (f"{name}-1", f"{name}-2") if window else ()),
            st.sampled_from(NAMES),
            st.sampled_from((None, 1000)),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one.account,
    ).map(tuple)
    ends = st.builds(Settlement, keys | st.sampled_from(("span 1", "span 2")), amounts, claims | st.just(()))

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Model(self.clock)
        name = uuid.uuid4().hex
        self.stores: list[Store] = [
            MemoryStore(self.clock),
            SQLiteStore(self.folder / f"{name}.db", self.clock),
            RedisStore(self.server.patient_url, name, self.clock),
        ]

    @rule(key=keys, amount=amounts, claims=claims, first=st.just([]) | st.lists(ends, max_size=2))
    def reserve(self, key: str, amount: int, claims: tuple[Claim, ...], first: list[Settlement]) -> None:
        for settlement in first:
            self.model.settle(settlement)
        expected = self.model.reserve(key, amount, claims, TTL)
        assert [store.reserve(key, amount, claims, TTL, first)[:3] for store in self.stores] == [expected] * 3

    @rule(key=keys, amount=amounts, account=st.sampled_from(OLDER))
    def reserve_in_an_older_bucket(self, key: str, amount: int, account: str) -> None:
        self.reserve(key, amount, (Claim(account),), [])

    @rule(settlements=st.lists(ends, max_size=3))
    def settle(self, settlements: list[Settlement]) -> None:
        expected = [self.model.settle(settlement) for settlement in settlements]
        for store in self.stores:
            assert [answer[:3] for answer in store.settle(settlements)] == expected

    @rule(keys=st.lists(keys, max_size=3))
    def renew(self, keys: list[str]) -> None:
        self.model.renew(keys, TTL)
        for store in self.stores:
            store.renew("me", keys, TTL)

    @rule(known=st.dictionaries(st.sampled_from(NAMES + OLDER), amounts, max_size=2))
    def restore(self, known: dict[str, int]) -> None:
        self.model.restore(known)
        for store in self.stores:
            store.restore(store.read([]).epoch, known)

    @rule(seconds=st.sampled_from((1, 20, 45, 60, 90)))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def agree(self) -> None:
        asked = [Claim(name, None, (f"{name}-1",)) for name in NAMES]
        expected = self.model.answer(asked)
        balances = {name: self.model.balance(Claim(name)) for name in (*NAMES, *OLDER)}
        accounts = {name: balance for name, balance in balances.items() if any(balance)}
        holds = {
            (key, amount, tuple(names), expires, expires <= self.clock.now)
            for key, (amount, names, expires) in self.model.holds.items()
        }
        for store in self.stores:
            assert store.read(asked)[:3] == expected
            assert {name: balance for name, balance in store.accounts("").items() if any(balance)} == accounts
            assert set(store.holds()) == holds

    def teardown(self) -> None:
        for store in self.stores:
            store.close()


@pytest.mark.timeout(300)
def test_all_stores_agree_on_any_program(tmp_path: Path, redis_server: RedisServer) -> None:
    machine = type("AllAgreeHere", (AllAgree,), {"folder": tmp_path, "server": redis_server})
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    )
