"""`vqtool improve`: dead codes come to life, the error does not grow, and nothing is overwritten unasked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.diagnosis import unhealthy
from vqtool.catalog import catalog
from vqtool.commands import improve
from vqtool.console import out
from vqtool.diagnosis.reading import report_of
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.quantizers.core.kmeans import kmeans
from vqtool.training.dead_codes import duplicates, reinitialise_dead_codes

Made = Callable[[str], Path]
HALF_OF_256 = replace(
    unhealthy.CASES["half-dead"],
    name="half-of-256",
    quantizer='kind = "ema"\ncodebook_size = 256\nrevive_below = 0.0\ndecay = 0.9\n',
    data=lambda rng: unhealthy.waves(rng, windows=3000),
    steps=40,
)

FIXED = {
    "fsq": {}, "lfq": {"bits": 4}, "gumbel": {"codebook_size": 8}, "product-gumbel": {"codebook_size": 8},
    "simvq": {"codebook_size": 8}, "random-projection": {"codebook_size": 8, "code_dim": 4},
}  # fmt: skip
OF = {"of": {"kind": "vq", "codebook_size": 16}}
SIZES = {
    "mixture-ema": {"codebook_sizes": (16, 16)}, "residual": OF, "grouped": OF, "waterfill": OF,
    "routed": {"of": [OF["of"]] * 2}, "routed-modes": {"of": [OF["of"]] * 2},
}  # fmt: skip
MOVABLE = sorted(set(catalog().names("quantizer")) - set(FIXED))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Runs by the name of their case."""
    cases = {**unhealthy.CASES, HALF_OF_256.name: HALF_OF_256}
    return lambda name: unhealthy.once(cases[name], tmp_path_factory)


