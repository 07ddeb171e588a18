"""A recipe's checks: every problem at once, each at its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recipe.text import GOOD
from vqtool.catalog import use_files
from vqtool.errors import VqtoolError, Where
from vqtool.model.runs import stage_names
from vqtool.recipe import LossSpec, PartSpec, ScheduleSpec, from_resolved, load, parse

pytestmark = pytest.mark.usefixtures("toy")


def errors(text: str, *overrides: str) -> list[VqtoolError]:
    """Everything that is wrong with a recipe."""
    with pytest.raises(VqtoolError) as caught:
        parse(text, overrides=overrides)
    return caught.value.all()


def spoilt(old: str, new: str, text: str = GOOD) -> VqtoolError:
    """The one thing that is wrong after one change."""
    assert old in text
    (error,) = errors(text.replace(old, new, 1))
    return error


def test_a_sound_recipe(tmp_path: Path) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    recipe = load(path)
    assert (recipe.title, recipe.seed, recipe.deterministic, recipe.text) == ("toys", 3, False, GOOD)
    assert recipe.data == PartSpec("data", "toy", {"path": tmp_path / "waves.npy", "share": 0.5})
    assert recipe.parts["encoder"].options["strides"] == (4, 4)
    assert recipe.parts["quantizer"].options == {"codebook_size": 16, "temperature": 1.0}
    assert recipe.evaluate.metrics == ("toy",)
    first, second = recipe.stages
    assert (first.name, first.train.steps, first.train.epochs, first.train.lr) == ("first", 100, None, 2e-3)
    assert (second.train.steps, second.train.epochs) == (None, 2)  # its own `epochs` replaces the `steps` of [train]
    assert first.losses == (LossSpec("toy", 1.0, "toy", {"from": 0}), LossSpec("commitment", 0.25, None, {}))
    assert second.losses == (LossSpec("toy", 2.0, "toy", {"from": 3}),)
    assert second.task.options == {"mask": 0.5}
    assert second.set == {"quantizer.temperature": 0.7, "quantizer.hard": True}
    assert second.schedules[0] == ScheduleSpec("task.own_tokens", "toy", {"from": 0.0, "to": 1.0})
    assert second.schedules[1].target == "lr"


def test_a_resolved_recipe_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    recipe = load(path)
    stored = json.loads(json.dumps(recipe.resolved(tmp_path)))
    assert stored["data"]["options"]["path"] == {"$path": "waves.npy"}
    assert from_resolved(stored, text=GOOD, beside=tmp_path) == recipe
    moved = from_resolved(stored, text=GOOD, folder=Path("/elsewhere"))
    assert moved.data.options["path"] == Path("/elsewhere/waves.npy")
    (tmp_path / "resolved.json").write_text(json.dumps(stored))
    assert stage_names(tmp_path) == ["first", "second"]
    assert stage_names(tmp_path / "nothing") == []


def test_later_defaults_do_not_change_an_old_recipe() -> None:
    stored = parse(GOOD).resolved()
    del stored["parts"]["quantizer"]["options"]["temperature"]  # as of a version that had no such option
    stored["stages"][0]["train"]["gone"] = 1
    old = from_resolved(stored, text=GOOD)
    assert old.parts["quantizer"].options == {"codebook_size": 16}
    assert old.stages[0].train.steps == 100


@pytest.mark.parametrize(
    ("old", "new", "message", "hint", "line"),
    [
        ("[encoder]", "[encodr]", "there is no part called `[encodr]`", "did you mean `encoder`?", 8),
        ("[encoder]", "[loss]", "a recipe has no table `[loss]`", "losses belong to a [[stage]]", 8),
        ("seed = 3", "sed = 3", "a recipe has no key `sed`", "did you mean `seed`?", 2),
        ("seed = 3", "steps = 3", "`steps` belongs in `[train]` or a `[[stage]]`", None, 2),
        ("seed = 3", "seed = -3", "the recipe: `seed` should be greater than or equal to 0", "got -3", 2),
        ("seed = 3", "prior = 3", "`prior` should be a table", '[prior] with kind = "..."', 2),
        (
            'kind = "toy"\nstrides',
            'kind = "tpy"\nstrides',
            'there is no encoder called "tpy"',
            "did you mean `toy`?",
            9,
        ),
        ('kind = "toy"\nstrides', "kind = 1\nstrides", "`kind` should be a string that names the encoder", None, 9),
        ('kind = "toy"\nstrides', "strides", "`[encoder]` needs a `kind`", "one of", 8),
        ("strides = [4, 4]", "strides = [4, 0]", 'encoder "toy": `strides[1]` should be greater than 0', "got 0", 10),
        ("strides = [4, 4]", "stride = [4, 4]", 'encoder "toy" has no option `stride`', "did you mean `strides`?", 10),
        ("strides = [4, 4]", "copy = 1", 'encoder "toy": `copy` should be true or false', "got 1", 10),
        ("[encoder]", '["a.b_encoder"]', "the name of a part should be of letters", 'got "a.b_encoder"', 8),
        ('path = "waves.npy"', "", 'data "toy" needs the option `path`', "a file", 4),
        ("[decoder]", '[conditioner]\nkind = "toy"\n[decoder]', 'there is no conditioner called "toy"', None, 17),
        ("steps = 100", "stepps = 100\nsteps = 100", "`[train]` has no option `stepps`", "did you mean `steps`?", 20),
        ("steps = 100", "steps = 0", "`[train]`: `steps` should be greater than or equal to 1", "got 0", 20),
        ("steps = 100", "", "stage `first` does not say how long it is", "steps = 1000", 27),
        ("steps = 100", "steps = 1\nepochs = 2", "stage `first` has both `steps` and `epochs`", None, 21),
        ('metrics = ["toy"]', 'metrics = ["toi"]', 'there is no metric called "toi"', "did you mean `toy`?", 24),
        ('task = "toy"', 'task = "ty"', 'there is no task called "ty"', "did you mean `toy`?", 29),
        ('task = "toy"', "", "the stage needs a `task`", "one of", 27),
        ('name = "first"', 'name = "second"', "two stages are called `second`", 'name = "..."', 33),
        ('name = "first"', 'name = "best"', "a stage cannot be called `best`: a file of every run is", None, 28),
        ('name = "first"', 'name = "a/b"', "the name of a stage should be of letters", 'got "a/b"', 28),
        ('name = "first"', "nmae = 1", "stage `toy` has no key `nmae`", "did you mean `name`?", 28),
        ("toy = 1.0, commit", "tooy = 1.0, commit", "there is no loss called `tooy`", "did you mean `toy`?", 30),
        ("commitment = 0.25", "commitmen = 1", "there is no loss called `commitmen`", "did you mean `commitment`?", 30),
        (
            "commitment = 0.25",
            'commitment = "1"',
            "the weight of loss `commitment` should be a finite number",
            'got "1"',
            30,
        ),
        ("commitment = 0.25", "commitment = nan", "the weight of loss `commitment` should be a finite", "got NaN", 30),
        (
            "commitment = 0.25",
            "commitment = { weight = 1, a = 2 }",
            "`commitment` is a term of the quantizer and has no",
            None,
            30,
        ),
        ("from = 3", "form = 3", 'loss "toy" has no option `form`', "did you mean `from`?", 37),
        ("losses = { toy = 1.0, commitment = 0.25 }", "", "stage `first` has no losses", "losses = {", 27),
        ("losses = { toy = 1.0, commitment = 0.25 }", "losses = 3", "`losses` of a stage should be a table", None, 30),
        ("mask = 0.5", "mask = 1.5", 'task "toy": `mask` should be less than or equal to 1', "got 1.5", 36),
        (
            '"quantizer.hard"',
            '"quantizer.hart"',
            "there is no knob called `quantizer.hart`",
            "did you mean `quantizer.hard`?",
            38,
        ),
        ('"quantizer.hard" = true', '"quantizer.hard" = []', "`quantizer.hard` should be a number", "got []", 38),
        ("0.7", "-0.7", "quantizer.temperature: `temperature` should be greater than 0", "got -0.7", 38),
        ('"quantizer.hard"', "lr", "`lr` is not a knob to set", "lr = ...", 38),
        (
            '"quantizer.hard" = true',
            "quantizer.hard = true",
            "the dots of a knob's name belong in quotes: `quantizer.hard`",
            'set."quantizer.hard" = ...',
            38,
        ),
        (
            'schedule."task.own_tokens"',
            "schedule.task.own_tokens",
            "the dots of a knob's name belong in quotes: `task.own_tokens`",
            'schedule."task.own_tokens" = ...',
            39,
        ),
        ('"task.own_tokens"', '"losses.commitment"', "there is no knob called `losses.commitment`", None, 39),
        ('kind = "toy", from = 0.0', 'kind = "toy"', 'schedule "toy" needs the option `from`', "at first", 39),
        (
            'kind = "toy", from = 0.0',
            'kind = "lin", from = 0.0',
            'there is no schedule called "lin"',
            "did you mean `linear`?",
            39,
        ),
        ('{ kind = "toy", from = 0.0 }', "0.5", "`task.own_tokens` should be a table", None, 39),
        ('name = "second"', 'when = 2024-01-01\nname = "second"', "stage `second` has no key `when`", None, 33),
        ("lr = 2e-3", "lr = 2024-01-01", "`[train]`: `lr` is a date", "write it as a string, in quotes", 21),
        ("lr = 2e-3", "lr = inf", "`[train]`: `lr` should be finite", "got Infinity", 21),
        ("lr = 2e-3", 'clip = "nil"', "`[train]`: `clip` should be a number", 'got "nil"', 21),
    ],
)
def test_one_mistake_is_one_error_at_its_line(old: str, new: str, message: str, hint: str | None, line: int) -> None:
    assert old in GOOD
    found = errors(GOOD.replace(old, new, 1))
    assert len(found) == 1, [e.message for e in found]
    assert message in found[0].message
    assert isinstance(found[0].where, Where)
    assert found[0].where.line == line
    assert hint is None or hint in str(found[0].hint)
    assert found[0].exit_code == 2


def test_carets_are_at_inline_keys() -> None:
    where = spoilt("from = 3", "form = 3").where
    assert isinstance(where, Where)
    assert where.text[where.column - 1 : where.column - 1 + where.width] == "form"


def test_an_unused_part_is_an_error() -> None:
    found = errors(GOOD.replace("[train]", '[prior]\nkind = "gpt"\n[train]'))
    assert [e.message for e in found] == ["`[prior]` is never used"]
    assert "`decoder`, `encoder` and `quantizer`" in str(found[0].hint)


def test_a_second_part_of_a_role_has_a_longer_name() -> None:
    found = errors(GOOD.replace("[train]", '[other_encoder]\nkind = "toy"\n[train]'))
    assert [e.message for e in found] == [
        "`[other_encoder]` is never used"
    ]  # its role is known, and only its use is not
    found = errors(GOOD.replace("[train]", '[other_encoder]\nkind = "nope"\n[train]'))
    assert 'there is no encoder called "nope"' in [e.message for e in found]


def test_a_loss_called_as_a_term_is_a_clash() -> None:
    text = GOOD.replace('[quantizer]\nkind = "toy"\ncodebook_size = 16', '[quantizer]\nkind = "toy-two"')
    assert any("`toy` is a loss and also a term of this quantizer" in e.message for e in errors(text))


def test_what_depends_on_a_broken_part_is_not_blamed() -> None:
    found = errors(GOOD.replace('[quantizer]\nkind = "toy"', '[quantizer]\nkind = "nope"'))
    assert [e.message for e in found] == ['there is no quantizer called "nope"']  # not its terms, knobs, or its use


def test_recipes_without_data_or_stages() -> None:
    assert {e.message for e in errors("")} == {"the recipe has no `[data]`", "the recipe has no `[[stage]]`"}
    found = errors('[data]\nkind = "toy"\npath = "x"\n[stage]\ntask = "toy"\n')
    assert [(e.message, e.hint) for e in found] == [("`stage` should be a list of tables", "two brackets: [[stage]]")]
    found = errors("data = 1\nstage = [1]\ntrain = 2\nevaluate = []")
    results = [
        "`data` should be a table",
        "a stage should be a table",
        "`train` should be a table",
        "`evaluate` should be a table",
    ]
    assert [e.message for e in found] == results


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a = \n", "not valid TOML", 1),
        ("title = 'x'\nkind = fsq\n", "not valid TOML: invalid value", 2),
        ("[data]\n[data]\n", "the table `[data]` is there twice", 2),
        ("a = 1\na = 2\n", "not valid TOML: cannot overwrite a value", 2),
        ("[data", "not valid TOML", 1),
        ("\n\na = [1,\n", "not valid TOML", 3),
    ],
)
def test_bad_toml_is_one_error_with_its_line(text: str, message: str, line: int) -> None:
    (error,) = errors(text)
    assert message in error.message
    assert isinstance(error.where, Where)
    assert error.where.line in (line, line + 1)


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="there is no recipe"):
        load(tmp_path / "none.toml")
    (tmp_path / "r.toml").write_text(GOOD)
    with pytest.raises(VqtoolError) as caught:
        load(tmp_path / "r")
    assert "r.toml" in str(caught.value.hint)
    (tmp_path / "binary").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(VqtoolError, match="is not text: byte 1"):
        load(tmp_path / "binary")
    with pytest.raises(VqtoolError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(tmp_path / "bom.toml").title == "toys"


MISTAKES = {
    "seed = 3": ("seed = -1", "`seed`"),
    "strides = [4, 4]": ("strides = [4, -4]", "`strides[1]`"),
    "codebook_size = 16": ("codebook_sise = 16", "`codebook_sise`"),
    "lr = 2e-3": ("lr = 0", "`lr`"),
    'baselines = ["toy"]': ('baselines = ["too"]', '"too"'),
    "commitment = 0.25": ("comitment = 0.25", "`comitment`"),
    "mask = 0.5": ("mask = 7", "`mask`"),
    "0.7": ("-1", "quantizer.temperature"),
    "to = 1e-4": ("too = 1e-4", "`too`"),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_all_mistakes_are_reported_at_once_and_in_order(chosen: set[str]) -> None:
    text = GOOD
    for old in chosen:
        text = text.replace(old, MISTAKES[old][0], 1)
    found = errors(text)
    assert len(found) == len(chosen)
    for old in chosen:
        assert any(MISTAKES[old][1] in e.message for e in found)
    places = [(e.where.line, e.where.column) for e in found if isinstance(e.where, Where)]
    assert places == sorted(places)
    assert len(places) == len(found)
    for e in found:
        assert isinstance(e.where, Where)
        assert text.split("\n")[e.where.line - 1] == e.where.text


KEYS = st.sampled_from(["kind", "strides", "seed", "losses", "task", "steps", "name", "x", "quantizer.temperature"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([0, -1, 1.5, True, "toy", "", "nan"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)
TABLE_NAMES = st.sampled_from(["data", "encoder", "quantizer", "train", "evaluate", "stage", "loss", "seed", "odd"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    st.dictionaries(TABLE_NAMES, VALUES, max_size=5), st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=2)
)
def test_no_recipe_is_bad_enough_for_a_traceback(tables: dict[str, Any], stages: list[Any]) -> None:
    from vqtool.recipe.options import toml_value

    tables = {name: value for name, value in tables.items() if name != "stage" or not stages}
    lines = [f"{name} = {json_toml(value)}" for name, value in tables.items()]
    for stage in stages:
        lines += ["[[stage]]", *(f'"{key}" = {json_toml(value)}' for key, value in stage.items())]
    for error in errors("\n".join(lines)):
        assert error.message
        assert toml_value(error.message)


def json_toml(value: Any) -> str:
    """A value as TOML, uncut."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {json_toml(item)}' for key, item in value.items()) + "}"
    return f"[{', '.join(map(json_toml, value))}]" if isinstance(value, list) else json.dumps(value)


