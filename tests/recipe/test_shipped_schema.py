"""The schema that is shipped beside the recipes is the one that `vqtool schema` prints."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from vqtool.recipe import shipped
from vqtool.recipe.schema import recipe_schema


@pytest.mark.usefixtures("fresh_catalog")
def test_it_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped.folder() / shipped.SCHEMA
    entries = importlib.metadata.entry_points(group="vqtool")
    own = [entry.name for entry in entries if entry.dist is not None and entry.dist.name == "vqtool"]
    monkeypatch.setenv("VQTOOL_PLUGINS", ",".join(own))  # whatever else is installed here does not count
    assert json.loads(path.read_text(encoding="utf-8")) == recipe_schema(), "vqtool schema > recipes/recipe.schema.json"
