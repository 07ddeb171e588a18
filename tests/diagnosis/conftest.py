"""The unhealthy and the healthy runs, each trained once a session, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.diagnosis import unhealthy

Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`trained(name)` is the folder of the run of that case in `unhealthy.CASES`."""
    return lambda name: unhealthy.once(unhealthy.CASES[name], tmp_path_factory)
