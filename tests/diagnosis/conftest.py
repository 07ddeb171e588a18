"""The ill and the healthy runs, each trained once a session, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.diagnosis import ill

Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`trained(name)` is the folder of the run of that case in `ill.CASES`."""
    return lambda name: ill.once(ill.CASES[name], tmp_path_factory)
