"""Every fix of a planted illness, typed as it stands, cures the run: the finding is gone after it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from tests.diagnosis.conftest import Trained
from tests.diagnosis.unhealthy import (
    CASES,
    CONTRASTIVE,
    EMA,
    Case,
    all_far_but_one,
    codes_started_as,
    every_second_far,
    waves,
)
from vqtool.cli import app
from vqtool.diagnosis.findings import diagnosed
from vqtool.diagnosis.reading import report_of
from vqtool.diagnosis.report import Finding
from vqtool.diagnosis.view import View
from vqtool.quantizers import vq

SUMS = "mse = 1.0, commitment = 0.25, codebook = 1.0"
WIDE = 'kind = "patch"\npatch = 8\ndim = 64'


def sines(rng: np.random.Generator) -> np.ndarray:
    """[n, L]: one partial of random phase, two dimensions in all."""
    phase = rng.uniform(0, 2 * np.pi, (800, 1))
    return np.sin(np.arange(64) * 2 * np.pi / 32 + phase).astype(np.float32)


def flat(rng: np.random.Generator) -> np.ndarray:
    """[n, L]: a constant, one dimension in all."""
    return np.repeat(rng.uniform(0, 1, (800, 1)), 64, 1).astype(np.float32)


def tiny(rng: np.random.Generator) -> np.ndarray:
    """[n, L]: a thousandth of what a grid of the range -1 to 1 expects."""
    return np.float32(1e-3) * waves(rng)


def mostly_silent(rng: np.random.Generator) -> np.ndarray:
    """[n, L]: one window of a hundred holds a signal."""
    loud = (rng.random((800, 1)) < 0.01) * waves(rng)
    return (1e-4 * rng.normal(size=(800, 64)) + loud).astype(np.float32)


def a_bad_random_start() -> mock._patch_dict:
    """A start from random inputs that were outliers but for one; a start by k-means is as ever."""

    def far(points: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
        spread = points.std() * torch.randn(size, points.shape[1], generator=generator)
        return all_far_but_one(points[:1] + spread)

    return mock.patch.dict(vq.STARTS, {"random": far})


def case(name: str, quantizer: str, disease: str, **more: object) -> Case:
    """A run with the fault in its recipe or its data."""
    return Case(name, quantizer, disease, **more)  # type: ignore[arg-type]  # by keyword


GUMBEL = 'kind = "product-gumbel"\ncodebook_size = 16\n'
SLOW = 'kind = "ema"\ncodebook_size = 32\ndecay = 0.999\nrevive_below = 0.0\n'
NEGATIVES = replace(CONTRASTIVE, disease="no-negatives")
SICK: dict[str, tuple[Case, str]] = {  # (run, words of its cause, as a pattern)
    made.name: (made, words)
    for made, words in (
        (case("gumbel", 'kind = "gumbel"\ncodebook_size = 64\n', "collapse", losses="mse = 1.0", steps=100, lr=1e-2),
         "no loss rewards the use of many codes"),
        (case("gumbel-weak", GUMBEL, "dead-codes", losses="mse = 1.0, log-perplexity = 0.0001", steps=120, lr=1e-2),
         "only `log-perplexity = 0.0001` rewards"),
        (replace(CONTRASTIVE, name="gumbel-contrast", quantizer=GUMBEL, disease="dead-codes", lr=1e-2,
                 losses="info-nce = 1.0, log-perplexity = 0.0001"), "only `log-perplexity = 0.0001` rewards"),
        (case("soft", 'kind = "soft"\ncodebook_size = 64\n', "dead-codes", steps=100, lr=1e-2,
              losses=f"{SUMS}, confidence = 3.0",
              more='schedule."quantizer.temperature" = { kind = "geometric", from = 0.1, to = 0.01 }\n'
                   'schedule."quantizer.hard" = { kind = "linear", from = 0.0, to = 1.0 }\n'),
         "no loss rewards the use of many codes"),
        (case("lfq", 'kind = "lfq"\nbits = 6\n', "dead-codes", losses="mse = 1.0, commitment = 0.25", steps=120,
              lr=1e-2), "Its bits are not independent"),
        (case("lfq-one-dimension", 'kind = "lfq"\nbits = 6\n', "collapse", data=flat, steps=100, lr=1e-2,
              losses="mse = 1.0, commitment = 0.25, diversity = 1.0"), "Its bits are not independent"),
        (case("fsq-tiny", 'kind = "fsq"\nlevels = [8, 8]\n', "collapse", data=tiny, losses="mse = 1.0"),
         "outputs are too small for the grid"),
        (case("fsq-young", 'kind = "fsq"\nlevels = [8, 5, 5, 5]\n', "collapse", losses="mse = 1.0"),
         "do not fill their bounded range yet"),
        (case("fsq-two-dimensions", 'kind = "fsq"\nlevels = [8, 8, 8]\n', "collapse", data=sines, losses="mse = 1.0",
              steps=300, lr=1e-2), "Its features move together"),
        (case("rate", 'kind = "gradient"\ncodebook_size = 64\n', "collapse", losses=SUMS, lr=1.0),
         "learning rate is so high"),
        (case("random-start", EMA + 'start = "random"\n', "collapse", plant=a_bad_random_start),
         "The first codes were random inputs"),
        (case("random-start-inside", 'kind = "residual"\nlevels = 2\nof = { kind = "vq", codebook_size = 16, '
              'revive_below = 0.0, decay = 0.9, start = "random" }\n', "collapse", plant=a_bad_random_start),
         "The first codes were random inputs"),
        (case("slow-average", 'kind = "ema"\ncodebook_size = 32\ndecay = 0.99\n', "dead-codes",
              plant=lambda: codes_started_as(every_second_far)), "A decay of 0.99 is slow for 60 steps"),
        (case("silence", 'kind = "ema"\ncodebook_size = 32\ndecay = 0.9\n', "collapse", data=mostly_silent),
         "most inputs hardly differ"),
        (case("learned", 'kind = "gradient"\ncodebook_size = 32\n', "dead-codes", losses=SUMS,
              plant=lambda: codes_started_as(every_second_far)), "gets no gradient"),
        (case("mapped", 'kind = "simvq"\ncodebook_size = 64\n', "dead-codes", losses=SUMS, steps=100),
         "One trained map moves all codes"),
        (case("no-codebook-loss", 'kind = "gradient"\ncodebook_size = 32\n', "frozen-codebook"),
         "the term `codebook` has no weight"),
        (case("no-rate", 'kind = "gradient"\ncodebook_size = 32\n', "frozen-codebook", losses=SUMS, lr=1e-9),
         "learning rate is too small"),
        (replace(NEGATIVES, name="too-far", more="options = { span = 2, min_distance = 8 }"), "Too few tokens"),
        (replace(NEGATIVES, name="too-few-hidden", more="options = { span = 1, hidden = 0.05 }"), "Too few tokens"),
        (replace(NEGATIVES, name="too-few-drawn", more="options = { span = 2, negatives = 1 }"), "Too few tokens"),
        (case("wide", 'kind = "ema"\ncodebook_size = 128\ndecay = 0.9\n', "dimension-collapse", data=sines,
              encoder=WIDE), r"in about (1\.[89]|2|2\.[0-2]) of the 64 dimensions"),
        (case("no-commitment", SLOW, "perplexity-falling", losses="mse = 1.0", lr=1e-2, steps=200),
         "no commitment loss holds it near"),
        (case("weak-commitment", SLOW, "commitment-growing", losses="mse = 1.0, commitment = 0.0001", lr=1e-2,
              steps=200), "run away from the codes"),
    )
}  # fmt: skip
PLANTED = ("total-collapse", "half-dead", "level-3-of-4-dead", "duplicates", "soft-path-drifted")  # of CASES, in code
IN_CODE = ("never-updated", "decay-of-one", "outputs-fed")  # no recipe fixes these: the fix names the law they break


def found(checkpoint: Path) -> dict[str, Finding]:
    """What warns or fails, by id."""
    return {f.id: f for f in diagnosed(report_of(checkpoint)).findings if f.severity in ("warn", "fail")}


def printed(checkpoint: Path, name: str) -> Iterator[list[str]]:
    """The words of each fix of a finding, as the report prints it."""
    (card,) = (c for c in View(diagnosed(report_of(checkpoint))).cards if c.finding.id == name)
    for line in card.fix:
        program, *words = shlex.split(line)
        assert program == "vqtool"
        yield words


def typed(words: list[str], plant: Callable[[], object], folder: Path) -> Path:
    """Type a command; the checkpoint that it writes."""
    target = folder / "-".join(w for w in words if w[0] != "/").replace("=", "-")[:60].replace("/", "-")
    if words[0] == "train":
        words, written = [*words, "-o", str(target)], target / "tokenizer.safetensors"
    else:
        written = target.with_suffix(".safetensors")
        words = [*words, "--out", str(written)]
    with plant():  # type: ignore[attr-defined]  # a context
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return written


def cured(sick: Case, run: Path, folder: Path) -> int:
    """Type every fix of the run's illness, each alone; how many there were."""
    assert sick.disease is not None
    count = 0
    for words in printed(run / "tokenizer.safetensors", sick.disease):
        after = found(typed(words, sick.plant, folder))
        assert sick.disease not in after, f"{words} left {after[sick.disease].figure}"
        count += 1
    return count


