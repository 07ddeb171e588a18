"""`-s KEY=VALUE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.recipe.text import GOOD
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.recipe import Recipe, from_resolved, load
from vqtool.recipe import parse as parse_recipe
from vqtool.recipe.overrides import parse
from vqtool.recipe.recipe import apply_to_resolved

pytestmark = pytest.mark.usefixtures("toy")


@pytest.mark.parametrize(
    ("text", "parts", "value"),
    [
        ("a.b=4", ["a", "b"], 4),
        ("a = 1_000", ["a"], 1000),
        ("a.b=0.5", ["a", "b"], 0.5),
        ("a=true", ["a"], True),
        ("a=[1, 2]", ["a"], [1, 2]),
        ("a={ x = 1 }", ["a"], {"x": 1}),
        ('a="4"', ["a"], "4"),
        ("a=data/file.npz", ["a"], "data/file.npz"),
        ("a=x=y", ["a"], "x=y"),
        ("a=", ["a"], ""),
        ("a=2024-01-01", ["a"], "2024-01-01"),
        ("a=1\nb = 2", ["a"], "1\nb = 2"),
        ('set."q.t=1".x=3', ["set", "q.t=1", "x"], 3),
    ],
)
def test_keys_and_values(text: str, parts: list[str], value: Any) -> None:
    assert parse(text) == (parts, value)


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", "a b=1"])
def test_what_is_not_an_override(text: str) -> None:
    with pytest.raises(VqtoolError, match="is not an override") as caught:
        parse(text)
    assert caught.value.where == f"-s {text}"


def changed(*overrides: str) -> Recipe:
    return parse_recipe(GOOD, overrides=overrides)


def test_parts_stages_knobs_and_schedules() -> None:
    recipe = changed(
        "quantizer.codebook_size=4",
        "seed=9",
        "data.path=other.npz",
        "train.batch=7",
        "stage.first.steps=5",
        "stage.first.losses.commitment=2",
        "stage.second.set.quantizer.temperature=0.25",
        "stage.second.schedule.task.own_tokens.to=0.75",
        "stage.second.schedule.lr.to=0.5",
        'stage.second.schedule."task.own_tokens".from=0.5',
    )
    assert recipe.parts["quantizer"].options["codebook_size"] == 4
    assert recipe.seed == 9
    assert recipe.data.options["path"].name == "other.npz"
    first, second = recipe.stages
    assert (first.train.steps, first.train.batch, second.train.batch) == (5, 7, 7)
    assert first.losses[1].weight == 2.0
    assert second.set["quantizer.temperature"] == 0.25
    assert second.schedules[0].options == {"from": 0.5, "to": 0.75}
    assert second.schedules[1].options["to"] == 0.5


def test_a_whole_table_can_be_given() -> None:
    assert [loss.name for loss in changed("stage.first.losses={ toy = 3 }").stages[0].losses] == ["toy"]


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("quantizer.codebook_sise=4", 'quantizer "toy" has no option `codebook_sise`', "did you mean `codebook_size`?"),
        ("quantizr.codebook_size=4", "there is no part called `[quantizr]`", "did you mean `quantizer`?"),
        ("quantizer.kind=tou", 'there is no quantizer called "tou"', "did you mean `toy`?"),
        ("encoder.strides=[0]", 'encoder "toy": `strides[0]` should be greater than 0', "got 0"),
        ("stage.frist.steps=4", "there is no stage called `frist`", "did you mean `first`?"),
        ("stage.steps=4", "an override of a stage needs its name", "stage.NAME.KEY=VALUE"),
        ("stage=4", "an override of a stage needs its name", "`first` and `second`"),
        ("stage.first.stepps=4", "stage `first` has no key `stepps`", "did you mean `steps`?"),
        ("seed.deep.er=1", "`seed` is not a table, so it has no `er`", None),
        ("stage.second.set.quantizer.tempo=1", "there is no knob called `quantizer.tempo`", "quantizer.temperature"),
        ("stage.first.losses.toyy=1", "there is no loss called `toyy`", "did you mean `toy`?"),
        ("stage.first.losses={ toy = 1, toyy = 1 }", "there is no loss called `toyy`", "did you mean `toy`?"),
        ("nothing", "`nothing` is not an override", "KEY=VALUE"),
        ("channel.kind=nope", 'there is no channel called "nope"', None),
    ],
)
def test_errors_point_at_the_override(override: str, message: str, hint: str | None) -> None:
    with pytest.raises(VqtoolError) as caught:
        changed(override)
    (error,) = [e for e in caught.value.all() if message in e.message]
    assert error.where == f"-s {override}"
    assert hint is None or hint in str(error.hint)


def test_the_last_of_two_counts() -> None:
    assert changed("seed=1", "seed=2").seed == 2


def test_a_checkpoint_s_recipe_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    stored = parse_recipe(GOOD, path=path)
    recipe = from_resolved(stored.resolved(), text=GOOD)
    assert apply_to_resolved(recipe, []) is recipe
    same = apply_to_resolved(recipe, ["seed=3"])
    assert same.resolved() == recipe.resolved()  # nothing else moves: not None, not tuples, not paths
    other = apply_to_resolved(recipe, ["quantizer.temperature=0.5", "stage.second.epochs=9"])
    assert other.parts["quantizer"].options["temperature"] == 0.5
    assert other.stages[1].train.epochs == 9
    with pytest.raises(VqtoolError, match="has no option `tmp`"):
        apply_to_resolved(recipe, ["quantizer.tmp=0.5"])


def test_a_path_of_the_command_line_is_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one of the recipe to the recipe, wherever the command runs."""
    (tmp_path / "recipes").mkdir()
    recipe = write_recipe(tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    assert load(recipe).data.options["path"] == tmp_path / "recipes" / "signals.npz"
    typed = load(recipe, ["data.path=signals.npz"])
    assert typed.data.options["path"] == tmp_path / "signals.npz"
    again = apply_to_resolved(load(recipe), ["data.path=other.npz"])
    assert again.data.options["path"] == tmp_path / "other.npz"
    assert apply_to_resolved(load(recipe), ["seed=1"]).data.options["path"] == tmp_path / "recipes" / "signals.npz"
