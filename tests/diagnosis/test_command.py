"""`vqtool diagnose` as a user runs it: words, JSON, exit codes, what is loaded, and what old checkpoints show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.cli.run import vqtool
from tests.diagnosis.conftest import Trained
from tests.test_startup import command, loaded_after
from vqtool.commands import diagnose
from vqtool.console import out
from vqtool.diagnosis.reading import read, report_of
from vqtool.diagnosis.terminal import histogram
from vqtool.diagnosis.view import use_of
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint

PLUGIN = '''
"""A plugin that finds every codebook too small."""
from vqtool.catalog import hookimpl
from vqtool.diagnosis.report import Finding

@hookimpl
def vqtool_diagnose(report):
    yield Finding("small", "fail", float(report.codebooks[0].size), 1e6, "a plugin", "the codebook is small")
'''


class Diagnose:
    """The command's body in this process: `words` and `document` are what it prints, `code` its last exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.code = 0

    def words(self, run: Path, mode: str = "human", **options: Any) -> str:
        plain = {"data": None, "split": None, "report": None, "plot": None, "tsne": False, "strict": False}
        self.monkeypatch.setattr(out, "mode", mode)
        self.capsys.readouterr()
        self.code = diagnose.run(checkpoint=run, **{**plain, "device": "cpu", **options})
        return self.capsys.readouterr().out

    def document(self, run: Path, **options: Any) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.words(run, "json", **options))
        return value


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Diagnose:
    return Diagnose(capsys, monkeypatch)


def test_json_says_what_scripts_rely_on(trained: Trained, here: Diagnose) -> None:
    run = trained("level-3-of-4-dead")
    result = here.document(run)
    assert result["healthy"] is False
    assert result["counted"] == "split valid"
    assert result["tokens"] == 640
    assert [b["name"] for b in result["codebooks"]] == ["level0", "level1", "level2", "level3"]
    book = result["codebooks"][2]
    assert (book["size"], book["used"], book["dead"], book["perplexity"], book["entropy_bits"]) == (16, 1, 15, 1.0, 0.0)
    bad = [f for f in result["findings"] if f["severity"] in ("warn", "fail")]
    assert [f["id"] for f in bad] == ["dead-level"]
    assert {"id", "severity", "figure", "threshold", "cause", "fix", "where", "source"} <= bad[0].keys()
    assert "-s quantizer.revive_below=0.1" in bad[0]["fix"]


