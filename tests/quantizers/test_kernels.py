"""The GPU kernels without a GPU: in Triton's interpreter against plain PyTorch and float64, and compiled for GPUs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.quantizers.kernel_laws import SERVED
from tests.quantizers.test_laws import SLOW
from vqtool.catalog import catalog
from vqtool.conformance import QUANTIZER_LAWS, Subject, require
from vqtool.quantizers import VQ, Gumbel
from vqtool.quantizers.gpu import operators, switch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed: pip install triton",
)


CHECKED: dict[tuple[str, int, int, int, int, str], bool] = {}  # sizes that passed the check of the switch, in all tests


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels take the place of plain PyTorch on the CPU; a codebook counts as large that takes not too long."""
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled in this process: tests/gpu.py runs them on the device")
    monkeypatch.setenv("VQTOOL_KERNELS", "on")
    monkeypatch.setattr(switch, "_trusted", CHECKED)
    monkeypatch.setattr(importlib.import_module("vqtool.quantizers.gpu.launches"), "BY_PRODUCT", 310)
    monkeypatch.setattr(switch, "LARGE", 320)


NAMES = [
    "codes", "value", "pull", "rests", "mean", "values", "bad", "counts", "sums", "samples", "gradient", "moved",
    "weights", "found", "codes of narrow tokens", "their value", "counts by sorting", "sums by sorting",
]  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "size", "dim", "levels", "groups"),
    [(150, 300, 40, 2, 1), (100, 37, 5, 1, 1), (70, 70, 64, 3, 1), (40, 90, 130, 2, 1), (20, 20, 512, 1, 1),
     (3, 5, 16, 1, 1), (70, 40, 24, 1, 4), (70, 30, 9, 3, 2), (40, 20, 140, 2, 3)],
)  # fmt: skip
def test_kernels_give_what_plain_pytorch_gives(tokens, size, dim, levels, groups, interpreted):
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(tokens, groups * dim, generator=generator) for _ in range(2))
    tables, x = torch.randn(groups * levels, size, dim, generator=generator) + 3, x + 3
    if tokens > 10:
        x[7, -1], x[9] = torch.nan, torch.inf  # of a token that is not finite in one group, none has a code
    mask = torch.rand(tokens, generator=generator) > 0.2
    given = (x, mask, tables, upstream, torch.tensor(0.5), groups)
    for name, found, wanted in zip(
        NAMES, switch.trial(switch.ops, *given), switch.trial(operators, *given), strict=True
    ):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
        if found.is_floating_point():
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)
        else:
            assert torch.equal(found, wanted), name


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 1e4), (1e-18, 0.0)])
@pytest.mark.parametrize("dim", [24, 150])
def test_codes_are_those_of_float64(dim, scale, offset, interpreted):
    generator = torch.Generator().manual_seed(1)
    x, table = (torch.randn(n, dim, generator=generator) * scale + offset for n in (130, 150))
    away = (x.double()[:, None] - table.double()[None]).square().sum(2)
    assert torch.equal(switch.search(x, None, table), away.argmin(1))


def close_pairs(dim=40):
    """Tokens and codes in pairs that are 1e-4 apart, which bfloat16 products of three cannot tell."""
    generator = torch.Generator().manual_seed(5)
    x, table = torch.randn(130, dim, generator=generator), torch.randn(150, dim, generator=generator)
    table[1::2] = table[::2] + 1e-5 * torch.randn(75, dim, generator=generator)
    return x, table


@pytest.mark.parametrize("data", ["normal", "pairs", "offset", "tiny", "far", "twice", "residual"])
def test_certified_codes_are_those_of_float64(data, interpreted, monkeypatch):
    """Products in bfloat16, whose rounding the kernel emulates here, and again in float32 where it might matter."""
    monkeypatch.setenv("VQTOOL_KERNELS", "certified")
    generator = torch.Generator().manual_seed(1)
    x, table = (torch.randn(n, 40, generator=generator) for n in (130, 150))
    if data == "pairs":
        x, table = close_pairs()
    x, table = (t * {"tiny": 1e-18}.get(data, 1.0) + {"offset": 1e4}.get(data, 0.0) for t in (x, table))
    if data == "far":
        table[3] = 1e6
    if data == "twice":
        table = torch.cat([table, table])
    if data == "residual":
        tables = torch.stack([table, table.flip(0) / 2])
        found = switch.ops.quantize(x, None, tables, 1, True)
        monkeypatch.setenv("VQTOOL_KERNELS", "on")
        for a, b in zip(found, switch.ops.quantize(x, None, tables, 1, True), strict=True):
            torch.testing.assert_close(a, b)
    else:
        away = (x.double()[:, None] - table.double()[None]).square().sum(2)
        assert torch.equal(switch.search(x, None, table), away.argmin(1))


