"""The files contract: pieces as one, options that a class does not have, and what it says it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtool.api import DataSpec, Field, Files, Piece
from vqtool.errors import VqtoolError

SPEC = DataSpec({"x": Field((1, 4), "signal")})


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


def test_a_path_may_be_text() -> None:
    class Named(Files):
        def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
            yield Piece({}, {"suffix": path.suffix, "condition": condition})

        def histories(self, path: Path | None, *, steps: int) -> tuple[Path | None, int]:
            return path, steps

    files: Any = Named(SPEC)  # its hints say `Path`, which is what it gets
    assert next(files.open("a/b.npz", condition=True)).metadata == {"suffix": ".npz", "condition": True}
    assert next(files.open(path="b.csv")).metadata["suffix"] == ".csv"
    assert files.histories("b.csv", steps=3) == (Path("b.csv"), 3)
    assert files.histories(None, steps=3) == (None, 3)
