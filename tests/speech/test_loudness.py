"""Loudness by BS.1770: the standard's coefficients, its calibration tone, gates, and blocks of any size."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest

from tests.speech.sounds import voice
from vqtool.errors import VqtoolError
from vqtool_speech.loudness import Loudness, k_weighting


def loudness(sound: np.ndarray, rate: int, block: int = 10**6) -> float:
    meter = Loudness(rate, sound.shape[1] if sound.ndim == 2 else 1)
    sound = sound.reshape(len(sound), -1)
    for start in range(0, len(sound), block):
        meter.add(sound[start : start + block])
    return meter.integrated()


def test_coefficients_at_48_khz_are_those_of_the_standard() -> None:
    shelf, high_pass = k_weighting(48_000)
    printed = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    np.testing.assert_allclose(shelf, printed, atol=1e-9)
    np.testing.assert_allclose(high_pass, [1, -2, 1, 1, -1.99004745483398, 0.99007225036621], atol=1e-9)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_full_scale_tone_of_997_hz_has_minus_3_lufs(rate: int) -> None:
    tone = np.sin(2 * np.pi * 997 * np.arange(4 * rate) / rate).astype(np.float32)
    assert loudness(tone, rate) == pytest.approx(-3.01, abs=0.06)
    assert loudness(np.stack([tone, tone], 1), rate) == pytest.approx(0.0, abs=0.06)
    assert loudness(0.1 * tone, rate) == pytest.approx(-23.01, abs=0.06)


def test_silence_does_not_count_and_block_sizes_do_not_matter() -> None:
    rate = 16_000
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(4 * rate) / rate).astype(np.float32)
    paused = np.concatenate([tone, np.zeros(8 * rate, np.float32)])
    assert loudness(paused, rate) == pytest.approx(loudness(tone, rate), abs=0.3)
    sound = voice(3.0, rate)
    assert loudness(sound, rate, block=777) == pytest.approx(loudness(sound, rate), abs=1e-9)
    assert loudness(np.zeros(rate, np.float32), rate) == -np.inf
    assert np.isfinite(loudness(tone[:2000], rate))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("below", [0, 9, 10.5, 13, 30])
def test_it_is_pyloudnorm_s_with_passages_on_both_sides_of_the_relative_gate(rate: int, below: float) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 997 * np.arange(3 * rate) / rate)
    quiet = 10 ** (-below / 20) * tone
    sound = np.stack([np.concatenate([tone, quiet, quiet]), np.concatenate([quiet, tone, quiet])], 1)
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    assert loudness(sound.astype(np.float32), rate, block=5000) == pytest.approx(
        meter.integrated_loudness(sound), abs=0.01
    )


def test_what_is_10_lu_below_the_loudness_of_all_does_not_count() -> None:
    rate = 16_000
    tone = 0.3 * np.sin(2 * np.pi * 997 * np.arange(40 * rate) / rate).astype(np.float32)
    alone = loudness(tone, rate)
    for below, counts in ((12.5, True), (13, False)):  # the loudness of both halves is 2.8 LU below that of the first
        both = loudness(np.concatenate([tone, 10 ** (-below / 20) * tone]), rate)
        assert (both < alone - 1) == counts


def test_a_rate_too_low_for_the_filters_is_an_error_and_not_nan() -> None:
    with pytest.raises(VqtoolError, match="4000 Hz or more"):
        Loudness(3999, 1)
    tone = 0.3 * np.sin(2 * np.pi * np.arange(20_000) / 20).astype(np.float32)
    assert np.isfinite(loudness(tone, 4000))
