"""Codes in one safetensors file and back: several pieces, conditions that travel along, files without codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vqtool.api import CodedPiece
from vqtool.errors import VqtoolError
from vqtool.model.codes import load_codes, save_codes


def piece(at: int, rows: int = 2) -> CodedPiece:
    codes = torch.arange(at, at + rows)[:, None, None].expand(rows, 3, 1)
    conditions = {"pitch": torch.arange(at, at + rows)}
    return CodedPiece(codes, torch.full((rows, 1), float(at)), conditions, {"notes": [f"p{at}"]})


def test_codes_in_one_file_come_back_with_their_conditions(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    assert save_codes(path, [piece(0), piece(2)], {"model": "abc", "codebook_sizes": [9]}) == [path]
    digest, pieces = load_codes(path, {})
    (back,) = pieces
    assert digest == "abc"
    assert back.codes[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert back.conditions["pitch"].tolist() == [0, 1, 2, 3]
    assert back.sent.flatten().tolist() == [0, 0, 2, 2]
    assert back.metadata == {"notes": ["p0"]}


def test_nothing_to_encode_and_files_without_codes(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="nothing to encode"):
        save_codes(tmp_path / "c.safetensors", [], {})
    (tmp_path / "c.safetensors").write_bytes(b"no codes")
    with pytest.raises(VqtoolError):
        load_codes(tmp_path / "c.safetensors", {})
