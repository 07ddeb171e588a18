"""A run that is stopped from outside, resumed, and files that are damaged: what a user sees."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.run import document, vqtool
from tests.training.tiny import write_recipe
from vqtool.model import checkpoint


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vqtool", "train", str(recipe), "-o", str(folder)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_resume_continues(tmp_path: Path, number: int, code: int) -> None:
    recipe = write_recipe(tmp_path, more="")
    recipe.write_text(
        recipe.read_text().replace("steps = 20", "steps = 4000").replace("log_every = 5", "log_every = 50")
    )
    run = tmp_path / "run"
    process = start(recipe, run)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, result = process.communicate(timeout=120)
    assert process.returncode == code, result
    assert "resume" in result
    assert (run / "resume.safetensors").is_file()
    (run / "resolved.json").write_text((run / "resolved.json").read_text().replace('"steps": 4000', '"steps": 60'))
    done = vqtool("resume", run)
    assert done.returncode == 0, done.stderr
    assert vqtool("resume", run).returncode == 2


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    result = document("train", recipe, "-o", tmp_path / "run", "-s", "stage.tokenizer.steps=2")
    whole = Path(result["checkpoint"])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:2000])
    for command in (
        ("evaluate", cut),
        ("show", cut),
        ("evaluate", tmp_path / "none.safetensors"),
        ("evaluate", recipe),
    ):
        done = vqtool(*command)
        assert done.returncode in (1, 2), command
        assert done.stderr.startswith("error:"), done.stderr
        assert "Traceback" not in done.stderr
    again = vqtool("train", recipe, "-o", tmp_path / "run")
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert whole.is_file()


def test_evaluate_sweeps_an_option(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    document("train", recipe, "-o", tmp_path / "run", "-s", "stage.tokenizer.steps=2")
    result = document("evaluate", tmp_path / "run", "--sweep", "quantizer.revive_below=0:0.2:0.1")["sweep"]
    assert result["key"] == "quantizer.revive_below"
    assert [point["value"] for point in result["points"]] == pytest.approx([0, 0.1, 0.2])
    assert all(point["model"]["error.mean"] > 0 for point in result["points"])
    bad = vqtool("evaluate", tmp_path / "run", "--sweep", "quantizer.revive_below=0:1")
    assert bad.returncode == 2
    assert "sweep" in bad.stderr
    bad = vqtool("evaluate", tmp_path / "run", "-s", "quantizer.codebook_size=4")
    assert bad.returncode == 2
    assert "changes the shape of what was trained" in bad.stderr
    read = checkpoint.load(tmp_path / "run" / "tokenizer.safetensors")
    next(t for t in read.tensors.values() if t.is_floating_point()).view(-1)[0] = torch.nan
    checkpoint.save(tmp_path / "bad.safetensors", read.tensors, read.metadata)
    assert "are NaN or infinite" in vqtool("evaluate", tmp_path / "bad.safetensors").stderr


def test_a_recipe_that_cannot_be_wired_names_what_is_missing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("mse = 1.0", '"relative-error" = 1.0, latent = 1.0'))
    done = vqtool("train", recipe, "-o", tmp_path / "run")
    assert done.returncode == 2
    assert "`latent_hat`" in done.stderr
