"""Weights that the first release wrote load under today's names, and give the same codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.catalog import catalog
from vqtool.model import checkpoint
from vqtool.model.load import from_checkpoint

WEIGHTS = Path(__file__).with_name("weights_of_0.1.safetensors")  # of every kind, after three steps on normal inputs
with safe_open(str(WEIGHTS), "pt") as held:
    OLD = {name: json.loads(options) for name, options in sorted((held.metadata() or {}).items())}


def old(case: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """(state, inputs, codes) of a case."""
    with safe_open(str(WEIGHTS), "pt") as file:
        names = [name for name in file.keys() if name.startswith(f"{case}/")]  # noqa: SIM118 - not a dict
        state = {name.removeprefix(f"{case}/"): file.get_tensor(name) for name in names}
        return state, file.get_tensor("z"), file.get_tensor(f"{case}:codes").long()


def made(case: str) -> torch.nn.Module:
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in OLD[case].items()}
    return catalog().make("quantizer", case.split("/")[0], options, 8)


def test_every_kind_of_then_is_there() -> None:
    assert len({case.split("/")[0] for case in OLD}) == 14


@pytest.mark.parametrize("case", OLD)
def test_the_codes_are_the_same(case: str) -> None:
    state, z, codes = old(case)
    quantizer = made(case)
    quantizer.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert torch.equal(quantizer.eval()(z).codes, codes)
    assert {quantizer.renamed(name) for name in state} == set(quantizer.state_dict())


@pytest.mark.parametrize("kind", ["residual-ema", "product-ema", "simvq"])
def test_a_checkpoint_of_then_loads_in_full(tmp_path: Path, kind: str) -> None:
    recipe = write_recipe(tmp_path)
    levels = "levels = 2\n" if kind == "residual-ema" else ""
    text = recipe.read_text().replace('kind = "residual-ema"\nlevels = 2\n', f'kind = "{kind}"\n{levels}')
    recipe.write_text(text)
    run = session(recipe, tmp_path / "run", ["stage.tokenizer.steps=2"])
    assert run.train() == 0
    path = tmp_path / "run" / "tokenizer.safetensors"
    now = checkpoint.load(path)
    then = {"levels.0.codebook.": "codebooks.0.", "levels.1.codebook.": "codebooks.1.",
            "groups.0.codebook.": "codebooks.0.", "groups.1.codebook.": "codebooks.1.",
            "codebook.map.": "map."}  # fmt: skip
    then |= {"codebook.": "frozen."} if kind == "simvq" else {}
    tensors = dict(now.tensors)
    for name in list(tensors):
        for today, before in then.items():
            if name.startswith(f"parts.quantizer.{today}"):
                tensors[name.replace(today, before)] = tensors.pop(name)
                break
    assert tensors.keys() != now.tensors.keys()
    metadata = {key: value for key, value in now.metadata.items() if key not in ("format", "aliases", "layout")}
    checkpoint.save(path, tensors, metadata)
    model, _ = from_checkpoint(path)
    wanted = run.model.parts.quantizer.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.parts.quantizer.state_dict().items())
