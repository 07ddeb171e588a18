"""The laws of vqtool's quantizers can fail: bugs planted in `ema`, each caught by exactly the laws that name it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from vqtool.api import Route
from vqtool.conformance import QUANTIZER_LAWS, Subject, judge, require
from vqtool.quantizers.residual import ResidualEMA
from vqtool.quantizers.routed import Routed, Router
from vqtool.quantizers.vq import EMA

SKIPPED = {"compiles", "exports"}  # slow, and no mutant here concerns them


class FedWithOutputs(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        (stats,) = q.stats or (None,)
        if stats is None:
            return q
        return dataclasses.replace(
            q, stats=(dataclasses.replace(stats, sums=stats.counts[:, None] * self.codebook.codes),)
        )


class CommitmentSendsNothing(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        return dataclasses.replace(q, terms={"commitment": q.terms["commitment"].detach()})


class Rounds(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        hard = q.hard
        return dataclasses.replace(q, z=torch.where(q.codes >= 0, z + (hard - z).detach(), 0))


class GainOfTwo(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        return dataclasses.replace(q, z=q.z + torch.where(q.codes >= 0, z - z.detach(), 0))


class MovesInForward(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        if self.training and z.numel():
            self.codebook.weights.add_(1e-3)
        return q


class MovesInEvaluation(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        if not self.training:
            self.codebook.weights.add_(1e-3)
        return q


class UnusedDrift(EMA):
    def update(self, stats):
        resting = (stats[0].counts == 0) & (self.codebook.weights > 0)
        self.codebook.codes.mul_(torch.where(resting, 0.999, 1.0)[:, None])
        super().update(stats)


class AbsoluteThreshold(EMA):
    def update(self, stats):
        super().update(stats)
        dead = (self.codebook.weights < 2.0).nonzero().squeeze(1)
        fresh = stats[0].samples[stats[0].samples.isfinite().all(1)]
        dead = dead[: fresh.shape[0]]
        self.codebook.codes[dead] = fresh[: dead.shape[0]]


class ForgetsWhatWasSet(EMA):
    def __init__(self, dim, **options):
        super().__init__(dim, **options)
        self.register_buffer("stale", torch.zeros(options["codebook_size"], dim))

    def update(self, stats):
        if bool(self.stale.any()):
            self.codebook.codes.lerp_(self.stale, 0.5)
        super().update(stats)
        if bool(stats[0].counts.any()):
            self.stale.copy_(self.codebook.codes)


class DrawsGlobally(EMA):
    def forward(self, z, mask=None):
        torch.rand(1)
        return super().forward(z, mask)


class TwoOwners(EMA):
    def __init__(self, dim, **options):
        super().__init__(dim, **options)
        codes = self.codebook.codes
        del self.codebook.codes
        self.codebook.codes = torch.nn.Parameter(codes)

    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        flat = q.codes.reshape(-1)
        rows = self.codebook.codes[flat.clamp_min(0)] * (flat >= 0)[:, None]
        pull = (rows - q.hard.reshape(rows.shape)).square().sum() + (rows.sum() - rows.sum().detach())
        return dataclasses.replace(q, hard=q.hard.detach(), terms={"commitment": q.terms["commitment"] + pull})


class WrongAtAnOffset(EMA):
    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        far = bool((z.detach().nan_to_num(0.0, 0.0, 0.0).abs() > 5000).any())
        return dataclasses.replace(q, codes=torch.where(q.codes > 0, q.codes - 1, q.codes)) if far else q


class SilentStart(EMA):
    def forward(self, z, mask=None):
        if not self.initialised:
            self.initialise(z, mask)
        return super().forward(z, mask)


class StartsByChance(EMA):
    starts = itertools.count()

    def initialise(self, z, mask=None, *, seed=0):
        super().initialise(z, mask, seed=next(self.starts))


class DecodesAnything(EMA):
    """What a lookup does to an index is left to it."""

    def check_codes(self, codes):
        pass

    def decode(self, codes):
        return super().decode(codes.clamp_max(self.codebook_sizes[0] - 1))


class LevelsPullOnce(ResidualEMA):
    """The commitment of the last level only."""

    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        valid = (q.codes[..., :1] >= 0) & (q.codes[..., -1:] >= 0)
        away = torch.where(valid, z.float() - q.hard, 0)
        return dataclasses.replace(q, terms={"commitment": away.square().sum() / max(int(valid.sum()) * self.dim, 1)})


class TwoExpertsACode(Routed):
    """Tells the codes of the second expert whoever is taken."""

    def forward(self, z, mask=None):
        q = super().forward(z, mask)
        codes = q.codes.clone()
        some = (codes >= 0).any(-1)
        codes[..., 1] = torch.where(some & (codes[..., 1] < 0), 0, codes[..., 1])
        return dataclasses.replace(q, codes=codes)


class PullingRouter(Router):
    def forward(self, tokens, real):
        features = tokens.sum(1) / real.sum(1).clamp_min(1)[:, None]
        logits = self.logits(torch.cat([features, features], 1))
        return Route(logits.argmax(1), logits.softmax(1))


class RouterPulls(Routed):
    """The router's gradient goes on to the latents."""

    def __init__(self, dim, **options):
        super().__init__(dim, **options)
        self.router = PullingRouter(dim, len(self.codebook_sizes))


MUTANTS = {
    FedWithOutputs: {"ema-follows-inputs"},
    CommitmentSendsNothing: {"commitment-reaches-encoder"},
    Rounds: {"forward-exact"},
    GainOfTwo: {"straight-through-gain"},
    MovesInForward: {"forward-pure", "checkpointing", "accumulation", "ranks-add-up"},
    MovesInEvaluation: {"forward-pure", "eval-changes-nothing"},
    UnusedDrift: {"unused-code-rests", "revival-relative"},
    AbsoluteThreshold: {"revival-relative", "unused-code-rests"},
    ForgetsWhatWasSet: {"set-codebook-survives"},
    DrawsGlobally: {"own-random-state"},
    TwoOwners: {"one-owner", "commitment-spares-codebook"},
    WrongAtAnOffset: {"nearest-code"},
    SilentStart: {"never-silent-start"},
    StartsByChance: {"deterministic"},
    DecodesAnything: {"refuses-foreign-codes"},
    LevelsPullOnce: {"commitment-reaches-encoder"},
    TwoExpertsACode: {
        "codes-are-codes",
        "forward-exact",
        "decode-round-trip",
        "nearest-code",
        "row-permutation",
        "commitment-reaches-encoder",
        "ema-follows-inputs",
    },
    RouterPulls: {"straight-through-gain"},
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_mutant_is_caught_by_the_laws_that_name_it(mutant):
    levels = {"levels": 2} if issubclass(mutant, ResidualEMA) else {}
    size = {} if issubclass(mutant, Routed) else {"codebook_size": 48}
    subject = Subject(mutant, options={**size, **levels})
    found = {
        law.id for law in QUANTIZER_LAWS if law.id not in SKIPPED and judge(law, subject).verdict.status == "broken"
    }
    assert found == MUTANTS[mutant]


def test_require_reports_figure_and_fix():
    law = next(law for law in QUANTIZER_LAWS if law.id == "straight-through-gain")
    with pytest.raises(AssertionError, match=r"gain.*2\.0.*fix"):
        require(law, Subject(GainOfTwo))