def test_strict_exits_three_on_a_fail_alone(trained: Trained, here: Diagnose) -> None:
    done = vqtool("diagnose", trained("total-collapse"), "--strict", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["healthy"] is False
    for name, strict, code in (("total-collapse", False, 0), ("duplicates", True, 0), ("half-dead", True, 3)):
        here.words(trained(name), strict=strict)
        assert here.code == code, name


def test_people_see_a_histogram_the_cause_and_the_fix(trained: Trained, here: Diagnose) -> None:
    result = here.words(trained("half-dead"))
    assert "16 of 32 codes are never chosen" in result
    assert "fix: vqtool train " in result
    assert "-s quantizer.revive_below=0.1" in result
    assert "················" in result
    assert "\x1b" not in result, "no colours in a pipe"
    well = here.words(trained("healthy-ema"))
    assert "\nhealthy: no problems found" in well
    assert "\npassed: " in well


def test_no_data_no_torch(trained: Trained) -> None:
    """Counts, vectors and history are read with numpy, and no recipe is checked: 0.5 s in all."""
    heavy = ("torch", "rich", "matplotlib", "sklearn", "scipy", "vqtool.recipe.options", "vqtool.recipe.spec")
    assert loaded_after(command("diagnose", str(trained("healthy-ema"))), *heavy, "numpy") == {"numpy"}


def test_another_split_is_encoded_in_full(trained: Trained, here: Diagnose) -> None:
    run = trained("healthy-ema")
    result = here.document(run, split="test")
    assert result["counted"] == "split test"
    assert result["tokens"] == 1280
    assert result["measures"]["shuffled.error.mean"] > result["measures"]["error.mean"]
    data = run.parent / "signals.npz"
    other = here.document(run, data=data)
    assert other["counted"] == f"split valid of {data.name}"
    exact = here.document(run)["codebooks"][0]
    assert other["codebooks"][0]["perplexity"] == pytest.approx(exact["perplexity"])
    with pytest.raises(VqtoolError, match="no split called `nonsense`"):
        here.document(run, split="nonsense")


def test_the_newest_run_is_the_default(trained: Trained, tmp_path: Path, here: Diagnose,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VqtoolError, match="no trained run"):
        here.words(None)  # type: ignore[arg-type]  # as the command line gives it
    shutil.copytree(trained("healthy-ema"), tmp_path / "runs" / "one")
    assert "runs/one/tokenizer.safetensors" in here.words(None)  # type: ignore[arg-type]


def test_a_plugin_adds_its_findings(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(PLUGIN)
    run = trained("healthy-ema")
    done = vqtool("diagnose", run, "--plugin", tmp_path / "small.py", "--strict", "--json")
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert result["findings"][0]["id"] == "small"
    assert not result["healthy"]


def test_files_that_are_not_checkpoints_are_errors(tmp_path: Path, trained: Trained, here: Diagnose) -> None:
    with pytest.raises(VqtoolError, match="there is no checkpoint or run"):
        here.words(tmp_path / "nothing")
    whole = (trained("healthy-ema") / "tokenizer.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"w": np.zeros(3)}, tmp_path / "foreign.safetensors")
    save_file({"w": np.zeros(3)}, tmp_path / "other.safetensors", {"format": "vqtool/1"})
    wrong = {"half": "is truncated", "foreign": "no codebook was found", "other": "no quantizer"}
    for name, message in wrong.items():
        with pytest.raises(VqtoolError, match=message):
            here.words(tmp_path / f"{name}.safetensors")


def without_counts(source: Path, target: Path) -> Path:
    """The checkpoint as an earlier vqtool wrote it: no counts, no vectors, no words about the quantizer."""
    saved = checkpoint.load(source)
    tensors = {n: t.clone() for n, t in saved.tensors.items() if not n.startswith(("usage.", "vectors."))}
    kept = {n: v for n, v in saved.metadata.items() if n not in ("quantizer", "validation", "format")}
    checkpoint.save(target, tensors, kept)
    return target


def test_an_older_checkpoint_is_read_by_its_moving_averages(trained: Trained, tmp_path: Path) -> None:
    path = without_counts(trained("half-dead") / "tokenizer.safetensors", tmp_path / "old.safetensors")
    report = report_of(path)
    assert report.counted == "the moving average of training"
    (book,) = report.codebooks
    assert book.measures["used"] == 16
    assert book.vectors is not None
    assert book.vectors.shape == (32, 8)
    levels = report_of(
        without_counts(trained("level-3-of-4-dead") / "last.safetensors", tmp_path / "levels.safetensors")
    )
    assert [b.measures["used"] for b in levels.codebooks] == [16, 16, 1, 16]
    soft = report_of(without_counts(trained("healthy-soft") / "last.safetensors", tmp_path / "soft.safetensors"))
    assert soft.counted.startswith("nothing")
    assert soft.codebooks[0].counts is None


def test_vectors_that_are_weights_are_stored_once(trained: Trained) -> None:
    path = trained("healthy-ema") / "tokenizer.safetensors"
    kept, arrays = read(path, lambda name: name.startswith(("vectors.", "parts.quantizer.codebook.codes")))
    assert np.array_equal(arrays["vectors.0"], arrays["parts.quantizer.codebook.codes"])
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert "vectors.0" not in header
    assert kept["quantizer"]["names"] == ["codebook"]
    torch.testing.assert_close(checkpoint.load(path).tensors["vectors.0"], torch.from_numpy(arrays["vectors.0"]))


def test_drift_is_measured_since_an_earlier_step_alone(trained: Trained, tmp_path: Path, here: Diagnose) -> None:
    """Not against the same weights under another name, nor against later ones: a stage's result is its best."""
    shutil.copytree(trained("healthy-ema"), tmp_path / "run")
    path = tmp_path / "run" / "tokenizer.safetensors"
    _, arrays = read(path, lambda name: True)
    metadata = safe_metadata(path)
    for name, step, moved in (("best", 60, 0.0), ("last", 80, 5.0)):
        write(tmp_path / "run" / f"{name}.safetensors", arrays, metadata, step, moved)
    write(path, arrays, metadata, 60, 0.0)
    assert "drift" not in here.document(path)["codebooks"][0]
    write(tmp_path / "run" / "last.safetensors", arrays, metadata, 20, 1.0)
    write(path, arrays, metadata, 60, 0.0)
    spread = np.sqrt(np.square(arrays["vectors.0"] - arrays["vectors.0"].mean(0)).sum(1).mean())
    moved = np.sqrt(arrays["vectors.0"].shape[1]) / spread
    assert here.document(path)["codebooks"][0]["drift"] == pytest.approx(moved, rel=1e-3)


def safe_metadata(path: Path) -> dict[str, str]:
    """A checkpoint's metadata, as they are."""
    with safe_open(str(path), "np") as file:
        return dict(file.metadata())


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], step: int, moved: float) -> None:
    """A checkpoint of that step, its code vectors moved by so much."""
    result = {
        **metadata,
        "aliases": "{}",
        "validation": json.dumps({**json.loads(metadata["validation"]), "step": step}),
    }
    save_file({n: v + moved if n.startswith("vectors.") else v for n, v in arrays.items()}, path, result)


def test_a_histogram_has_a_column_for_every_few_codes(trained: Trained) -> None:
    (book,) = report_of(trained("half-dead") / "tokenizer.safetensors").codebooks
    drawn = histogram(use_of(book))
    assert len(drawn) == 32
    assert drawn.endswith("·" * 16)
    assert drawn[0] == "█"


def test_a_checkpoint_without_codes_is_reported(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="cannot read"):
        report_of(tmp_path / "nothing.safetensors")
