"""Options that have a new name: the old one is still read, with a warning, from recipes and from checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqtool.errors import VqtoolError
from vqtool.recipe import load, parse
from vqtool.recipe.resolved import from_resolved

RECIPE = Path(__file__).parents[2] / "recipes" / "seismic-tiny.toml"
NEW, OLD = "stage.contrast.options.min_distance", "stage.contrast.options.apart"


def without_the_option() -> str:
    return RECIPE.read_text().replace(", min_distance = 10", "")


def test_a_recipe_with_the_old_name_is_read_with_one_warning() -> None:
    new, old = (parse(without_the_option(), overrides=[f"{name}=7"], path=RECIPE) for name in (NEW, OLD))
    assert old.stages[0].task.options["min_distance"] == 7
    assert old.resolved() == new.resolved()
    assert old.warnings() == ['task "contrast": the option `apart` is now called `min_distance`']
    assert new.warnings() == load(RECIPE).warnings() == []


def test_a_checkpoint_with_the_old_name_is_read() -> None:
    resolved = load(RECIPE).resolved()
    earlier = json.loads(json.dumps(resolved).replace('"min_distance"', '"apart"'))
    assert earlier != resolved
    assert from_resolved(earlier, text="", folder=RECIPE.parent).stages[0].task.options["min_distance"] == 10


def test_a_baseline_of_an_earlier_run_is_now_an_option_of_another() -> None:
    path = RECIPE.with_name("codec.toml")
    resolved = load(path).resolved()
    earlier = {**resolved, "evaluate": {**resolved["evaluate"], "baselines": ["mu-law", "block-rvq-8k"]}}
    again = from_resolved(earlier, text="", folder=path.parent)
    assert again.evaluate.baselines == ("mu-law", {"kind": "block-rvq", "levels": 4})


def test_both_names_are_an_error() -> None:
    with pytest.raises(VqtoolError, match='task "contrast" has no option `apart`'):
        parse(RECIPE.read_text(), overrides=[f"{OLD}=7"], path=RECIPE)