def improved(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """What `vqtool improve --json` says."""
    results: list[dict[str, Any]] = []
    monkeypatch.setattr(out, "document", results.append)
    given = {"data": None, "merge": False, "steps": 20, "out_file": None, "device": "cpu"} | options
    assert improve.run(checkpoint=checkpoint, **given) == 0
    return results[0]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_half_of_256_codes_come_to_life(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure to reach: at least 95 % used on validation rows, and the reconstruction no worse."""
    result = improved(made("half-of-256"), monkeypatch, out_file=tmp_path / "new.safetensors")
    before, after = result["before"], result["after"]
    assert before["codes.used"] <= 0.5
    assert result["codebooks"][0]["revived"] >= 128
    assert after["codes.used"] >= 0.95
    assert after["codes.perplexity"] > 1.5 * before["codes.perplexity"]
    assert after["mse"] < 0.8 * before["mse"]
    assert after["error.mean"] < before["error.mean"]


def test_without_training_k_means_alone_helps(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = improved(made("half-of-256"), monkeypatch, out_file=tmp_path / "new.safetensors", steps=0)
    assert result["steps"] == 0
    assert result["after"]["codes.used"] >= 0.95
    assert result["after"]["mse"] < result["before"]["mse"]


def test_the_dead_level_of_a_residual_codec(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = improved(made("level-3-of-4-dead"), monkeypatch, out_file=tmp_path / "new.safetensors")
    revived = [book["revived"] for book in result["codebooks"]]
    assert revived[:2] == [0, 0]
    assert revived[2] == 15
    assert result["after"]["codes.used"] == 1
    assert result["after"]["mse"] < 0.6 * result["before"]["mse"]


def test_what_is_written_is_a_checkpoint_with_these_figures(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluated again from the file; the run's own file stays bit for bit."""
    run = tmp_path / "run"
    shutil.copytree(made("half-dead"), run)
    shutil.copy(made("half-dead").parent / "signals.npz", tmp_path)
    source = run / "tokenizer.safetensors"
    before = digest(source)
    result = improved(run, monkeypatch, steps=50)
    assert 0 < result["steps"] < 50  # the best, not the last
    assert digest(source) == before
    target = run / "tokenizer-improved.safetensors"
    assert result["out"] == str(target)
    assert checkpoint.load(target).metadata["metrics"]["best"] == pytest.approx(result["after"]["loss"])
    again = improved(target, monkeypatch, steps=0, out_file=tmp_path / "again.safetensors")
    assert again["before"] == pytest.approx(result["after"])
    assert again["codebooks"][0]["revived"] == 0
    with pytest.raises(VqtoolError, match="exists already"):
        improved(run, monkeypatch)
    with pytest.raises(VqtoolError, match="is an input as well"):
        improved(source, monkeypatch, steps=0, out_file=source, force=True)
    improved(source, monkeypatch, steps=0, out_file=target, force=True)  # asked for
    assert digest(source) == before


def test_what_is_well_is_left_alone(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = improved(made("healthy-residual-ema"), monkeypatch, steps=0, out_file=tmp_path / "new.safetensors")
    assert {book["revived"] for book in result["codebooks"]} == {0}
    assert result["after"] == pytest.approx(result["before"])


def test_merging_frees_doubles(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new.safetensors"
    result = improved(made("duplicates"), monkeypatch, merge=True, steps=0, out_file=target)
    assert result["codebooks"][0]["merged"] >= 8
    assert result["after"]["mse"] < result["before"]["mse"]
    twins = [report_of(path).codebooks[0].measures["duplicates"]
             for path in (made("duplicates") / "tokenizer.safetensors", target)]  # fmt: skip
    assert twins[0] >= 10
    assert twins[1] <= 2


@pytest.mark.parametrize("kind", FIXED)
def test_quantizers_whose_codes_cannot_be_moved_one_by_one(kind: str) -> None:
    quantizer = catalog().make("quantizer", kind, FIXED[kind], 8)
    z = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0))
    quantizer.initialise(z)
    with pytest.raises(VqtoolError, match="no codes that could be moved") as caught:
        reinitialise_dead_codes(quantizer, z, None, merge=False, seed=0)
    assert caught.value.hint


@pytest.mark.parametrize("kind", MOVABLE)
def test_every_codebook_that_can_be_reinitialised_is(kind: str) -> None:
    """Half the codes of each codebook are sent away; afterwards inputs of all places choose all of them."""
    quantizer = catalog().make("quantizer", kind, SIZES.get(kind, {"codebook_size": 16}), 8).eval()
    z = torch.randn(8, 64, 8, generator=torch.Generator().manual_seed(0))
    quantizer.initialise(z)
    for book in (m for m in quantizer.modules() if hasattr(m, "set")):
        codes = book.codes.detach().clone()
        codes[::2] = 1e4 if kind != "cosine" else codes[1]
        book.set(codes)
    first = quantizer(z)
    result = reinitialise_dead_codes(quantizer, z, None, merge=False, seed=0)
    after = quantizer(z)
    assert all(one.dead >= 7 for one in result[:1])
    for book, inputs in quantizer.codebooks_with_inputs(z.flatten(0, 1)):
        assert len(book.search(inputs).unique()) == 16
    assert (after.hard - z).square().mean() < 0.95 * (first.hard - z).square().mean() or kind == "cosine"
    assert quantizer.initialised


def test_a_stage_that_reads_the_codes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training.tiny import write_recipe

    run = unhealthy.train(write_recipe(tmp_path, prior=True), tmp_path / "run", ["stage.tokenizer.steps=4"])
    with pytest.raises(VqtoolError, match="knows the codes as they are") as caught:
        improved(run / "prior.safetensors", monkeypatch)
    assert "tokenizer.safetensors" in str(caught.value.hint)
    assert improved(run, monkeypatch, steps=1)["stage"] == "tokenizer"  # of a run, the right one is taken


def test_of_doubles_the_most_used_stays() -> None:
    far = torch.eye(8)
    codes = torch.cat([far, far[:2] + 1e-3, far[:1] - 1e-3, far[5:6]])
    counts = torch.tensor([3, 5, 5, 5, 5, 5, 5, 5, 9, 5, 4, 0])
    assert duplicates(codes, counts).nonzero().squeeze(1).tolist() == [0, 9, 10]  # beside 8, 1 and 8; 11 is not in use


def test_k_means_continues_from_given_centres() -> None:
    """Centres that are right already stay, and the others find the clusters that are left."""
    generator = torch.Generator().manual_seed(0)
    clusters = torch.eye(4) * 10
    points = clusters.repeat(50, 1) + 0.01 * torch.randn(200, 4, generator=generator)
    found = kmeans(points, 4, generator, first=clusters[:2])
    assert torch.cdist(clusters[:2], found[:2]).diagonal().max() < 0.1
    assert torch.cdist(clusters, found).amin(1).max() < 0.1
