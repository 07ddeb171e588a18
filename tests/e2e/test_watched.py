"""What the use cases' documents tell their readers to watch is in the files of a run, where it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_resume import session
from vqtool.model.runs import rows_of

ROOT = Path(__file__).parents[2]
# By figure: stage, split and names in metrics.jsonl. The histogram of the use of codes is in tests/tensorboard.
LINK = {
    "loss": ("learn", "train", ("loss", "cross-entropy")),
    "commitment": ("learn", "train", ("commitment",)),
    "diversity": ("learn", "train", ("diversity",)),
    "perplexity": ("learn", "valid", ("codes.perplexity",)),
    "codes used": ("learn", "valid", ("codes.used",)),
    "temperature": ("learn", "train", ("quantizer.temperature", "channel.hard")),
    "training accuracy": ("align", "train", ("accuracy",)),
    "validation accuracy": ("align", "valid", ("accuracy.hard.12db", "accuracy.soft.12db")),
    "entropy of the codes": ("align", "valid", ("entropy.use", "codes.entropy_bits")),
    "entropy of the symbols": ("align", "train", ("symbols.entropy",)),
    "mean |LLR|": ("align", "train", ("llr",)),
    "bits and symbols": ("align", "train", ("bits", "symbols")),
    "gap between soft and hard": ("align", "valid", ("gap.12db", "soft_hard.gap")),
    "consistency": ("align", "valid", ("consistency.12db", "alignment")),
    "phase and epoch": ("align", "valid", ("stage", "epoch")),
}
SERIES = {
    "SNR and SI-SDR": ("tokenizer", "valid", ("output.snr_db", "output.si_sdr_db")),
    "range ratio": ("tokenizer", "valid", ("range_ratio",)),
    "token accuracy": ("prior", "valid", ("tokens.accuracy",)),
    "error of reconstructions and horizons": ("direct", "valid", ("reconstruction.mse", "mse.h96", "mse.h720")),
}
STAGES = {"semcom-two-phase": ["learn", "align"], "forecast": ["tokenizer", "prior", "direct"]}
QUICK = {"semcom-two-phase": (LINK, ["train.batch=16", "evaluate.baselines=[]"]),
         "forecast": (SERIES, ["train.batch=16", "data.valid_stride=400", "evaluate.baselines=[]"])}  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_every_figure_is_there_from_the_first_step(name: str, tmp_path: Path) -> None:
    figures, quick = QUICK[name]
    short = [f"stage.{stage}.{option}=2" for stage in STAGES[name] for option in ("steps", "valid_every")]
    made = session(ROOT / "recipes" / f"{name}.toml", tmp_path / "run", [*short, *quick])
    assert made.train() == 0
    rows = rows_of(tmp_path / "run" / "metrics.jsonl")
    for figure, (stage, split, keys) in figures.items():
        row = next(row for row in rows if (row["stage"], row["split"]) == (stage, split))
        assert set(keys) <= row.keys(), f"{figure} is missing in the first {split} row of {stage}"
        assert row["step"] == 1 or split == "valid"
