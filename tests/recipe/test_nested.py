"""Quantizers of quantizers in a recipe: `of = { kind = "vq", ... }`, checked to the line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.test_resume import session
from tests.training.tiny import TOKENIZER, write_recipe
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError, Where
from vqtool.quantizers import FSQ, VQ, Grouped, Residual
from vqtool.recipe import from_resolved, load, parse
from vqtool.recipe.schema import recipe_schema


def recipe_with(quantizer: str, losses: str = "mse = 1.0, commitment = 0.25") -> str:
    text = TOKENIZER.format(seed=0).replace("mse = 1.0, commitment = 0.25", losses)
    start, end = text.index("[quantizer]"), text.index("[decoder]")
    return text[:start] + f"[quantizer]\n{quantizer}\n\n" + text[end:]


NESTED = """kind = "residual"
levels = 3
of = { kind = "vq", codebook_size = 8, gradient = { kind = "rotation", largest_gain = 1.5 } }"""


def built(text: str, dim: int = 8):
    part = parse(text).parts["quantizer"]
    return catalog().make("quantizer", part.kind, part.options, dim)


def test_a_residual_of_rotation() -> None:
    quantizer = built(recipe_with(NESTED))
    assert isinstance(quantizer, Residual)
    assert quantizer.codebook_sizes == (8, 8, 8)
    assert isinstance(quantizer.levels[0], VQ)
    assert quantizer.estimator.largest_gain == 1.5
    assert not quantizer.straight_through


def test_lists_kinds_alone_and_defaults() -> None:
    quantizer = built(recipe_with('kind = "residual"\nof = ["ema", { kind = "grouped", of = "fsq" }]', "mse = 1.0"))
    assert quantizer.codebook_sizes == (512, 1000, 1000)
    assert quantizer.codebook_names == ("level0", "level1.group0", "level1.group1")
    assert isinstance(quantizer.levels[1], Grouped)
    assert isinstance(quantizer.levels[1].groups[0], FSQ)
    assert built(recipe_with('kind = "routed"')).codebook_sizes == (16, 64, 256)
    assert built(recipe_with('kind = "residual"')).codebook_sizes == (512,) * 4


@pytest.mark.parametrize(
    ("quantizer", "message", "line", "column"),
    [
        ('kind = "residual"\nof = { kind = "vq", codebook_sise = 8 }', "codebook_sise", 2, 21),
        ('kind = "residual"\nof = { kind = "vq", decay = 1.5 }', "decay", 2, 21),
        ('kind = "residual"\nof = { kind = "vqq" }', "vqq", 2, 8),
        ('kind = "residual"\nof = { codebook_size = 8 }', "needs a `kind`", 2, 1),
        ('kind = "residual"\nof = [{ kind = "vq" }, { kind = "fsq", levels = 3 }]', "levels", 2, 40),
        ('kind = "residual"\nof = 3', "of", 2, 1),
        ('kind = "vq"\ngradient = { kind = "rotation", largest_gain = -1.0 }', "largest_gain", 2, 33),
        ('kind = "residual"\nof = { kind = "grouped", of = { kind = "lfq", bits = 99 } }', "bits", 2, 47),
    ],
)
def test_an_error_inside_is_shown_where_it_is(quantizer: str, message: str, line: int, column: int) -> None:
    text = recipe_with(quantizer)
    with pytest.raises(VqtoolError) as caught:
        parse(text)
    (error,) = caught.value.all()
    assert message in error.message
    assert isinstance(error.where, Where)
    first = text[: text.index("[quantizer]")].count("\n") + 2
    assert (error.where.line - first + 1, error.where.column) == (line, column)


def test_losses_and_knobs_are_those_of_what_is_inside() -> None:
    lfq = 'kind = "grouped"\nof = { kind = "lfq", bits = 3 }'
    parse(recipe_with(lfq, "mse = 1.0, diversity = 0.1"))
    soft = recipe_with('kind = "residual"\nof = { kind = "soft" }', "mse = 1.0, consistency = 0.1")
    parse(soft + 'schedule."quantizer.temperature" = { kind = "linear", from = 1.0, to = 0.1 }\n')
    with pytest.raises(VqtoolError, match="diversity"):
        parse(recipe_with('kind = "grouped"\nof = { kind = "vq" }', "mse = 1.0, diversity = 0.1"))
    with pytest.raises(VqtoolError, match="temperature"):
        parse(recipe_with(NESTED) + 'set = { "quantizer.temperature" = 1.0 }\n')


def test_it_is_rebuilt_from_what_a_checkpoint_keeps() -> None:
    recipe = parse(recipe_with(NESTED))
    kept = json.loads(json.dumps(recipe.resolved()))
    again = from_resolved(kept, text=recipe.text)
    part = again.parts["quantizer"]
    quantizer = catalog().make("quantizer", part.kind, part.options, 8)
    assert quantizer.estimator.largest_gain == 1.5
    assert quantizer.codebook_sizes == (8, 8, 8)


def test_an_override_reaches_inside(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(recipe_with(NESTED))
    recipe = load(path, ["quantizer.of.codebook_size=4", "quantizer.levels=2"])
    assert catalog().make("quantizer", "residual", recipe.parts["quantizer"].options, 8).codebook_sizes == (4, 4)


def test_the_schema_knows_what_may_be_inside() -> None:
    schema = recipe_schema()
    branch = next(
        b["then"] for b in schema["definitions"]["quantizer"]["allOf"]
        if b["if"]["properties"]["kind"]["const"] == "residual"
    )  # fmt: skip
    assert {"$ref": "#/definitions/quantizer"} in branch["properties"]["of"]["anyOf"]
    assert "estimator" in schema["definitions"]


def test_it_trains_and_its_knobs_move(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    quantizer = 'kind = "residual"\nlevels = 2\nof = { kind = "soft", codebook_size = 8 }'
    moved = 'schedule."quantizer.temperature" = { kind = "linear", from = 1.0, to = 0.1 }\n'
    recipe.write_text(recipe_with(quantizer) + moved)
    made = session(recipe, tmp_path / "run", ["stage.tokenizer.steps=6"])
    assert made.train() == 0
    assert [level.temperature for level in made.model.parts.quantizer.levels] == pytest.approx([0.1, 0.1])
    scores = made.finish(seconds=0.0)["splits"]["test"]["model"]
    assert scores["codes.used"] > 0
