"""Codes on their way to a file and back: several pieces, conditions that travel along, what is no codes at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vqtool.api import Batch, CodedPiece, DataSpec, Field, Files, Piece
from vqtool.commands.encode import Counted, encoded
from vqtool.errors import VqtoolError
from vqtool.model.user_files import load_codes, save_codes
from vqtool.training.runtime import Runtime

HERE = Runtime(torch.device("cpu"))
SPEC = DataSpec({"x": Field((1, 4), "signal")})


def piece(at: int, rows: int = 2) -> CodedPiece:
    codes = torch.arange(at, at + rows)[:, None, None].expand(rows, 3, 1)
    conditions = {"pitch": torch.arange(at, at + rows)}
    return CodedPiece(codes, torch.full((rows, 1), float(at)), conditions, {"notes": [f"p{at}"]})


class Task:
    def encode(self, parts: object, batch: Batch) -> dict[str, torch.Tensor]:
        return {"codes": batch["x"].long(), "sent": batch["x"].mean((1, 2))[:, None]}


def test_pieces_are_encoded_one_after_the_other_and_only_when_asked_for() -> None:
    asked: list[int] = []

    def opened() -> Iterator[Piece]:
        for number in range(3):
            asked.append(number)
            yield Piece({"x": torch.full((2, 3, 1), float(number)), "pitch": torch.zeros(2)}, {"rate": 8}, ["mixed"])

    model = type("Model", (), {"parts": None})()
    pieces = Counted(encoded(model, Task(), opened(), HERE, None))
    first = next(pieces)
    assert asked == [0]
    assert set(first.conditions) == {"pitch"}  # the signal does not travel
    assert first.metadata == {"rate": 8, "notes": ["mixed"]}
    assert [int(p.codes[0, 0, 0]) for p in pieces] == [1, 2]
    assert (pieces.windows, pieces.shape) == (6, (3, 1))


def test_codes_in_one_file_come_back_with_their_conditions(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    assert save_codes(path, [piece(0), piece(2)], {"model": "abc", "codebook_sizes": [9]}) == [path]
    digest, pieces = load_codes(path)
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
        load_codes(tmp_path / "c.safetensors")


def test_pieces_are_joined_with_the_metadata_of_the_first() -> None:
    pieces = [Piece({"x": torch.full((1, 1, 4), float(k)), "pitch": torch.tensor([k])}, {"rate": k}) for k in range(3)]
    whole = Piece.joined(iter(pieces))
    assert whole.batch["x"][:, 0, 0].tolist() == [0, 1, 2]
    assert whole.batch["pitch"].tolist() == [0, 1, 2]
    assert whole.metadata == {"rate": 0}


def test_files_that_are_read_in_one_way_have_no_options() -> None:
    with pytest.raises(VqtoolError, match="without options") as raised:
        Files(SPEC, {"time": "day"}, {"time": "when"})
    assert raised.value.where == "data.time"


def test_files_say_what_they_cannot_do() -> None:
    class Written(Files):
        pass

    with pytest.raises(VqtoolError, match="`Written` does not read conditions to generate from"):
        Written(SPEC).open(Path("a"), condition=True)
    with pytest.raises(VqtoolError, match="`Written` does not read files of a user"):
        Written(SPEC).open(Path("a"))
    with pytest.raises(VqtoolError, match="`Written` does not write signals"):
        Written(SPEC).save(Path("a"), iter([]))
