"""What every test has."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _garbage_of_its_own() -> Iterator[None]:
    """Many tests collect garbage, to see what becomes of a stream that nobody has any more.

    All SDKs are loaded, and to go through what was there before a test takes up to a second each time.
    """
    gc.freeze()
    yield
    gc.unfreeze()
