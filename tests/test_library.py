"""The public face: `vqtool.load`, `vqtool.diagnose`, `vqtool.verify`, and that importing it is light."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import vqtool
from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.quantizers import VQ, Residual


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    made = session(write_recipe(folder), folder / "run", ["stage.tokenizer.steps=4"])
    assert made.train() == 0
    return folder / "run"


def test_load_gives_the_trained_parts(run: Path) -> None:
    model = vqtool.load(run)
    assert model.parts.quantizer.codebook_sizes == (8, 8)
    assert model.parts.quantizer.initialised
    again = vqtool.load(str(run / "tokenizer.safetensors"))
    assert torch.equal(again.parts.quantizer.vectors()[0], model.parts.quantizer.vectors()[0])


def test_diagnose_gives_a_report(run: Path) -> None:
    report = vqtool.diagnose(run)
    assert [book.name for book in report.codebooks] == ["level0", "level1"]
    assert report.findings


def test_diagnose_takes_a_loaded_model(run: Path) -> None:
    assert str(vqtool.diagnose(vqtool.load(run))) == str(vqtool.diagnose(run))


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("options", [{}, {"metric": "cosine"}, {"revive_below": 0.0}], ids=str)
def test_laws_do_not_depend_on_how_many_features_there_are(dim: int, options: dict) -> None:
    report = vqtool.verify(vqtool.quantizers.VQ, dim, laws=["revival-holds", "gradient-bounded"], **options)
    broken = {one.law.id for one in report if one.verdict.status == "broken"}
    assert broken == set()


def test_a_path_that_is_not_there_is_one_error() -> None:
    for call in (vqtool.load, vqtool.diagnose):
        with pytest.raises(vqtool.VqtoolError, match=r"there is no checkpoint or run `nothing"):
            call("nothing/here")


def test_verify_judges_ours_and_any_module() -> None:
    outcomes = vqtool.verify(partial(Residual, levels=2, of=partial(VQ, codebook_size=16)))
    assert {o.verdict.status for o in outcomes} <= {"kept", "n/a"}

    class Broken(VQ):
        def forward(self, z, mask=None):
            return super().forward(z * 2, mask)

    assert "broken" in {o.verdict.status for o in vqtool.verify(Broken, codebook_size=16)}

    class Foreign(torch.nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.codebook = torch.nn.Parameter(torch.randn(16, dim))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            codes = torch.cdist(x, self.codebook).argmin(-1)
            q = self.codebook[codes]
            return x + (q - x).detach(), codes, (q.detach() - x).square().mean() + (q - x.detach()).square().mean()

    assert {o.law.id: o.verdict.status for o in vqtool.verify(Foreign)}["straight-through-gain"] == "kept"


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pydantic", "pluggy")
    code = f"import vqtool, sys; dir(vqtool); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_that_it_promises_is_there() -> None:
    for name in vqtool.__all__:
        assert getattr(vqtool, name) is not None
    with pytest.raises(AttributeError):
        _ = vqtool.nothing
