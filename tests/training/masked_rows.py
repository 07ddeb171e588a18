"""Rows of different lengths for tests: a recipe over them, and everything that a training step makes of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.tiny import TOKENIZER
from vqtool.api import Batch, Quantized
from vqtool.catalog import catalog
from vqtool.model.build import build, fit_parts
from vqtool.model.data import open_data
from vqtool.model.model import Model
from vqtool.recipe import load
from vqtool.training.stage import StageModule

LENGTHS = (11, 32, 18, 11, 32, 25)
TOTAL = 32
FILLINGS = (0.0, 1e30, float("nan"), float("inf"), -3.0)


def signals(rows: int, seed: int = 0) -> Tensor:
    """[rows, 1, TOTAL]."""
    rng = np.random.default_rng(seed)
    phase, time = rng.uniform(0, 2 * np.pi, (rows, 1)), np.arange(TOTAL) * 2 * np.pi / TOTAL
    x = np.sin(time + phase) + 0.3 * np.sin(3 * time + 2 * phase) + 0.01 * rng.normal(size=(rows, TOTAL))
    return torch.from_numpy(x.astype(np.float32))[:, None]


def masked_recipe(folder: Path, **changed: str) -> Path:
    """A tiny recipe over 120 rows of six lengths; `changed` replaces the text of a table, as `encoder`."""
    x = signals(120)[:, 0].numpy()
    mask = np.arange(TOTAL) < np.resize(LENGTHS, 120)[:, None]
    np.savez(folder / "signals.npz", x=np.where(mask, x, np.nan), mask=mask)
    text = TOKENIZER.format(seed=0)
    for table, content in changed.items():
        start = text.index(f"[{table}]")
        text = text[:start] + f"[{table}]\n{content}\n\n" + text[text.index("\n[", start) + 1 :]
    path = folder / "masked.toml"
    path.write_text(text)
    return path


def batch_of(lengths: Sequence[int], amount: int = 0, filling: float = 0.0, *, front: bool = False) -> Batch:
    """Rows of these lengths, `amount` samples more than the longest has, and `filling` where nothing is real."""
    x, most = signals(len(lengths), seed=7)[..., : max(lengths)], max(lengths)
    full = torch.full((len(lengths), 1, most + amount), filling)
    mask = torch.zeros(len(lengths), most + amount, dtype=torch.bool)
    for row, length in enumerate(lengths):
        begin = most + amount - length if front else 0
        full[row, :, begin : begin + length] = x[row, :, :length]
        mask[row, begin : begin + length] = True
    return {"x": full, "mask": mask}


def module_of(recipe: Path, stage: str = "tokenizer", overrides: Sequence[str] = ()) -> tuple[Model, StageModule]:
    """The model with started codebooks, and one of its stages, ready to train."""
    loaded = load(recipe, list(overrides))
    data = open_data(loaded)
    model = build(loaded, data.spec)
    fit_parts(model, data)
    found = next(one for one in loaded.stages if one.name == stage)
    module = StageModule(model, found)
    module.freeze()
    assert model.quantizer is not None
    generator = torch.Generator().manual_seed(1)
    model.quantizer.initialise(torch.randn(64, 8, model.quantizer.dim, generator=generator))
    module.task.begin(module.parts)
    return model, module


def outcome(module: StageModule, batch: Batch) -> dict[str, Any]:
    """Losses, figures, codes, outputs on real samples, gradients and statistics of one step."""
    torch.manual_seed(3)
    module.zero_grad()
    total, terms, outputs = module({name: value.clone() for name, value in batch.items()})
    found: dict[str, Any] = {"total": total.detach(), **terms, "codes": outputs.get("codes")}
    for name in ("x_hat", "estimate", "target"):
        if name in outputs:
            found[f"output {name}"] = outputs[name].movedim(1, 2)[outputs["mask"]]
    if total.requires_grad:
        total.backward()
    found |= {f"gradient {n}": p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    quantized = outputs.get("quantized")
    if isinstance(quantized, Quantized):
        for at, stats in enumerate(quantized.stats):
            found |= {f"counts {at}": stats.counts, f"sums {at}": stats.sums, f"samples {at}": stats.samples}
    return found


def same_bits(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Both hold the same, NaN included."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name]
        if isinstance(value, Tensor):
            assert value.shape == other.shape, name
            assert torch.equal(value.nan_to_num(7e7), other.nan_to_num(7e7)), name
            assert torch.equal(value.isnan(), other.isnan()), name
        else:
            assert value == other, name


def terms_of(quantizer: str) -> str:
    """Losses for a stage with this quantizer."""
    terms = catalog().load("quantizer", quantizer).terms
    return ", ".join(["mse = 1.0", *(f'"{term}" = 0.1' for term in sorted(terms))])