def test_a_part_whose_options_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    """A fault of the part is reported once, and not again for each knob that a stage sets."""
    file = tmp_path / "odd.py"
    file.write_text(
        "from vqtool.api import Quantizer\n\n"
        "class Odd(Quantizer):\n"
        "    terms, knobs = frozenset({'commitment'}), frozenset({'temperature', 'hard'})\n"
        "    def __init__(self, dim, *, size=3): ...\n"
    )
    use_files([file])
    error = spoilt('kind = "toy"\ncodebook_size = 16', 'kind = "odd"\nsize = 4')
    assert "`Odd` is broken: its option `size` has no type" in error.message
    assert error.exit_code == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("title = " + "[" * 20_000 + "]" * 20_000, "nested deeper"),
        ("title = " + "{a=" * 500 + "1" + "}" * 500, "nested deeper"),
        ("seed = " + "7" * 5000, "64 bits"),
        ("seed = 0x" + "f" * 5000, "64 bits"),
        (".".join("a" * 20_000) + " = 1", "more than 100 parts"),
    ],
)
def test_bombs_in_a_recipe_are_one_error(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bomb.toml").write_text(line)
    with pytest.raises(VqtoolError, match=f"not a recipe: .*{message}") as caught:
        load(tmp_path / "bomb.toml")
    assert caught.value.where == str(tmp_path / "bomb.toml")
    assert caught.value.exit_code == 2
    (tmp_path / "bomb.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(VqtoolError, match="too many for a recipe"):
        load(tmp_path / "bomb.toml")