@pytest.mark.parametrize("name", SICK)
def test_an_illness_has_its_cause_and_every_fix_cures_it(name: str, tmp_path: Path) -> None:
    sick, words = SICK[name]
    run = sick.train(tmp_path / "sick")
    now = found(run / "tokenizer.safetensors")
    assert set(now) == {sick.disease}, "it is named, and nothing else is"
    assert re.search(words, now[str(sick.disease)].cause)
    assert cured(sick, run, tmp_path) >= 1


@pytest.mark.parametrize("name", PLANTED)
def test_every_fix_of_a_planted_fault_cures_it(name: str, trained: Trained, tmp_path: Path) -> None:
    assert cured(CASES[name], trained(name), tmp_path) >= 2


@pytest.mark.parametrize("name", IN_CODE)
def test_a_fault_in_the_code_is_shown_by_the_law_it_breaks(name: str, trained: Trained) -> None:
    sick = CASES[name]
    (words,) = printed(trained(name) / "tokenizer.safetensors", str(sick.disease))
    with sick.plant():
        assert CliRunner().invoke(app, words).exit_code == 3
    assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.parametrize("name", ["gumbel", "gumbel-weak", "gumbel-contrast"])
def test_codes_chosen_by_logits_need_their_diversity_weight_and_nothing_else(name: str, tmp_path: Path) -> None:
    sick, _ = SICK[name]
    one = found(sick.train(tmp_path) / "tokenizer.safetensors")[str(sick.disease)]
    names = [line.partition("losses.")[2].partition("=")[0] for line in one.fix]
    assert names == ["log-perplexity", "hf"]
    assert "temperature" not in one.changed


