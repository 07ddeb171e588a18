"""The watch while training: it warns once, stops where it is asked to, and is silent on healthy runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.diagnosis.reports import text
from tests.diagnosis.unhealthy import CASES, EMA, Case
from tests.training.test_resume import HERE
from vqtool.api import Quantizer
from vqtool.catalog import catalog
from vqtool.diagnosis.news import UnhealthyError
from vqtool.recipe import load
from vqtool.recipe.recipe import parse
from vqtool.training.rundir import RunDir
from vqtool.training.session import Session, resume
from vqtool.training.watch import Motion, Watch

WATCHED = "\n[diagnose]\nevery = 5\n"


def run(case: Case, folder: Path, stop_on: str | None = None) -> Session:
    """A session of a case with a watch that looks every five steps."""
    path = case.write(folder)
    path.write_text(path.read_text().replace("\n[evaluate]", WATCHED + "\n[evaluate]"))
    loaded = load(path)
    made = Session(loaded, RunDir.create(loaded, folder / "run", argv=[], device="cpu"), HERE, stop_on=stop_on)  # type: ignore[arg-type]
    made.start()
    return made


def test_it_warns_once_of_what_is_dying(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES["half-dead"]
    with case.plant():
        assert run(case, tmp_path).train() == 0
    output = [line for line in capsys.readouterr().err.splitlines() if "dead-codes" in line]
    assert len(output) == 1
    assert output[0].startswith("warning: step 1")
    assert "16 of 32 codes" in output[0]
    assert "; fix: -s quantizer.revive_below=0.1" in output[0]


def test_it_stops_cleanly_and_resuming_continues(tmp_path: Path) -> None:
    case = CASES["total-collapse"]
    bad = run(case, tmp_path, "fail")
    with case.plant(), pytest.raises(UnhealthyError, match="collapse") as stopped:
        bad.train()
    bad.run_dir.close()
    assert stopped.value.exit_code == 3
    assert "vqtool resume" in (stopped.value.hint or "")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert max(steps) < case.steps
    again, state = resume(RunDir.open(tmp_path / "run"), HERE)
    assert again.train(state=state) == 0
    assert (tmp_path / "run" / "tokenizer.safetensors").is_file()


def test_it_says_nothing_of_a_healthy_run_and_lets_it_finish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(CASES["healthy-ema"], tmp_path, "warn").train() == 0
    assert "warning" not in capsys.readouterr().err


def test_rows_say_which_codes_moved(tmp_path: Path) -> None:
    case = Case("moves", EMA, steps=10)
    assert run(case, tmp_path).train() == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert rows[-1]["codes.moved.codebook"] == rows[-1]["codes.followed.codebook"] == 1


def test_motion_looks_at_the_codes_that_were_chosen() -> None:
    made = catalog().make("quantizer", "ema", {"codebook_size": 4}, 2)
    made.initialise(torch.randn(2, 32, 2, generator=torch.Generator().manual_seed(0)))
    motion = Motion(made)
    assert motion.figures([]) == {}
    with torch.no_grad():
        made.codebook.codes[1] += 1
        made.codebook.weights[:2] += 1
    measured = motion.figures([torch.tensor([[0], [1], [-1]])])
    assert measured == {"codes.moved.codebook": 0.5, "codes.followed.codebook": 1.0}


def watch(every: int, stop_on: str | None = None) -> Watch:
    made = catalog().make("quantizer", "ema", {"codebook_size": 32}, 4)
    made.initialise(torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0)))
    recipe = parse(text(more=f"[diagnose]\nevery = {every}\n")).resolved()
    return Watch(recipe, "tokenizer", 100, made, stop_on)  # type: ignore[arg-type]


def test_it_looks_after_the_first_tenth_and_not_too_often() -> None:
    made = watch(20)
    assert [step for step in range(5, 101, 5) if made.due(step) and made.look(step, {}, {}) is None] == [
        20,
        40,
        60,
        80,
        100,
    ]
    assert not watch(0).due(100)
    assert not watch(1).due(9)


@pytest.mark.parametrize(("steps", "every"), [(60, 10), (1000, 50), (6000, 300), (10**6, 1000)])
def test_by_default_it_looks_twenty_times_a_stage_within_bounds(steps: int, every: int) -> None:
    made = watch(0)
    recipe = parse(text()).resolved()
    assert Watch(recipe, "tokenizer", steps, made.quantizer).every == every


def test_it_warns_of_nothing_that_is_gone_at_the_next_look(capsys: pytest.CaptureFixture[str]) -> None:
    collapsed, well = {"codebook": np.array([999] + [0] * 31)}, {"codebook": np.full(32, 30)}
    made = watch(10)
    for step, counts in enumerate((collapsed, well, collapsed)):
        made.look(10 * step, counts, {})
    assert "collapse" not in capsys.readouterr().err
    made.look(40, collapsed, {})
    made.look(50, collapsed, {})
    assert capsys.readouterr().err.count("collapse:") == 1


@pytest.mark.parametrize("kind", ["fsq", "lfq", "random-projection"])
def test_a_fixed_grid_is_not_expected_to_move(kind: str) -> None:
    made = catalog().make("quantizer", kind, {}, 4)
    assert made.fixed
    assert Motion(made).before == []


def test_a_plugins_grid_does_not_move_either_but_its_codebook_should() -> None:
    class Grid(Quantizer):
        codebook_sizes = (8,)

        def vectors(self) -> tuple[torch.Tensor, ...]:
            return (torch.linspace(-1, 1, 8)[:, None],)

    class Learned(Grid):
        def __init__(self) -> None:
            super().__init__()
            self.codes = torch.nn.Parameter(torch.zeros(8, 1))

    class Averaged(Grid):
        def update(self, stats: object) -> None:
            pass

    assert Motion(Grid()).before == []
    assert len(Motion(Learned()).before) == len(Motion(Averaged()).before) == 1


def test_it_stops_only_for_what_is_there_twice() -> None:
    collapsed, well = {"codebook": np.array([999] + [0] * 31)}, {"codebook": np.full(32, 30)}
    made = watch(10, "fail")
    assert made.look(10, collapsed, {}) is None
    assert made.look(20, well, {}) is None
    assert made.look(30, collapsed, {}) is None
    found = made.look(40, collapsed, {})
    assert found is not None
    assert found.id == "collapse"
    half = {"codebook": np.where(np.arange(32) < 20, 30, 0)}  # a warning only
    patient = watch(10, "fail")
    assert patient.look(10, half, {}) is patient.look(20, half, {}) is None
    strict = watch(10, "warn")
    assert strict.look(10, half, {}) is None
    assert strict.look(20, half, {}) is not None


def test_figures_of_the_last_validation_are_looked_at_too() -> None:
    made = watch(10, "fail")
    made.note({"stage": "tokenizer", "split": "valid", "step": 10, "range_ratio": 0.3, "rescale": 3.0})
    well = {"codebook": np.full(32, 30)}
    made.look(10, well, {"loss": 1.0})
    assert made.look(20, well, {"loss": 1.0}).id == "range-drift"  # type: ignore[union-attr]
