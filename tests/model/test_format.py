"""Headers of checkpoints, written by hand: what cannot be is one error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vqtool.errors import VqtoolError
from vqtool.forms import misfit
from vqtool.model.format import read_header

TENSOR = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def written(path: Path, metadata: dict[str, str], **table: Any) -> Path:
    header = json.dumps({"__metadata__": {"format": "vqtool/1", **metadata}, **table}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    return path


def test_a_header(tmp_path: Path) -> None:
    header = read_header(written(tmp_path / "a", {"aliases": '{"y": "x"}', "stage": "12", "step": "3"}, x=TENSOR))
    assert header.tensors == {"x": ("F32", (2, 3))}
    assert header.aliases == {"y": "x"}
    assert (header.metadata["stage"], header.metadata["step"], header.numbers) == ("12", 3, 6)


@pytest.mark.parametrize(("metadata", "table", "message"), [
    ({"aliases": '{"y": "z"}'}, {"x": TENSOR}, "it has no tensor `z`"),
    ({"aliases": '{"x": "x"}'}, {"x": TENSOR}, "name `x`, which is a tensor of its own"),
    ({"aliases": "[1]"}, {"x": TENSOR}, "its `aliases` should be a table"),
    ({"layout": '{"z": "F32[1]"}'}, {"x": TENSOR}, "it has no tensor `z`"),
    ({"layout": '{"x": "F16[2, 3]"}'}, {"x": TENSOR}, "its tensor `x` is F32[2, 3], not F16[2, 3]"),
    ({}, {"x": TENSOR | {"shape": [10**9, 10**9]}}, "the place of its tensor `x` does not fit its shape"),
    ({}, {"x": TENSOR | {"shape": [-2, -3]}}, "has the dtype F32 and the shape [-2, -3]"),
    ({}, {"x": TENSOR | {"dtype": "Q9"}}, "has the dtype Q9"),
    ({}, {"x": TENSOR | {"data_offsets": [24, 48]}}, "the place of its tensor `x`"),
    ({}, {"x": {"dtype": "F32"}}, "its `x` has no `shape`"),
    ({}, {"x": 3}, "its `x` should be a table"),
    ({}, {"x": TENSOR, "y": TENSOR | {"data_offsets": [24, 48]}}, "is truncated: 24 bytes are missing"),
])  # fmt: skip
def test_what_cannot_be_is_named(tmp_path: Path, metadata: dict[str, str], table: dict[str, Any], message: str) -> None:
    with pytest.raises(VqtoolError) as caught:
        read_header(written(tmp_path / "a", metadata, **table))
    assert message in caught.value.message
    assert str(tmp_path / "a") in caught.value.message


@pytest.mark.parametrize(("value", "form", "message"), [
    (1, int, None), (1, float, None), (True, int, "it should be a whole number"), (2**70, float, "a number"),
    (float("nan"), float, None), ("x", (int, str), None), (None, (int, None), None), ([], dict, "it should be a table"),
    ({"a": [1, "x"]}, {"a": [int]}, "its `a[1]` should be a whole number"), ({}, {"a": int}, "it has no `a`"),
    ({"b": 1}, {"a?": int}, None), ({"b": "x"}, {str: int}, "its `b` should be a whole number"),
])  # fmt: skip
def test_forms(value: Any, form: Any, message: str | None) -> None:
    found = misfit(value, form)
    assert found is None if message is None else message in str(found)