def test_a_codebook_of_zeros_is_named_and_moved_back_to_the_data(tmp_path: Path) -> None:
    whole = CASES["healthy-residual-ema"].train(tmp_path) / "tokenizer.safetensors"
    with safe_open(str(whole), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        tensors["parts.quantizer.levels.1.codebook.codes"].zero_()
        save_file(tensors, path := tmp_path / "zero.safetensors", metadata=file.metadata())
    assert set(found(path)) == {"zero-codebook"}
    assert found(path)["zero-codebook"].where == "level1"
    (words,) = printed(path, "zero-codebook")
    assert found(typed(words, nullcontext, tmp_path)) == {}


def test_a_run_is_trained_again_with_what_it_was_trained_with(tmp_path: Path) -> None:
    """`vqtool train RUN -s ...`: the run's own recipe, options set on the command line included, and its data."""
    recipe = CASES["half-dead"].write(tmp_path)
    for words in ([str(recipe), "-s", "stage.tokenizer.steps=7", "-o", str(tmp_path / "one")],
                  [str(tmp_path / "one"), "-s", "seed=3", "-o", str(tmp_path / "two")]):  # fmt: skip
        done = CliRunner().invoke(app, ["train", *words])
        assert done.exit_code == 0, done.output
    metadata = report_of(tmp_path / "two" / "tokenizer.safetensors").metadata
    assert (metadata["step"], metadata["resolved"]["seed"]) == (7, 3)
