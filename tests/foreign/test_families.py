"""Codebooks of every family are found, with their vectors as tokens are compared with them, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.foreign import made
from vqtool.errors import VqtoolError
from vqtool.foreign.families import ForeignCodebook, codebooks_in, fixed_grids, is_copy
from vqtool.foreign.tensors import tensors_in


def found(state: made.State, **options: str) -> list[ForeignCodebook]:
    return codebooks_in(tensors_in(state), **options)


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model.", "_orig_mod."])
@pytest.mark.parametrize("family", made.FAMILIES)
def test_the_codebooks_of_a_family_and_nothing_else(family: str, prefix: str) -> None:
    make, many, counted = made.FAMILIES[family]
    books = found({prefix + name: value for name, value in {**make(), **made.others()}.items()})
    assert len(books) == many
    assert {book.family for book in books} == {family.split(",")[0]}
    for book in books:
        assert book.vectors.ndim == 2
        assert (book.counts is not None) == counted
        assert book.counts is None or len(book.counts) == len(book.vectors)
        assert book.started in (True, None)


def test_no_other_tensor_of_a_model_is_a_codebook() -> None:
    assert found(made.others()) == []


def test_sums_are_divided_by_their_use() -> None:
    book = found(made.mimi())[0]
    assert book.name == "quantizer.semantic_residual_vector_quantizer.layers.0"  # the first of Mimi's own codes
    np.testing.assert_allclose(book.vectors, made.rows(0), rtol=1e-5)


def test_maps_are_applied() -> None:
    (book,) = found(made.simvq())
    assert book.frozen
    np.testing.assert_allclose(book.vectors, 2 * made.rows(), rtol=1e-6)


@pytest.mark.parametrize(("size", "width"), [(64, 16), (16, 64), (32, 32)])
def test_codes_in_columns_are_turned(size: int, width: int) -> None:
    books = found(made.vq_vae_2(size, width))
    np.testing.assert_array_equal(books[0].vectors, made.rows(ord("b"), size, width))


def test_a_square_codebook_of_rows_is_not_turned() -> None:
    state = {"quantize.embed": made.rows(0, 32, 32), "quantize.cluster_size": made.use(0, 32)}
    state["quantize.embed_avg"] = state["quantize.embed"] * state["quantize.cluster_size"][:, None]
    np.testing.assert_array_equal(found(state)[0].vectors, made.rows(0, 32, 32))


def test_heads_and_groups_are_codebooks_of_their_own() -> None:
    books = found(made.lucidrains(heads=2))
    assert [(book.name, book.part) for book in books] == [("vq[0]", 0), ("vq[1]", 1)]
    np.testing.assert_array_equal(books[1].vectors, made.rows(1))
    np.testing.assert_allclose(np.asarray(books[1].counts), made.use(1))
    groups = found(made.wav2vec2())
    assert [book.vectors.shape for book in groups] == [(32, 8), (32, 8)]
    np.testing.assert_array_equal(groups[1].vectors, made.wav2vec2()["quantizer.codevectors"][0, 32:])
    assert {book.unit for book in groups} == {"group"}


def test_levels_are_in_the_order_of_their_numbers() -> None:
    books = found(made.encodec(12))
    assert [book.name for book in books] == [f"quantizer.layers.{q}" for q in range(12)]
    assert {book.unit for book in books} == {"level"}


def test_only_angles_count_where_codes_are_normalised() -> None:
    assert all(book.cosine for book in found(made.dac()))
    unit = made.rows() / np.linalg.norm(made.rows(), axis=1, keepdims=True)
    assert found({"quantize.embedding.weight": unit})[0].cosine
    assert not found(made.vqgan())[0].cosine


def test_optimizers_and_averages_of_what_is_there_are_left_out() -> None:
    state = made.vqgan()
    name = next(iter(state))
    copies = {f"model_ema.{name}": state[name], f"optimizer.{name}": state[name]}
    assert len(found(state | copies)) == 1
    assert len(found({f"ema_model.{name}": state[name]})) == 1  # an average alone is what the file has
    assert is_copy("optimizer_states.0.state.3.exp_avg", {})


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ({"fsq.project_in.weight": (3, 16), "fsq.project_out.weight": (16, 3)}, "FSQ or LFQ"),
        ({"quantizer._levels": (3,), "quantizer._basis": (3,)}, "FSQ"),
        ({"q.values_per_latent.0": (5,), "q.values_per_latent.1": (5,)}, "LatentQuantize"),
    ],
)
def test_grids_are_known_without_a_codebook(names: dict[str, tuple[int, ...]], family: str) -> None:
    tensors = tensors_in({name: np.ones(shape, np.float32) for name, shape in names.items()})
    assert list(fixed_grids(tensors).values()) == [family]
    assert codebooks_in(tensors) == []


def test_the_bits_of_an_lfq_are_known_by_their_powers_of_two() -> None:
    assert fixed_grids(tensors_in({"q.mask": 2 ** np.arange(5, -1, -1)})) == {"q": "LFQ"}
    assert fixed_grids(tensors_in({"attention.mask": np.ones(6, np.int64)})) == {}


def test_a_projected_codebook_is_no_grid() -> None:
    state = made.lucidrains() | {
        "vq.project_in.weight": made.rows(0, 8, 16),
        "vq.project_out.weight": made.rows(0, 16, 8),
    }
    tensors = tensors_in(state)
    assert fixed_grids(tensors, codebooks_in(tensors)) == {}


def test_names_of_one_s_own() -> None:
    state = {f"net.{q}.{name}": value for q in (0, 1)
             for name, value in (("table", made.rows(q)), ("hits", made.use(q)), ("other", made.rows(5)))}  # fmt: skip
    assert found(state) == []
    books = found(state, vectors=r"net\.(\d)\.table$", usage=r"net\.(\d)\.hits$")
    assert [book.tensor for book in books] == ["net.0.table", "net.1.table"]
    np.testing.assert_allclose(np.asarray(books[1].counts), made.use(1))
    by_order = found(state, vectors="table", usage="hits")
    np.testing.assert_allclose(np.asarray(by_order[1].counts), made.use(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vectors": "("}, "not a regular expression"),
        ({"vectors": "nothing"}, "matches none of the 4 tensors"),
        ({"vectors": "table", "usage": "single"}, "matches 1 tensors and --vectors 2"),
        ({"vectors": "single"}, "code vectors are floats"),
        ({"vectors": r"(\d).table", "usage": r"(\d).wrong"}, "which are not counts"),
    ],
)
def test_names_that_do_not_fit_are_errors(options: dict[str, str], message: str) -> None:
    state = {"a.0.table": made.rows(), "a.1.table": made.rows(), "single": made.use(), "0.wrong": made.use(0, 7)}
    with pytest.raises(VqtoolError, match=message):
        found(state, **options)
