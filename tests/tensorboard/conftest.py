"""Here the plugin is on, which the other tests leave out."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _plugin_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VQTOOL_PLUGINS")
