"""The beam search down residual levels: greedy at width 1, exhaustive when wide, never off the levels in use."""

from __future__ import annotations

import itertools

import pytest
import torch

from vqtool.quantizers import residual as beam
from vqtool.quantizers.core.search import nearest
from vqtool.quantizers.residual import best_paths


def case(levels: int = 3, size: int = 5, tokens: int = 60) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    books = [torch.randn(size + k, 3, generator=generator) / 2**k for k in range(levels)]
    return books, torch.randn(tokens, 3, generator=generator)


def error(books: list[torch.Tensor], tokens: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """[N] squared errors of the sums of the codes in use."""
    total = torch.zeros_like(tokens)
    for book, level in zip(books, codes.unbind(1), strict=True):
        total += torch.where((level >= 0)[:, None], book[level.clamp_min(0)], 0)
    return (tokens - total).square().sum(1)


def test_one_path_is_the_greedy_way() -> None:
    books, tokens = case()
    rest, wanted = tokens.clone(), []
    for book in books:
        wanted.append(nearest(rest, book)[0])
        rest -= book[wanted[-1]]
    found = best_paths(books, tokens, torch.ones(60, 3, dtype=torch.bool), 1)
    assert torch.equal(found, torch.stack(wanted, 1))


def test_enough_paths_find_the_best_of_all_sums() -> None:
    books, tokens = case()
    every = torch.tensor(list(itertools.product(*(range(len(book)) for book in books))))
    away = torch.stack([error(books, tokens, row.expand(60, 3)) for row in every], 1)
    found = best_paths(books, tokens, torch.ones(60, 3, dtype=torch.bool), 42)
    torch.testing.assert_close(error(books, tokens, found), away.min(1).values)
    greedy = error(books, tokens, best_paths(books, tokens, torch.ones(60, 3, dtype=torch.bool), 1))
    assert float(greedy.mean()) > 1.2 * float(away.min(1).values.mean())


@pytest.mark.parametrize("width", [1, 3, 7])
def test_levels_that_are_not_in_use_get_no_code_and_the_others_their_best(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    books, tokens = case(levels=4)
    first, end = torch.randint(0, 5, (60,)), torch.randint(0, 5, (60,))
    level = torch.arange(4)
    use = (first[:, None] <= level) & (level < end[:, None])
    found = best_paths(books, tokens, use, width)
    assert torch.equal(found >= 0, use)
    for row in range(60):  # alone, and with only the levels that it takes
        mine = [book for book, used in zip(books, use[row], strict=True) if used]
        if mine:
            alone = best_paths(mine, tokens[row : row + 1], torch.ones(1, len(mine), dtype=torch.bool), width)
            assert torch.equal(found[row][use[row]], alone[0])
    monkeypatch.setattr(beam, "CHUNK", 7)
    assert torch.equal(best_paths(books, tokens, use, width), found)


def test_in_a_graph_it_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    books, tokens = case(levels=4)
    use = torch.arange(4) >= torch.randint(0, 5, (60, 1))
    found = best_paths(books, tokens, use, 3)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(best_paths(books, tokens, use, 3), found)
