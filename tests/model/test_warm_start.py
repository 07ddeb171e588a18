"""`train --from`: parts go on from another run's checkpoint, or the run is refused with one reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.tiny import write_recipe
from vqtool.commands import train
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.model.runs import rows_of


def trained(recipe: Path, out: Path, *overrides: str, start: Path | None = None, stage: str | None = None,
            only: bool = False) -> Path:  # fmt: skip
    """A run of a recipe, perhaps from another."""
    code = train.run(recipe=recipe, overrides=list(overrides), out_dir=out, seed=None, device="cpu", stage=stage,
                     only=only, start=start)  # fmt: skip
    assert code == 0
    return out


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A run with a tokenizer alone."""
    return trained(write_recipe(tmp_path), tmp_path / "first")


def parts(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors of parts."""
    return {name: t for name, t in checkpoint.load(path).tensors.items() if name.startswith("parts.")}


def test_parts_of_the_same_role_and_shape_continue(tokenizer: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    recipe = write_recipe(tmp_path, prior=True, seed=5)
    learned = parts(tokenizer / "tokenizer.safetensors")
    capsys.readouterr()
    rest = "stage.tokenizer.lr=1e-12"
    run = trained(recipe, tmp_path / "second", "stage.tokenizer.steps=1", rest, start=tokenizer)
    assert f"from {tokenizer / 'tokenizer.safetensors'}: [encoder], [quantizer], [decoder]; new: [prior]" in (
        capsys.readouterr().err
    )
    went_on = parts(run / "tokenizer.safetensors")
    fresh = parts(trained(recipe, tmp_path / "fresh", "stage.tokenizer.steps=1", rest) / "tokenizer.safetensors")
    for name in ("parts.encoder.end.weight", "parts.decoder.start.weight"):
        torch.testing.assert_close(went_on[name], learned[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(fresh[name], learned[name], atol=1e-3)
    assert set(learned) < set(went_on)


def test_one_stage_alone_is_trained_on_the_parts_of_another_run(tokenizer: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, prior=True)
    run = trained(recipe, tmp_path / "second", start=tokenizer, stage="prior", only=True)
    assert not (run / "tokenizer.safetensors").exists()
    learned, now = parts(tokenizer / "tokenizer.safetensors"), parts(run / "prior.safetensors")
    assert all(torch.equal(now[name], value) for name, value in learned.items())
    assert {row["stage"] for row in rows_of(run / "metrics.jsonl")} == {"prior"}
    with pytest.raises(VqtoolError, match="`--stage` and `--from` name them"):
        trained(recipe, tmp_path / "third", stage="prior", only=True)


def test_a_run_that_could_not_begin_leaves_no_folder(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(VqtoolError):
        trained(write_recipe(tmp_path), tmp_path / "refused", "encoder.dim=4", start=tokenizer)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.dim=4", r"\[encoder\] `\S+` is 8\S* there and 4\S* here; \[quantizer\] .*; \[decoder\]"),
        ("quantizer.levels=3", r"\[quantizer\] `\S+` is absent there and \S+ here"),
    ],
)
def test_a_part_of_other_shapes_is_one_error(tokenizer: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        trained(write_recipe(tmp_path), tmp_path / "second", override, start=tokenizer)
    assert not list((tmp_path / "second").glob("*.safetensors"))


def test_another_kind_is_refused_even_where_shapes_agree(tokenizer: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace('kind = "residual-ema"\nlevels = 2', 'kind = "ema"'))
    with pytest.raises(VqtoolError, match=r"\[quantizer\] is `residual-ema` there and `ema` here"):
        trained(recipe, tmp_path / "second", start=tokenizer)


def test_a_file_that_is_not_of_a_run(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "codes.safetensors", {"codes": torch.zeros(3)}, {"kind": "codes"})
    with pytest.raises(VqtoolError, match="has no part of this recipe: it holds none"):
        trained(write_recipe(tmp_path), tmp_path / "run", start=tmp_path / "codes.safetensors")
    with pytest.raises(VqtoolError, match="there is no checkpoint or run"):
        trained(write_recipe(tmp_path), tmp_path / "other", start=tmp_path / "none")
