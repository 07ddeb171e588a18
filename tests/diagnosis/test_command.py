"""`vqtool diagnose` as a user runs it: words, JSON, exit codes, what is loaded, and what old checkpoints still tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.cli.run import document, vqtool
from tests.diagnosis.conftest import Trained
from tests.test_startup import command, loaded_after
from vqtool.diagnosis.reading import history, read, report_of
from vqtool.diagnosis.terminal import histogram
from vqtool.errors import VqtoolError
from vqtool.training import checkpoint

PLUGIN = '''
"""A plugin that finds every codebook too small."""
from vqtool.catalog import hookimpl
from vqtool.diagnosis.report import Finding

@hookimpl
def vqtool_diagnose(report):
    yield Finding("small", "fail", float(report.codebooks[0].size), 1e6, "a plugin", "the codebook is small")
'''


def test_json_says_what_scripts_rely_on(trained: Trained) -> None:
    run = trained("level-3-of-4-dead")
    told = document("diagnose", run)
    assert told["healthy"] is False
    assert told["counted"] == "split valid"
    assert told["tokens"] == 640
    assert [b["name"] for b in told["codebooks"]] == ["level0", "level1", "level2", "level3"]
    book = told["codebooks"][2]
    assert (book["size"], book["used"], book["dead"], book["perplexity"], book["entropy_bits"]) == (16, 1, 15, 1.0, 0.0)
    ill = [f for f in told["findings"] if f["severity"] in ("warn", "fail")]
    assert [f["id"] for f in ill] == ["dead-level"]
    assert {"id", "severity", "figure", "threshold", "cause", "mend", "where", "source"} <= ill[0].keys()
    assert "quantizer.revive_below = 0.1" in ill[0]["mend"]


def test_strict_exits_three_on_a_fail_alone(trained: Trained) -> None:
    assert vqtool("diagnose", trained("total-collapse"), "--strict").returncode == 3
    assert vqtool("diagnose", trained("total-collapse")).returncode == 0
    assert vqtool("diagnose", trained("duplicates"), "--strict").returncode == 0, "a warning"


def test_people_see_a_histogram_the_cause_and_the_mend(trained: Trained) -> None:
    told = vqtool("diagnose", trained("half-dead")).stdout
    assert "16 of 32 codes are never chosen" in told
    assert "mend: quantizer.revive_below = 0.1" in told
    assert "················" in told
    assert "\x1b" not in told, "no colours in a pipe"
    well = vqtool("diagnose", trained("healthy-ema")).stdout
    assert "healthy: nothing found" in well
    assert "well: " in well


def test_no_data_no_torch(trained: Trained) -> None:
    """Counts, vectors and history are read with numpy."""
    heavy = ("torch", "rich", "matplotlib", "sklearn", "scipy")
    assert loaded_after(command("diagnose", str(trained("healthy-ema"))), *heavy, "numpy") == {"numpy"}


def test_another_split_is_encoded_in_full(trained: Trained) -> None:
    run = trained("healthy-ema")
    told = document("diagnose", run, "--split", "test")
    assert told["counted"] == "split test"
    assert told["tokens"] == 1280
    assert told["measures"]["shuffled.error.mean"] > told["measures"]["error.mean"]
    assert "drift" in told["codebooks"][0]
    data = run.parent / "signals.npz"
    other = document("diagnose", run, "--data", data)
    assert other["counted"] == f"split valid of {data}"
    exact = document("diagnose", run)["codebooks"][0]
    assert other["codebooks"][0]["perplexity"] == pytest.approx(exact["perplexity"])
    wrong = vqtool("diagnose", run, "--split", "nonsense")
    assert wrong.returncode == 2
    assert "no split called `nonsense`" in wrong.stderr


def test_the_newest_run_is_the_default(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(trained("healthy-ema"))
    assert vqtool("diagnose", cwd=tmp_path).returncode == 2, "a link is no run"
    (tmp_path / "runs" / "one").unlink()
    import shutil

    shutil.copytree(trained("healthy-ema"), tmp_path / "runs" / "two")
    done = vqtool("diagnose", cwd=tmp_path)
    assert done.returncode == 0
    assert "taking the newest run: runs/two/tokenizer.safetensors" in done.stderr


def test_a_plugin_adds_its_findings(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(PLUGIN)
    told = document("diagnose", trained("healthy-ema"), "--plugin", tmp_path / "small.py", "--strict", code=3)
    assert told["findings"][0]["id"] == "small"
    assert not told["healthy"]


def test_files_that_are_no_checkpoints_are_errors(tmp_path: Path, trained: Trained) -> None:
    assert "there is no checkpoint or run" in vqtool("diagnose", tmp_path / "nothing").stderr
    whole = (trained("healthy-ema") / "tokenizer.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "no whole safetensors file" in vqtool("diagnose", tmp_path / "half.safetensors").stderr
    save_file({"w": np.zeros(3)}, tmp_path / "foreign.safetensors")
    assert "not a checkpoint of vqtool" in vqtool("diagnose", tmp_path / "foreign.safetensors").stderr
    save_file({"w": np.zeros(3)}, tmp_path / "other.safetensors", {"format": "vqtool/1"})
    assert "holds no quantizer" in vqtool("diagnose", tmp_path / "other.safetensors").stderr


def without_counts(source: Path, target: Path) -> Path:
    """The checkpoint as an earlier vqtool wrote it: no counts, no vectors, no words about the quantizer."""
    saved = checkpoint.load(source)
    tensors = {n: t.clone() for n, t in saved.tensors.items() if not n.startswith(("usage.", "vectors."))}
    about = {n: v for n, v in saved.about.items() if n not in ("quantizer", "validation", "format")}
    checkpoint.save(target, tensors, about)
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
    about, arrays = read(path, (r"vectors\.", r"parts\.quantizer\.codebook\.codes"))
    assert np.array_equal(arrays["vectors.0"], arrays["parts.quantizer.codebook.codes"])
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert "vectors.0" not in header
    assert about["quantizer"]["names"] == ["codebook"]
    torch.testing.assert_close(checkpoint.load(path).tensors["vectors.0"], torch.from_numpy(arrays["vectors.0"]))


def test_half_written_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert history(tmp_path / "metrics.jsonl") == [{"step": 1}]
    assert history(tmp_path / "nothing.jsonl") == []


def test_a_histogram_has_a_column_for_every_few_codes(trained: Trained) -> None:
    (book,) = report_of(trained("half-dead") / "tokenizer.safetensors").codebooks
    drawn = histogram(book)
    assert len(drawn) == 32
    assert drawn.endswith("·" * 16)
    assert drawn[0] == "█"


def test_a_checkpoint_without_codes_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="no whole safetensors file"):
        report_of(tmp_path / "nothing.safetensors")
