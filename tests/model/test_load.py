"""Only what the wanted task needs is built, and a run that can do it is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_resume import session
from tests.training.tiny import PRIOR, write_recipe
from vqtool.api import Encodes, Forecasts, Generates, Transmits
from vqtool.errors import VqtoolError
from vqtool.model import format as names
from vqtool.model.codes import codes_metadata
from vqtool.model.load import capable, from_checkpoint, needed_for
from vqtool.model.runs import pretrained
from vqtool.recipe import load

ROOT = Path(__file__).parents[2]
AGAIN = """
[[stage]]
name = "again"
task = "autoencode"
steps = 2
losses = { mse = 1.0, commitment = 0.25 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    recipe = write_recipe(folder, more=PRIOR + AGAIN)
    made = session(recipe, folder / "run", ["stage.tokenizer.steps=2", "stage.prior.steps=2"])
    assert made.train() == 0
    return folder / "run"


def pretrained_named(name: str) -> Path:
    """The weights of a model that comes along."""
    return next(one.weights for one in pretrained() if one.name == name)


def test_without_a_run_each_verb_finds_the_model_that_can_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert capable(None, Encodes, "encode")[0].path == pretrained_named("codec")
    assert capable(None, Forecasts, "forecast")[0].path == pretrained_named("forecaster")


def test_a_forecast_of_the_direct_stage_needs_no_prior() -> None:
    recipe = load(ROOT / "recipes" / "forecast.toml")
    stages, parts = needed_for("direct", {stage.name: stage.task.kind for stage in recipe.stages})
    assert stages == {"tokenizer", "direct"}
    assert "prior" not in parts
    assert {"quantizer", "regressor"} <= parts


def test_only_what_the_wanted_task_needs_is_built_and_restored(run: Path) -> None:
    whole, _ = from_checkpoint(run / "again.safetensors")
    assert "prior" in whole.parts
    model, _ = capable(run, Encodes, "encode")
    assert "prior" not in model.parts
    state = whole.parts.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.parts.state_dict().items())
    assert codes_metadata(model) == codes_metadata(whole)
    model, _ = capable(run, Generates, "generate")
    assert "prior" in model.parts
    assert model.generate(1).shape == (1, 1, 32)


def test_the_newest_run_that_can(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    (tmp_path / "runs" / "damaged").mkdir(parents=True)
    (tmp_path / "runs" / "damaged" / "resolved.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").symlink_to(run)
    assert capable(None, Encodes, "encode")[0].path == pretrained_named("codec")  # a link is not a run of this folder
    (tmp_path / "runs" / "mine").unlink()
    run.rename(tmp_path / "runs" / "mine")
    try:
        assert capable(None, Encodes, "encode")[0].path == Path("runs/mine/again.safetensors")
        assert capable(None, Forecasts, "forecast")[0].path == pretrained_named("forecaster")
        with pytest.raises(VqtoolError, match="no run under `runs/` can transmit"):
            capable(None, Transmits, "transmit")
    finally:
        (tmp_path / "runs" / "mine").rename(run)
    output = capsys.readouterr().err
    assert "skipping runs/damaged" in output
    assert "taking the newest run that can encode: runs/mine/again.safetensors" in output


def test_older_formats_are_migrated_and_newer_ones_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a format 2 in which the stage is called something else."""
    monkeypatch.setattr(names, "FORMAT", 2)
    monkeypatch.setattr(names, "MIGRATIONS", {1: lambda texts: {**texts, "stage": f"new-{texts['stage']}"}})
    assert names.read_header(run / "again.safetensors").metadata["stage"] == "new-again"
    monkeypatch.setattr(names, "FORMAT", 0)
    with pytest.raises(VqtoolError, match=r"has the format vqtool/1; this vqtool reads up to vqtool/0"):
        names.read_header(run / "again.safetensors")
