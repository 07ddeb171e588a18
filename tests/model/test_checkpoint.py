"""Checkpoints: whole or not at all, tied weights, and one clear error for what is no checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from vqtool.diagnosis.reading import read as diagnosis_read
from vqtool.errors import VqtoolError
from vqtool.files import write_atomic
from vqtool.model import checkpoint


def test_tied_tensors_are_stored_once_and_come_back_twice(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    checkpoint.save(tmp_path / "a.safetensors", {"one": weight, "two": weight, "view": weight[:2]}, {"n": 3})
    read = checkpoint.load(tmp_path / "a.safetensors")
    assert torch.equal(read.tensors["one"], weight)
    assert torch.equal(read.tensors["two"], weight)
    assert torch.equal(read.tensors["view"], weight[:2])
    assert read.metadata["n"] == 3


@pytest.mark.parametrize(("metadata", "message"), [
    ({"format": "vqtool/99"}, "has the format vqtool/99"),
    ({"quantizer": "{garbage"}, "is damaged: its `quantizer` is not JSON"),
    ({"recipe": "[data]\nkind = 'a'"}, None),
])  # fmt: skip
def test_metadata_that_cannot_be_read_are_one_error(
    tmp_path: Path, metadata: dict[str, str], message: str | None
) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2)}, path, {"format": "vqtool/1"} | metadata)
    for read in (checkpoint.load, lambda file: diagnosis_read(file, lambda name: True)):
        if message is None:
            read(path)
        else:
            with pytest.raises(VqtoolError, match=message):
                read(path)


@pytest.mark.parametrize("cut", [0, 4, 100, -10])
def test_a_truncated_file_is_one_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": torch.randn(50)}, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(VqtoolError):
        checkpoint.load(path)


def test_a_foreign_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(VqtoolError, match="not a checkpoint of vqtool"):
        checkpoint.load(path)
    with pytest.raises(VqtoolError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": torch.ones(2)}, {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VqtoolError, match="No space left") as caught:
        write_atomic(path, b"new")
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert torch.equal(checkpoint.load(path).tensors["x"], torch.ones(2))
    assert [f.name for f in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_state_that_does_not_fit_names_the_tensor() -> None:
    with pytest.raises(VqtoolError, match="weight"):
        checkpoint.fill(nn.Linear(2, 3), {"weight": torch.zeros(5, 2), "bias": torch.zeros(3)}, "x")
    with pytest.raises(VqtoolError, match="has no bias"):
        checkpoint.fill(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, "x")


def test_a_stage_s_checkpoint_loads_alone(tmp_path: Path) -> None:
    """The run holds the untrained parts of later stages as well; the tokenizer is whole without them."""
    from tests.training.test_resume import session
    from tests.training.tiny import write_recipe
    from vqtool.model.load import from_checkpoint

    made = session(write_recipe(tmp_path, prior=True), tmp_path / "run", ["stage.tokenizer.steps=2"])
    made.train(until="tokenizer")
    model, read = from_checkpoint(tmp_path / "run" / "tokenizer.safetensors")
    assert any(name.startswith("parts.prior.") for name in read.tensors)
    assert "prior" not in model.parts
    assert torch.equal(model.parts.encoder.start.conv.weight, made.model.parts.encoder.start.conv.weight)


def test_half_as_many_bytes_are_read_as_float32(tmp_path: Path) -> None:
    weight, places = torch.randn(400, 3), torch.arange(5)
    tensors = {"parts.a": weight, "parts.b": weight, "parts.n": places, "usage.0.counts": torch.ones(3)}
    checkpoint.save(tmp_path / "a.safetensors", tensors, {"layout": checkpoint.layout({"parts.a": weight})})
    checkpoint.save_half(tmp_path / "b.safetensors", checkpoint.load(tmp_path / "a.safetensors"))
    read = checkpoint.load(tmp_path / "b.safetensors")
    assert read.tensors.keys() == {"parts.a", "parts.b", "parts.n"}
    assert torch.equal(read.tensors["parts.a"], weight.half().float())
    assert torch.equal(read.tensors["parts.b"], read.tensors["parts.a"])
    assert torch.equal(read.tensors["parts.n"], places)
    assert (tmp_path / "b.safetensors").stat().st_size < 0.65 * (tmp_path / "a.safetensors").stat().st_size


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    tensors = {
        "parts.large": torch.tensor([1.0, 1e5]),
        "parts.small": torch.tensor([1e-9]),
        "parts.none": torch.ones(0),
    }
    checkpoint.save(tmp_path / "a.safetensors", tensors, {})
    checkpoint.save_half(tmp_path / "b.safetensors", checkpoint.load(tmp_path / "a.safetensors"))
    read = checkpoint.load(tmp_path / "b.safetensors").tensors
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_what_was_float16_stays_so(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.safetensors", {"x": torch.ones(3).half()}, {})
    assert checkpoint.load(tmp_path / "a.safetensors").tensors["x"].dtype == torch.float16
