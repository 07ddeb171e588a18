"""Every quantizer of the catalog trains in the engine: tokenizer, then a prior over its codes, then evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.training.test_resume import session
from tests.training.tiny import PRIOR, TOKENIZER, write_recipe
from vqtool.catalog import catalog

KINDS = catalog().names("quantizer")


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_a_prior_reads_its_codes(tmp_path: Path, kind: str) -> None:
    recipe = write_recipe(tmp_path)
    terms = catalog().load("quantizer", kind).terms
    weights = ", ".join(["mse = 1.0", *(f'"{term}" = 0.1' for term in sorted(terms))])
    text = TOKENIZER.format(seed=0).replace("mse = 1.0, commitment = 0.25", weights)
    start, end = text.index("[quantizer]"), text.index("[decoder]")
    recipe.write_text(text[:start] + f'[quantizer]\nkind = "{kind}"\n\n' + text[end:] + PRIOR)
    made = session(recipe, tmp_path / "run", ["stage.tokenizer.steps=6", "stage.prior.steps=3"])
    assert made.train() == 0
    scores = made.finish(seconds=0.0)["splits"]["test"]["model"]
    assert math.isfinite(scores["error.mean"])
    assert scores["codes.used"] > 0
    assert 0 <= scores["token_accuracy.free"] <= 1


def test_a_prior_has_standardised_features(tmp_path: Path) -> None:
    """Every norm and conditioner takes its constants from the training rows, whatever the table is called."""
    import numpy as np
    import torch

    recipe = write_recipe(tmp_path, prior=True, more='\n[prior_conditioner]\nkind = "spectrum"\ndim = 8\n')
    x = np.load(tmp_path / "signals.npz")["x"]
    scalar = 1000 + 5 * np.random.default_rng(0).normal(size=len(x))
    np.savez(tmp_path / "signals.npz", x=x, wave_one=x, scalar_one=scalar)
    made = session(recipe, tmp_path / "run")
    features = made.model.parts["prior_conditioner"].features
    seen = features(made.data.rows("train").__getitems__(list(range(84))))
    assert seen.shape[1] > 1
    torch.testing.assert_close(seen[:, -1].mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen[:, -1].std(), torch.tensor(1.0), atol=1e-2, rtol=0)
