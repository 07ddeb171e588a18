"""The ill and the healthy runs, each trained once a session, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.diagnosis.ill import CASES
from vqtool.console import out

Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """`trained(name)` is the folder of the run of that case in `ill.CASES`."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            out.mode = "quiet"
            folders[name] = CASES[name].train(tmp_path_factory.mktemp(name))
            out.mode = "human"
        return folders[name]

    return folder_of
