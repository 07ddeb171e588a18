"""The ladder of levels: loud tokens take all of them, soft ones the last, those under the floor none."""

from __future__ import annotations

import pytest
import torch

from vqtool.conformance import QUANTIZER_LAWS, Law, Subject, judge
from vqtool.quantizers.residual import ResidualEMA
from vqtool.quantizers.waterfill import ResidualWaterfill

HOLD = {  # laws that ask no code of every token
    "forward-pure", "straight-through-gain", "commitment-reaches-encoder", "ema-follows-inputs", "ema-start",
    "unused-code-rests", "nan-contained", "decode-round-trip", "accumulation", "state-round-trip", "forward-exact",
}  # fmt: skip


def spread(tokens: int = 4000, dim: int = 4, seed: int = 0) -> torch.Tensor:
    """Tokens [1, N, D] with energies over 60 dB."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(1, tokens, dim, generator=generator)
    return z * 10 ** (-3 * torch.rand(1, tokens, 1, generator=generator))


def made(z: torch.Tensor, **options: object) -> ResidualWaterfill:
    how = {"codebook_size": 64, "levels": 5, "step_db": 7.0, "floor_db": -35.0} | options
    quantizer = ResidualWaterfill(z.shape[-1], **how)
    quantizer.initialise(z)
    return quantizer.eval()


def test_a_token_climbs_on_where_its_energy_says_and_stays() -> None:
    z = spread()
    q = made(z)
    out = q(z)
    used = (out.codes[0] >= 0).long()
    above = 10 * (z[0].square().mean(1) / q.floor).log10() / 7.0
    assert torch.equal(used.sum(1), above.ceil().clamp(0, 5).long())
    assert bool((used.diff(dim=1) >= 0).all())  # none is left out after the first
    silent = above <= 0
    assert bool(silent.any())
    assert not out.hard[0, silent].any()
    assert torch.equal(q.decode(out.codes), out.hard)


def test_errors_end_near_the_floor_whatever_the_energy() -> None:
    z = spread()
    q = made(z)
    error = (z - q(z).hard).square().mean(2)[0]
    energy = z[0].square().mean(1)
    coded = energy > q.floor
    loud = energy > 30 * q.floor
    assert float(error[coded].mean()) < 3 * float(q.floor)
    assert float(error[loud].mean()) < 3 * float(error[coded & ~loud].mean())


def test_fewer_levels_cost_less_and_the_first_codes_stay() -> None:
    z = spread()
    full, half = made(z), made(z, depth=3)
    a, b = full(z), half(z)
    assert torch.equal(a.codes[..., :3], b.codes[..., :3])
    assert bool((b.codes[..., 3:] == -1).all())
    assert float((z - b.hard).square().mean()) > float((z - a.hard).square().mean())
    torch.testing.assert_close(full.decode(a.codes[..., :3]), b.hard)


def test_it_is_better_than_equal_levels_at_the_same_number_of_codes() -> None:
    z, other = spread(), spread(seed=1)
    q = made(z)
    codes = q(other).codes
    plain = ResidualEMA(4, codebook_size=64, levels=-(-int((codes >= 0).sum()) // codes.shape[1]))
    plain.initialise(z)
    assert len(plain.codebook_sizes) <= 4
    away = [float((other - each.eval()(other).hard).square().mean()) for each in (q, plain)]
    assert away[0] < 0.8 * away[1]


def test_a_beam_is_closer_at_the_same_rate_and_fills_the_same_levels() -> None:
    z, other = spread(), spread(seed=1)
    greedy, wide = made(z), made(z, beam=4)
    a, b = greedy(other), wide(other)
    assert torch.equal(a.codes >= 0, b.codes >= 0)
    assert torch.equal(wide.decode(b.codes), b.hard)
    assert float((other - b.hard).square().mean()) < 0.75 * float((other - a.hard).square().mean())
    assert greedy.nearest
    assert not wide.nearest


def test_a_start_from_more_tokens_fits_others_better() -> None:
    few, many, other = spread(700), spread(30_000), spread(seed=1)
    away = [float((other - made(z, codebook_size=128)(other).hard).square().mean()) for z in (few, many)]
    assert away[1] < 0.7 * away[0]
    assert made(few, start_tokens=500).start_tokens == 500


def test_the_use_of_codes_is_what_training_saw() -> None:
    z = spread()
    q = made(z, decay=0.0, revive_below=0.0).train()
    out = q(z)
    q.update(out.stats)
    for level, use in enumerate(q.code_use()):
        seen = torch.bincount(out.codes[0, :, level][out.codes[0, :, level] >= 0], minlength=64)
        torch.testing.assert_close(use, seen.float())


def test_the_rate_is_that_of_gaussian_tokens_and_reaches_the_encoder() -> None:
    z = torch.randn(1, 500, 4)
    q = made(z, floor_db=-20.0)
    z = z.requires_grad_()
    rate = q(z).terms["rate"]
    bits = (1 + z.square().mean(2) / q.floor).log2().mean() / 2
    torch.testing.assert_close(rate, bits)
    assert float(rate) == pytest.approx(0.5 * 6.644, abs=0.4)
    (gradient,) = torch.autograd.grad(rate, z)
    assert bool((gradient * z > 0).all())  # louder costs more


def test_level_dropout_ends_windows_early_in_training_only() -> None:
    z = spread(200).repeat(90, 1, 1) + 0.01 * torch.randn(90, 200, 4, generator=torch.Generator().manual_seed(0))
    q = made(z, level_dropout=0.5).train()
    deepest = [int((codes >= 0).any(0).nonzero().max()) for codes in q(z).codes]
    assert set(deepest) == {0, 1, 2, 3, 4}
    assert 90 > deepest.count(4) > 30
    assert all(int((codes >= 0).any(0).nonzero().max()) == 4 for codes in q.eval()(z).codes)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("law", [law for law in QUANTIZER_LAWS if law.id in HOLD], ids=lambda law: law.id)
def test_laws_hold_where_many_tokens_are_under_a_level(law: Law[Subject], beam: int) -> None:
    subject = Subject(ResidualWaterfill, options={"levels": 4, "step_db": 3.0, "floor_db": -6.0, "beam": beam})
    assert judge(law, subject).verdict.status in ("kept", "n/a")
