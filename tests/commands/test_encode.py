"""Codes on their way to a file and back: several pieces, conditions that travel along, what is no codes at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtool.api import Batch, Coded, Data, DataSpec, Field
from vqtool.commands.encode import Counted, encoded, load_codes, save_codes
from vqtool.errors import VqtoolError
from vqtool.training.runtime import Runtime

HERE = Runtime(torch.device("cpu"))
SPEC = DataSpec({"x": Field((1, 4), "signal")})


def piece(at: int, rows: int = 2) -> Coded:
    codes = torch.arange(at, at + rows)[:, None, None].expand(rows, 3, 1)
    return Coded(codes, torch.full((rows, 1), float(at)), {"pitch": torch.arange(at, at + rows)}, {"notes": [f"p{at}"]})


class Task:
    def encode(self, parts: object, batch: Batch) -> dict[str, torch.Tensor]:
        return {"codes": batch["x"].long(), "sent": batch["x"].mean((1, 2))[:, None]}


def test_pieces_are_encoded_one_after_the_other_and_only_when_asked_for() -> None:
    asked: list[int] = []

    def chunks() -> Iterator[tuple[Batch, dict[str, Any]]]:
        for number in range(3):
            asked.append(number)
            yield {"x": torch.full((2, 3, 1), float(number)), "pitch": torch.zeros(2)}, {"notes": []}

    model = type("Model", (), {"parts": None})()
    pieces = Counted(encoded(model, Task(), chunks(), HERE, None))
    first = next(pieces)
    assert asked == [0]
    assert set(first.batch) == {"pitch"}  # the signal does not travel
    assert [int(p.codes[0, 0, 0]) for p in pieces] == [1, 2]
    assert (pieces.windows, pieces.shape) == (6, (3, 1))


def test_codes_in_one_file_come_back_with_their_conditions(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    assert save_codes(path, [piece(0), piece(2)], {"model": "abc", "codebook_sizes": [9]}) == [path]
    about, pieces = load_codes(path)
    (back,) = pieces
    assert (about["model"], about["codebook_sizes"]) == ("abc", [9])
    assert back.codes[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert back.batch["pitch"].tolist() == [0, 1, 2, 3]
    assert back.sent.flatten().tolist() == [0, 0, 2, 2]
    assert back.about == {"notes": ["p0"]}


def test_nothing_to_encode_and_files_without_codes(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="nothing to encode"):
        save_codes(tmp_path / "c.safetensors", [], {})
    (tmp_path / "c.safetensors").write_bytes(b"no codes")
    with pytest.raises(VqtoolError):
        load_codes(tmp_path / "c.safetensors")


def test_data_that_read_one_batch_are_one_piece_and_are_written_as_one(tmp_path: Path) -> None:
    written: list[Any] = []

    class Plain(Data):
        @classmethod
        def read(cls, spec: DataSpec, path: Path, *, condition: bool) -> tuple[Batch, dict[str, Any]]:
            return {"x": torch.zeros(2, 1, 4)}, {"condition": condition}

        @classmethod
        def write(cls, spec: DataSpec, path: Path, signal: torch.Tensor, batch: Batch, about: dict[str, Any]) -> None:
            written.append((signal, batch, about))

    ((batch, about),) = Plain.read_chunks(SPEC, tmp_path)
    assert (batch["x"].shape, about) == ((2, 1, 4), {"condition": False})
    pieces = [(torch.full((1, 1, 4), float(k)), {"pitch": torch.tensor([k])}, {"rate": 8}) for k in range(3)]
    assert Plain.write_chunks(SPEC, tmp_path / "out", iter(pieces)) == [tmp_path / "out"]
    ((signal, conditions, told),) = written
    assert signal[:, 0, 0].tolist() == [0, 1, 2]
    assert conditions["pitch"].tolist() == [0, 1, 2]
    assert told == {"rate": 8}
    assert not Plain.own_codes


def test_data_that_read_files_in_one_way_have_no_options() -> None:
    with pytest.raises(VqtoolError, match="without options") as raised:
        Data.to_encode(SPEC, Path("a"), {}, {"time": "when"})
    assert raised.value.where == "data.time"
