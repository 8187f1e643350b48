"""One limit, many processes, and a kill -9 every now and then: no nanodollar too much, none lost, none counted twice.

The size of this is small; `python -m tests.bars --full --only budgets` does the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.processor.budgets.many import EXCESS, Setup, run

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = 4


@pytest.mark.parametrize("exact", [True, False], ids=["as estimated", "above and below"])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_limit_holds_and_every_call_counts_once(
    kind: str, exact: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/b.db" if kind == "sqlite" else request.getfixturevalue("own_redis").url
    outcome = run(
        Setup(
            url,
            str(tmp_path),
            processes=PROCESSES,
            calls=150,
            exact=exact,
            kill_seconds=0.1,
            hold_seconds=2.0,
        )
    )
    assert outcome.wrong == []
    assert outcome.over <= (0 if exact else PROCESSES * EXCESS)
    assert outcome.refused > 0
    assert outcome.kills > 0
