"""The switch of the GPU kernels, a CPU in the place of the GPU: where they run, and what happens if they fail."""

from __future__ import annotations

import importlib.util
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqtool.quantizers import VQ
from vqtool.quantizers.gpu import operators, switch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was checked or said before; kernels are asked for, Triton is there, and no graph is captured."""
    monkeypatch.setattr(switch, "_trusted", {})
    monkeypatch.setattr(switch, "_noted", set())
    monkeypatch.setenv("VQTOOL_KERNELS", "on")
    installed(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def installed(monkeypatch: pytest.MonkeyPatch, triton: bool) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: (triton or None) if name == "triton" else find(name, *a)
    )


def kernels(**others: Any) -> SimpleNamespace:
    """In the place of the kernels: plain PyTorch, but for `others`."""
    names = ("quantize", "search", "statistics", "pass_back", "follow")
    return SimpleNamespace(**{name: getattr(operators, name) for name in names} | others)


def trust_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check runs on the CPU, and the CPU counts as CUDA."""
    agrees = switch.agrees
    monkeypatch.setattr(switch, "agrees", lambda device, *sizes: agrees(CPU, *sizes))
    monkeypatch.setattr(
        switch, "usable", lambda x, levels=1, groups=1: switch.trusted("cuda", 0, x.shape[-1] // groups, levels)
    )


def off_by_one(x: torch.Tensor, mask: torch.Tensor | None, table: torch.Tensor) -> torch.Tensor:
    return (operators.search(x, mask, table) + 1) % len(table)


def broken(*args: Any) -> Any:
    raise RuntimeError("no compiler")


def test_kernels_that_agree_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "ops", kernels())
    trust_on_the_cpu(monkeypatch)
    assert switch.trusted("cuda", 0, 8, 2)


@pytest.mark.parametrize(
    ("other", "note"),
    [({"search": off_by_one}, "disagree with plain PyTorch"), ({"follow": broken}, "cannot run here.*no compiler")],
)
@pytest.mark.parametrize("levels", [1, 3])
def test_kernels_that_fail_are_not_used_and_it_is_said_once(
    other: dict[str, Any], note: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "ops", kernels(**other))
    trust_on_the_cpu(monkeypatch)
    with pytest.warns(UserWarning, match=note):
        assert not switch.trusted("cuda", 0, 8, levels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not switch.trusted("cuda", 0, 8, levels)


def test_a_quantizer_goes_on_as_without_kernels_where_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        quantizer, x = VQ(8, codebook_size=16), torch.randn(4, 32, 8)
        result = quantizer(x)
        quantizer.update(result.stats)
        return result.codes, result.z, *quantizer.vectors()

    wanted = trained()
    monkeypatch.setattr(switch, "ops", kernels(quantize=broken, search=broken, statistics=broken, follow=broken))
    trust_on_the_cpu(monkeypatch)
    with pytest.warns(UserWarning, match="cannot run here"):
        found = trained()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, generation: tuple[int, int], cuda: str | None = "13.0") -> None:
    """A GPU of a generation, of another make if there is no version of CUDA; nothing is said in the environment."""
    monkeypatch.delenv("VQTOOL_KERNELS", raising=False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: generation)


@pytest.mark.parametrize(
    ("generation", "cuda", "used"),
    [((9, 0), "13.0", True), ((8, 0), "12.4", True), ((7, 5), "12.4", False), ((9, 4), None, False)],
)
def test_unasked_they_run_where_they_were_compiled_for(
    generation: tuple[int, int], cuda: str | None, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, generation, cuda)
    monkeypatch.setattr(switch, "ops", kernels())
    trust_on_the_cpu(monkeypatch)
    assert switch.trusted("cuda", 0, 8, 1) is used
    assert not switch.trusted("cpu", 0, 8, 1)