@pytest.mark.parametrize("certified", [False, True])
def test_without_the_certificate_codes_would_be_wrong(certified, interpreted, monkeypatch, tmp_path):
    monkeypatch.setenv("VQTOOL_KERNELS", "certified")
    if not certified:
        plant("kernels", "<= 2.0 * bound", "< 0.0 * bound", monkeypatch, tmp_path)
    x, table = close_pairs()
    wanted = (x.double()[:, None] - table.double()[None]).square().sum(2).argmin(1)
    assert torch.equal(switch.search(x, None, table), wanted) == certified


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [6, 140])
def test_tokens_of_any_type_and_strides(kind, dim, interpreted):
    generator = torch.Generator().manual_seed(3)
    x, table = (torch.randn(n, dim, generator=generator).to(kind) for n in (33, 40))
    wanted = switch.ops.quantize(x.float(), None, table.float()[None], 1, True)
    for strided in (x.t().contiguous().t(), x.repeat_interleave(2, 1)[:, ::2], torch.cat([x, x], 1)[:, :dim]):
        assert not strided.is_contiguous()
        for found, one in zip(switch.ops.quantize(strided, None, table.float()[None], 1, True), wanted, strict=True):
            assert torch.equal(found, one)


def test_a_bfloat16_model_gives_its_tokens_as_they_are(interpreted, monkeypatch):
    seen, passed = [], switch.passed
    monkeypatch.setattr(switch, "passed", lambda by, x, *a, **k: seen.append(x.dtype) or passed(by, x, *a, **k))
    quantizer, x = VQ(8, codebook_size=16), torch.randn(2, 40, 8).bfloat16().requires_grad_()
    result = quantizer(x)
    (result.z.float().sum() + result.loss).backward()
    assert seen == [torch.bfloat16]
    assert (result.z.dtype, x.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    wanted = VQ(8, codebook_size=16)
    wanted.load_state_dict(quantizer.state_dict())
    monkeypatch.setenv("VQTOOL_KERNELS", "off")
    y = x.detach().requires_grad_()
    plain = wanted(y)
    (plain.z.float().sum() + plain.loss).backward()
    assert torch.equal(plain.codes, result.codes)
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("dim", [160, 128])
def test_places_beyond_two_to_the_31_are_reached(dim, interpreted, monkeypatch):
    """The last of 2^24 tokens and more: in memory that is only reserved, as nothing else of it is touched."""
    from triton.runtime import interpreter

    from vqtool.quantizers.gpu import kernels, launches, wide

    count = 2**31 // dim + 2**24 // dim
    try:
        x = torch.empty(count, dim)
    except RuntimeError:
        pytest.skip("this machine does not reserve so much memory")
    generator = torch.Generator().manual_seed(4)
    last, table = torch.randn(20, dim, generator=generator), torch.randn(1, 30, dim, generator=generator)
    x[-20:] = last
    made = launches.prepared(table)
    monkeypatch.setattr(launches, "prepared", lambda _: made)
    builder = interpreter.interpreter_builder
    set_index, programs = type(builder).set_grid_idx, []

    class Last:
        """Starts the last program of a grid alone."""

        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            programs.append(grid[0])
            return self.kernel[(1, *grid[1:])]

    def moved(self, i, j, k):
        set_index(self, i, j, k)
        self.grid_idx = (programs[-1] - 1, j, k)

    monkeypatch.setattr(type(builder), "set_grid_idx", moved)
    monkeypatch.setattr(kernels, "quantize", Last(kernels.quantize))
    monkeypatch.setattr(wide, "quantize_wide", Last(wide.quantize_wide))
    monkeypatch.setattr(kernels, "conclude", {(1,): lambda *_, **__: None})
    monkeypatch.setattr(kernels, "pass_back", Last(kernels.pass_back))
    codes, value, pull, _, _, values, _ = launches.quantize(x, None, table, 1, True)
    wanted = (last[:, None] - table[0]).square().sum(2).argmin(1)
    assert torch.equal(codes[-20:, 0], wanted)
    assert torch.equal(value[-20:], table[0][wanted])
    many = launches.by_rows(count, dim)[1]["BLOCK_N"]
    back = launches.pass_back(None, torch.tensor(0.5), x, value, pull, codes, values.fill_(1.0))
    here = count % many or many
    torch.testing.assert_close(back[-here:], x[-here:] - value[-here:])


@pytest.mark.parametrize("options", [{"groups": 2}, {"logits": "distance"}, {"groups": 3, "temperature": 0.5}])
def test_codes_are_drawn_as_on_the_cpu(options, interpreted, monkeypatch):
    """The same noise, so the same codes in training and after; and their gradients, the same bits in every run."""
    seen = []
    torch.manual_seed(0)
    quantizer = Gumbel(12, codebook_size=37, **options)
    x, mask, upstream = torch.randn(3, 30, 12), torch.rand(3, 30) > 0.2, torch.randn(3, 30, 12)
    x[0, 3] = torch.nan

    def run(train):
        quantizer.train(train).zero_grad()
        y = x.clone().requires_grad_()
        result = quantizer(y, mask)
        loss = (result.z * upstream).sum() + result.terms["log-perplexity"] + result.terms["hf"]
        loss.backward()
        return [result.codes, result.z, result.usage, y.grad, *(p.grad for p in quantizer.parameters())]

    monkeypatch.setattr(
        switch.Choice, "forward", staticmethod(lambda *a, f=switch.Choice.forward: seen.append(1) or f(*a))
    )
    for train in (True, False):
        found, again = run(train), run(train)
        assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
        monkeypatch.setenv("VQTOOL_KERNELS", "off")
        wanted = run(train)
        monkeypatch.setenv("VQTOOL_KERNELS", "on")
        assert torch.equal(found[0], wanted[0])
        for a, b in zip(found[1:], wanted[1:], strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()
    assert len(seen) == 4


def test_ties_go_to_the_lowest_index(interpreted):
    generator = torch.Generator().manual_seed(2)
    few = torch.randn(5, 16, generator=generator)
    found = switch.search(torch.randn(40, 16, generator=generator), None, few.repeat(40, 1))
    assert int(found.max()) < 5


QUICK = [law for law in QUANTIZER_LAWS if law.id not in SLOW | {"checkpointing"}]


@pytest.mark.parametrize("law", QUICK, ids=lambda law: law.id)
@pytest.mark.parametrize("kind", ["ema", "residual-ema"])
def test_law(kind, law, interpreted, monkeypatch):
    """`python -m tests.quantizers.kernel_laws` checks every law, for all kinds that kernels serve."""
    launches, runs = [], operators.runs_kernels
    monkeypatch.setattr(operators, "runs_kernels", lambda x: runs(x) and not launches.append(1))
    require(law, Subject(catalog().load("quantizer", kind), options=SERVED[kind]))
    assert launches or law.id in {"codebook-loss-spares-encoder", "never-silent-start"}


PLANTED = {  # what is changed in the source of a kernel: the room, the text, what takes its place, features, levels
    "the later of two codes": ("kernels", "better = score < best", "better = score > best", 8, 1),
    "codes that are not there": ("kernels", 'mask=k < K, other=float("inf")', "mask=k < K, other=-9.0", 8, 1),
    "no centre": ("kernels", "(rest - centre[None, :]) * tl.load", "rest * tl.load", 8, 1),
    "NaN counts": ("kernels", "return real, real & (fine > 0)", "return real, real", 8, 1),
    "masked tokens count": ("kernels", "real = inside & (tl.load(mask_ptr", "real = inside | (tl.load(mask_ptr", 8, 1),
    "the first group again": ("kernels", "n, group * D + d, here)\n    real", "n, d, here)\n    real", 8, 1, 2),
    "a group that is not finite": ("kernels", "fine = fine * finite(part)", "fine = fine", 8, 1, 2),
    "sums of the first group": ("codes", "book // LEVELS, book % LEVELS", "0, book % LEVELS", 8, 1, 2),
    "another noise": ("choice", "(keys ^ (keys >> 31))", "(keys ^ (keys >> 30))", 8, 1, 1, "choice"),
    "noise of the first group": ("choice", "(group * K + k).to(tl.int64)", "k.to(tl.int64)", 8, 1, 2, "choice"),
    "the same noise everywhere": ("choice", "n % LENGTH", "n * 0", 8, 1, 1, "choice"),
    "masked tokens are used": ("choice", "tl.where(valid[:, None], tl.exp(logits - plain[:, None]), 0.0)",
                               "tl.exp(logits - plain[:, None])", 8, 1, 1, "choice"),
    "no temperature": ("choice", "by_choice / temperature", "by_choice", 8, 1, 1, "choice"),
    "the use by all tokens": ("choice", "by_use = tl.where(valid[:, None],", "by_use = tl.where(inside[:, None],",
                              8, 1, 1, "choice"),
    "one codebook moves": ("codes", "code_ptr += book *", "code_ptr += 0 *", 8, 2),
    "a level skipped": ("kernels", "rest = rest - value", "rest = rest - value * (level > 0)", 8, 2),
    "half the gradient": ("kernels", "away * (2.0 *", "away * (1.0 *", 8, 1),
    "a slab forgotten": ("wide", "for feature in range(0, D, DP):\n            d = feature",
                         "for feature in range(0, D - DP, DP):\n            d = feature", 150, 1),
    "the first level again": ("wide", "nearest_wide(left_ptr, D, 1, rows, 0,",
                              "nearest_wide(x_ptr, ROW, COLUMN, n, 0,", 150, 2),
    "sums of other tokens": ("codes",
                             "hit = (k[:, None] == code[None, :])", "hit = (k[:, None] <= code[None, :])", 8, 1),
    "the last of a code": ("codes", "mask=place < last, other=0)", "mask=place < last - 1, other=0)", 8, 1),
    "another hash": ("codes", "keys ^ (keys >> 29)", "keys ^ (keys >> 28)", 8, 1),
    "the average the wrong way": ("codes", "return decay * before + rate", "return rate * before + decay", 8, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_the_check_before_first_use_finds_a_planted_bug(name, interpreted, monkeypatch, tmp_path):
    room, text, other, dim, *parts = PLANTED[name]
    monkeypatch.setattr(switch, "_noted", set())
    plant(room, text, other, monkeypatch, tmp_path)
    with pytest.warns(UserWarning, match="disagree with plain PyTorch"):
        assert not switch.agrees(torch.device("cpu"), dim, *parts)


def plant(room, text, other, monkeypatch, tmp_path):
    """Launches take kernels of a changed `room`."""
    rooms = importlib.import_module("vqtool.quantizers.gpu.launches")
    honest = importlib.import_module(f"vqtool.quantizers.gpu.{room}")
    source = Path(honest.__file__).read_text()
    assert source.count(text) >= 1
    (tmp_path / "planted.py").write_text(source.replace(text, other))
    spec = importlib.util.spec_from_file_location("planted", tmp_path / "planted.py")
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    monkeypatch.setattr(rooms, "by_code" if room == "codes" else room, planted)


class Allocated(TorchDispatchMode):
    """The storages of what is made inside it; they are kept, so that none takes another's place."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in torch.utils._pytree.tree_leaves(out):
            if isinstance(made, torch.Tensor):
                storage = made.untyped_storage()
                self.storages[storage.data_ptr()] = storage
        return out


def test_nothing_of_the_size_of_tokens_times_codes_is_made(monkeypatch):
    """131 072 tokens, 1024 codes, 64 features: 8 MiB above inputs and outputs, and 512 MiB of scores if they were."""
    from vqtool.quantizers.gpu import codes, kernels, launches, wide

    class Nothing:
        def __getitem__(self, grid):
            return lambda *_, **__: None

    for room in (kernels, wide, codes):
        for name, kernel in list(vars(room).items()):
            if isinstance(getattr(kernel, "fn", None), FunctionType):
                monkeypatch.setattr(room, name, Nothing())
    x, tables = torch.zeros(131072, 64), torch.zeros(1, 1024, 64)
    with Allocated() as search:
        found = launches.search(x, None, tables[0])
    with Allocated() as whole:
        made = launches.quantize(x, None, tables, 1, True)
        sums = launches.statistics(x, made[3], made[0], 1, 1024, True)
    for seen, kept in ((search, (x, tables, found)), (whole, (x, tables, *made, *sums))):
        known = {one.untyped_storage().data_ptr() for one in kept}
        assert 0 < sum(one.nbytes() for place, one in seen.storages.items() if place not in known) <= 8 * 2**20


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None
    or not (Path(importlib.util.find_spec("triton").origin).parent / "backends/nvidia/bin/ptxas-blackwell").exists(),
    reason="Triton's assembler for NVIDIA is not there",
)
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dim", "levels", "groups", "tokens", "size"),  # multiples of 16, as Triton knows them, and others
    [(64, 1, 1, 704, 304), (64, 1, 4, 700, 300), (128, 8, 1, 704, 304), (320, 2, 1, 700, 300), (32, 2, 3, 704, 304),
     (32, 1, 1, 700, 300), (8, 1, 1, 704, 304), (16, 2, 1, 1, 1)],
)  # fmt: skip
@pytest.mark.parametrize("asked", ["on", "certified"])
def test_kernels_fit_into_registers_and_add_without_atomics(capability, dim, levels, groups, tokens, size, asked):
    if asked == "certified" and dim > 64:
        pytest.skip("more features are not done in bfloat16 first")
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    plain["VQTOOL_KERNELS"] = asked
    sizes = map(str, (capability, dim, levels, groups, tokens, size))
    command = [sys.executable, "-m", "tests.quantizers.cross_compile", *sizes]
    said = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[-2000:]
    found = json.loads(said.stdout.splitlines()[-1])
    assert {row["kernel"] for row in found} >= {"choose", "choose_back"}
    searches = [row for row in found if row["kernel"].startswith("quantize")]
    assert len(searches) == 3  # the levels; the search alone; narrow tokens of other strides
    by_tensor_cores = {"wgmma.mma_async" if capability == 90 else "mma.sync"} if dim > 16 else set()
    assert {name for row in searches for name in row["products"]} == by_tensor_cores
    assert [row for row in found if row["spilled"] or row["registers"] > 255 or row["atomics"]] == []
