"""`compile = true`: the same training within rounding; without a compiler one clear error before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.test_resume import session
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.training import runtime
from vqtool.training.runtime import require_compiler

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")


def test_a_compiled_stage_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are traced and differentiated as for any backend, and run as they are: C++ takes minutes."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend="aot_eager"))
    monkeypatch.setattr(runtime, "require_compiler", lambda device: None)
    found = {}
    for compiled in ("false", "true"):
        made = session(
            write_recipe(tmp_path), tmp_path / compiled, ["stage.tokenizer.steps=3", f"train.compile={compiled}"]
        )
        assert made.train() == 0
        parts = made.model.parts
        assert (parts.encoder._compiled_call_impl is not None) == (compiled == "true")
        assert parts.quantizer._compiled_call_impl is None
        found[compiled] = checkpoint.load(tmp_path / compiled / "last.safetensors").tensors
    assert found["true"].keys() == found["false"].keys()
    for name, tensor in found["false"].items():
        if "encoder" in name or "decoder" in name:
            torch.testing.assert_close(found["true"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@needs_compiler
def test_a_compiler_that_is_there_is_found() -> None:
    require_compiler.cache_clear()
    require_compiler(torch.device("cpu"))


def test_without_a_compiler_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand much more")

    require_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(VqtoolError, match=r"`compile = true` does not work.*No working C\+\+ compiler found$") as error:
        session(write_recipe(tmp_path), tmp_path / "run", ["train.compile=true"])
    assert error.value.hint == "compile = false, or install a C++ compiler"
    require_compiler.cache_clear()