def test_unasked_they_are_no_part_of_compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(switch, "agrees", lambda *_: True)
    assert not switch.trusted("cuda", 0, 8, 1, compiled=True)
    assert switch.trusted("cuda", 0, 8, 1)
    assert not switch.trusted("cuda", 0, 8, 1, compiled=True)
    monkeypatch.setenv("VQTOOL_KERNELS", "on")
    assert switch.trusted("cuda", 0, 8, 1, compiled=True)


def test_off_is_off_and_another_word_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(switch, "agrees", lambda *_: pytest.fail("checked though it is off"))
    monkeypatch.setenv("VQTOOL_KERNELS", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not switch.trusted("cuda", 0, 8, 1)
    monkeypatch.setenv("VQTOOL_KERNELS", "1")
    with pytest.warns(UserWarning, match="auto, on, certified or off, not `1`"):
        assert not switch.trusted("cuda", 0, 16, 1)


@pytest.mark.parametrize("dim", [1, 2, 64])
def test_the_check_does_not_ask_for_codes_that_rounding_decides(dim: int) -> None:
    x, mask, tables, *_ = switch.trial_inputs(dim, 3, 1)
    codes = operators.quantize(x, mask, tables, 1, False)[0]
    whole = operators.quantize(x.double(), mask, tables.double(), 1, False)[0]
    moved = operators.quantize(x * (1 + 1e-6), mask, tables, 1, False)[0]
    assert torch.equal(codes, whole)
    assert torch.equal(codes, moved)
    assert int(mask.sum()) > switch.CHECKED / 2


def test_without_triton_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, False)
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert not switch.trusted("cuda", 0, 8, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not switch.trusted("cuda", 0, 16, 1)


def test_a_capture_puts_the_check_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "ops", kernels())
    trust_on_the_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not switch.trusted("cuda", 0, 8, 1)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert switch.trusted("cuda", 0, 8, 1)


def like(dtype: torch.dtype = torch.float32, dim: int = 8, rows: int = 3) -> Any:
    """Something with what the switch asks of tokens on CUDA."""
    row = SimpleNamespace(device=SimpleNamespace(type="cuda", index=None), dtype=dtype, shape=(rows, dim))
    return type("Rows", (SimpleNamespace,), {"__len__": lambda self: rows})(**vars(row))


def test_the_cpu_and_other_types_use_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "agrees", lambda *_: True)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.warns(UserWarning, match="need CUDA"):
        assert not switch.usable(torch.zeros(3, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not switch.usable(torch.zeros(3, 8))
        assert switch.usable(like())
        assert switch.usable(like(torch.bfloat16))
        assert switch.usable(like(dim=switch.WIDEST))
        for other in (like(torch.float64), like(rows=0)):
            assert not switch.usable(other)


def test_odd_sizes_are_left_to_pytorch_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "agrees", lambda *_: pytest.fail("checked"))
    with pytest.warns(UserWarning, match="up to 512 features"):
        assert not switch.usable(like(dim=switch.WIDEST + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not switch.usable(like(dim=switch.WIDEST + 2))


def test_a_compiled_graph_takes_the_answer_as_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the mark the look at the environment and the warning would break the graph."""
    assert torch.compiler.assume_constant_result(lambda: None)._dynamo_marked_constant  # the name of PyTorch's mark
    monkeypatch.setattr(switch, "ops", kernels(quantize=broken))
    trust_on_the_cpu(monkeypatch)

    def either(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if switch.trusted("cuda", 0, 8, 1) else x - 1

    with pytest.warns(UserWarning, match="cannot run here"):
        found = torch.compile(either, fullgraph=True, backend="eager")(torch.zeros(3))
    assert torch.equal(found, -torch.ones(3))
    del switch.trusted._dynamo_marked_constant
    try:
        torch._dynamo.reset()
        monkeypatch.setattr(switch, "_trusted", {})
        with pytest.raises(torch._dynamo.exc.TorchDynamoException):
            torch.compile(either, fullgraph=True, backend="eager")(torch.zeros(3))
    finally:
        switch.trusted._dynamo_marked_constant = True
        torch._dynamo.reset()
