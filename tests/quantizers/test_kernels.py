"""The GPU kernels without a GPU: in Triton's interpreter against plain PyTorch and float64, and compiled for GPUs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from tests.quantizers import test_operators
from vqtool.catalog import catalog
from vqtool.conformance import QUANTIZER_LAWS, Subject, require
from vqtool.quantizers.gpu import operators, switch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed: pip install triton",
)


LAWS = {"straight-through-gain", "commitment-reaches-encoder", "forward-exact", "nan-contained", "ema-follows-inputs",
        "unused-code-rests", "decode-round-trip", "padding-irrelevant", "nearest-code"}  # fmt: skip


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels take the place of plain PyTorch on the CPU."""
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled in this process: tests/gpu.py runs them on the device")
    monkeypatch.setattr(switch, "usable", lambda x, levels=1: fits(x))


def fits(x):
    """`switch.usable` without CUDA."""
    return x.dtype == torch.float32 and x.shape[0] > 0 and not torch.compiler.is_exporting()


NAMES = [
    "codes",
    "value",
    "pull",
    "rests",
    "mean",
    "values",
    "bad",
    "counts",
    "sums",
    "samples",
    "gradient",
    "moved",
    "weights",
    "found",
]


@pytest.mark.parametrize(
    ("tokens", "size", "dim", "levels"),
    [(150, 300, 40, 2), (100, 37, 5, 1), (70, 70, 64, 3), (3, 5, 16, 1)],
)
def test_kernels_give_what_plain_pytorch_gives(tokens, size, dim, levels, interpreted):
    generator = torch.Generator().manual_seed(0)
    x, tables = (torch.randn(*shape, dim, generator=generator) + 3 for shape in ((tokens,), (levels, size)))
    if tokens > 10:
        x[7, 0], x[9] = torch.nan, torch.inf
    mask, upstream = torch.rand(tokens, generator=generator) > 0.2, torch.randn(tokens, dim, generator=generator)
    given = (x, mask, tables, upstream, torch.tensor(0.5))
    for name, found, wanted in zip(
        NAMES, switch.trial(switch.ops, *given), switch.trial(operators, *given), strict=True
    ):
        assert found.shape == wanted.shape, name
        if found.is_floating_point():
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)
        else:
            assert torch.equal(found, wanted), name


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 1e4), (1e-18, 0.0)])
def test_codes_are_those_of_float64(scale, offset, interpreted):
    generator = torch.Generator().manual_seed(1)
    x, table = (torch.randn(n, 24, generator=generator) * scale + offset for n in (130, 150))
    away = (x.double()[:, None] - table.double()[None]).square().sum(2)
    assert torch.equal(switch.search(x, None, table), away.argmin(1))


def test_ties_go_to_the_lowest_index(interpreted):
    generator = torch.Generator().manual_seed(2)
    few = torch.randn(5, 16, generator=generator)
    found = switch.search(torch.randn(40, 16, generator=generator), None, few.repeat(40, 1))
    assert int(found.max()) < 5


@pytest.mark.parametrize("law", [law for law in QUANTIZER_LAWS if law.id in LAWS], ids=lambda law: law.id)
@pytest.mark.parametrize("kind", ["ema", "residual-ema"])
def test_law(kind, law, interpreted, monkeypatch):
    options = {"codebook_size": 16, **({"levels": 2} if "residual" in kind else {})}
    passes, passed = [], switch.passed
    monkeypatch.setattr(switch, "passed", lambda *a, **k: passes.append(1) or passed(*a, **k))
    require(law, Subject(catalog().load("quantizer", kind), options=options))
    assert passes


@pytest.mark.parametrize(("case", "train", "encode"), [("vq", 20, 5), ("residual 8", 30, 5)])
def test_operators_with_kernels_as_one_each(case, train, encode, monkeypatch):
    monkeypatch.setattr(switch, "usable", lambda x, levels=1: True)
    make, shape = test_operators.CASES[case]
    monkeypatch.setattr(test_operators, "CASES", {})
    quantizer_step = test_operators.step
    assert quantizer_step(make, shape) <= train
    assert quantizer_step(make, shape, train=False) <= encode


def test_the_search_fits_into_the_registers_of_an_sm_90_and_adds_without_atomics():
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.quantizers.cross_compile", "90", "64", "1"]
    said = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[-2000:]
    found = {row["kernel"]: row for row in json.loads(said.stdout.splitlines()[-1])}
    assert found["quantize"]["products"] == ["wgmma.mma_async"]
    assert {name: row["spilled"] for name, row in found.items() if row["spilled"]} == {}
    assert not any(row["atomics"] for row in found.values())
