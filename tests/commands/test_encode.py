"""`vqtool encode` takes pieces one after the other and counts them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vqtool.api import Batch, DataSpec, Field, Piece
from vqtool.commands.encode import Watched, encoded
from vqtool.progress import Progress
from vqtool.training.runtime import Runtime

HERE = Runtime(torch.device("cpu"))
SPEC = DataSpec({"x": Field((1, 4), "signal")})


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
    bar = Progress(9, "encode")
    watched = Watched(encoded(model, Task(), opened(), HERE, None), bar)
    pieces = iter(watched)
    first = next(pieces)
    assert asked == [0]
    assert (bar.done, bar.total) == (0, None)
    assert set(first.conditions) == {"pitch"}  # the signal does not travel
    assert first.metadata == {"rate": 8, "notes": ["mixed"]}
    assert [int(p.codes[0, 0, 0]) for p in pieces] == [1, 2]
    assert (watched.rows, watched.shape, bar.done) == (6, (3, 1), 3)
