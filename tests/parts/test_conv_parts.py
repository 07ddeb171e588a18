"""Conv encoders, decoders and conditioners: shapes, shifts of periodic signals, and what a condition changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.api import Condition, DataSpec, Field, TensorRows
from vqtool.errors import VqtoolError
from vqtool.parts.conditioners.conv1d import Conv1dConditioner
from vqtool.parts.conditioners.spectrum import SpectrumConditioner
from vqtool.parts.decoders.conv1d import Conv1dDecoder, factors_of
from vqtool.parts.encoders.conv1d import Conv1dEncoder

SPEC = DataSpec(
    {
        "x": Field((1, 32), "signal"),
        "wave": Field((2, 32), "wave"),
        "scalar": Field((3,), "scalar"),
        "kind": Field((), "category", names=("a", "b", "c")),
    },
    periodic=True,
)


def rows(n: int = 12) -> TensorRows:
    torch.manual_seed(0)
    return TensorRows(
        {
            "x": torch.randn(n, 1, 32),
            "wave": torch.randn(n, 2, 32),
            "scalar": 5 + 3 * torch.randn(n, 3),
            "kind": torch.arange(n) % 3,
        }
    )


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=2), st.integers(1, 3), st.integers(1, 4))
def test_a_token_per_stride_and_back(strides: list[int], channels: int, batch: int) -> None:
    encoder = Conv1dEncoder(channels, 32, dim=6, width=4, strides=tuple(strides), padding="circular")
    z = encoder(torch.randn(batch, channels, 32))
    assert z.shape == (batch, 32 // encoder.stride, 6)
    decoder = Conv1dDecoder(6, channels, 32, encoder.stride, width=4, padding="circular")
    assert decoder(z).shape == (batch, channels, 32)


@given(st.integers(1, 7))
def test_a_rotated_period_gives_rotated_tokens(tokens: int) -> None:
    torch.manual_seed(tokens)
    encoder = Conv1dEncoder(1, 32, dim=5, width=4, strides=(2, 2), padding="circular", kernel=3)
    x = torch.randn(2, 1, 32)
    torch.testing.assert_close(encoder(x.roll(4 * tokens, -1)), encoder(x).roll(tokens, 1), rtol=1e-4, atol=1e-5)


def test_zero_padding_is_not_periodic() -> None:
    torch.manual_seed(0)
    encoder = Conv1dEncoder(1, 32, dim=5, width=4, strides=(2, 2), kernel=3)
    x = torch.randn(2, 1, 32)
    assert not torch.allclose(encoder(x.roll(4, -1)), encoder(x).roll(1, 1), atol=1e-4)


def test_lengths_that_do_not_divide_are_refused_early() -> None:
    with pytest.raises(VqtoolError, match="not a multiple"):
        Conv1dEncoder(1, 30, strides=(4,))
    with pytest.raises(VqtoolError, match="multiply"):
        Conv1dDecoder(4, 1, 32, 8, strides=(2, 2))


@given(st.integers(1, 640))
def test_factors_multiply_to_the_stride(stride: int) -> None:
    product = 1
    for factor in factors_of(stride):
        product *= factor
    assert product == stride


def test_a_condition_modulates_once_it_is_learned() -> None:
    torch.manual_seed(0)
    encoder = Conv1dEncoder(1, 32, 4, dim=5, width=4, strides=(4,))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 1, 32)
    first = encoder(x, Condition(torch.zeros(1, 4)))
    assert not torch.allclose(first, encoder(x, Condition(torch.ones(1, 4))), atol=1e-3)


@pytest.mark.parametrize("cls", [Conv1dConditioner, SpectrumConditioner])
def test_conditioners_standardise_on_the_training_rows(cls: type) -> None:
    conditioner = cls(SPEC, dim=8)
    conditioner.fit(rows())
    features = conditioner.features(rows().columns)
    scalars = features[:, conditioner.features.standardised - 3 : conditioner.features.standardised]
    torch.testing.assert_close(scalars.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scalars.std(0), torch.ones(3), atol=1e-4, rtol=0)
    condition = conditioner(rows().columns)
    assert condition.vector.shape == (12, 8)
    if condition.tokens is not None:
        assert condition.tokens.shape == (12, 4, 8)


def test_conditioners_never_read_the_signal() -> None:
    batch = rows().columns
    changed = batch | {"x": torch.randn_like(batch["x"])}
    for conditioner in (Conv1dConditioner(SPEC, dim=8), SpectrumConditioner(SPEC, dim=8)):
        torch.testing.assert_close(conditioner(batch).vector, conditioner(changed).vector, rtol=0, atol=0)


@given(st.floats(0.01, 100))
def test_the_spectrum_separates_a_wave_from_its_size(scale: float) -> None:
    conditioner = SpectrumConditioner(SPEC, dim=8, harmonics=5)
    wave = torch.randn(2, 2, 32)
    one, other = (conditioner.features._spectrum(w) for w in (wave, wave * scale))
    shape = [i for i in range(32) if i % 16 != 15]  # the last of each channel's 16 is the size
    torch.testing.assert_close(one[:, shape], other[:, shape], rtol=1e-3, atol=1e-4)
