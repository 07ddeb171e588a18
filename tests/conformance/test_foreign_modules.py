"""The kit on foreign modules: each planted bug is caught by exactly the laws that name it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.conformance.foreign_modules import MUTANTS, UPDATES_IN_FORWARD, Exact, PlainVQ
from tests.conformance.trained import (
    OTHER_RULES,
    WRONG_CHOICES,
    WRONG_LOSSES,
    CachedNorms,
    TrainedByTheCaller,
    TrainedByTheDecoder,
    TrainedVQ,
    Undetached,
    WithEntropy,
)
from vqtool.conformance import FOREIGN_LAWS, infer_interface, judge_all
from vqtool.conformance.foreign_module import arranged, flattened
from vqtool.errors import VqtoolError


def verdicts(make, **options):
    foreign = infer_interface(make, "foreign", options)
    return foreign, {o.law.id: o.verdict for o in judge_all(FOREIGN_LAWS, foreign)}


def broken(found):
    return {name for name, verdict in found.items() if verdict.status == "broken"}


def test_a_right_module_keeps_every_law_but_the_one_it_cannot():
    foreign, found = verdicts(lambda: PlainVQ(8), dim=8)
    assert (foreign.layout, foreign.dim) == ("BTD", 8)
    assert broken(found) == UPDATES_IN_FORWARD
    assert sum(v.status == "kept" for v in found.values()) >= 15


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_mutant_is_caught_by_exactly_the_law_that_names_it(mutant):
    _, found = verdicts(lambda: mutant(8), dim=8)
    assert broken(found) - UPDATES_IN_FORWARD == MUTANTS[mutant]


@pytest.mark.parametrize("layout", ["BTD", "BDT", "BDHW", "ND", "BHWD"])
def test_layouts_go_there_and_back(layout):
    tokens = torch.randn(36, 5)
    assert torch.equal(flattened(arranged(tokens, layout), layout), tokens)


@dataclasses.dataclass
class Output:
    latents: torch.Tensor
    info: dict[str, torch.Tensor]


class Images(nn.Module):
    """Channel-first images, a trained codebook, one-hot codes among other outputs, in a dataclass."""

    def __init__(self, n_e: int = 20, e_dim: int = 6, detached: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_e, e_dim)
        self.detached = detached

    def forward(self, x: torch.Tensor) -> Output:
        flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        codes = torch.cdist(flat.double(), self.embedding.weight.double()).argmin(1)
        q = self.embedding(codes).view(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)
        encoder = x.detach() if self.detached else x
        loss = F.mse_loss(q, x.detach()) + 0.25 * F.mse_loss(encoder, q.detach())
        onehot = F.one_hot(codes, self.embedding.num_embeddings).float()
        usage = onehot.mean(0)
        perplexity = torch.exp(-(usage * (usage + 1e-10).log()).sum())
        value = Exact.apply(x, q.detach())
        return Output(value, {"loss": loss, "perplexity": perplexity, "encodings": onehot})


def test_channel_first_images_with_one_hot_codes():
    foreign, found = verdicts(Images)
    assert (foreign.layout, foreign.dim) == ("BDHW", 6)
    assert broken(found) == set()
    assert found["one-owner"].status == "kept"  # nothing but the optimizer moves the codes
    assert found["forward-exact"].status == "kept"


def test_a_loss_that_trains_the_codebook_only():
    _, found = verdicts(lambda: Images(detached=True))
    assert broken(found) == {"commitment-reaches-encoder"}


class FirstLevelOnly(nn.Module):
    """A residual quantizer whose deeper commitments are cut off, as in codecs before 2024; codes [Q, B, T]."""

    def __init__(self, dim: int = 8, levels: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Embedding(12, dim) for _ in range(levels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = x.transpose(1, 2)
        rest, total, codes, losses = x, torch.zeros_like(x), [], []
        for layer in self.layers:
            found = (
                torch.cdist(rest.detach().reshape(-1, x.shape[-1]).double(), layer.weight.double())
                .argmin(1)
                .view(x.shape[:2])
            )
            q = layer(found).detach()
            losses.append(F.mse_loss(rest, q) + F.mse_loss(layer(found), rest.detach()))
            rest, total = (rest - q).detach(), total + q
            codes.append(found)
        return Exact.apply(x, total).transpose(1, 2), torch.stack(codes), torch.stack(losses)


def test_commitment_of_the_first_level_only():
    foreign, found = verdicts(FirstLevelOnly)
    assert foreign.layout == "BDT"
    assert broken(found) == {"commitment-reaches-encoder"}
    assert found["commitment-reaches-encoder"].figure < 0.05


def test_a_module_that_takes_nothing_known_is_refused_with_a_reason():
    with pytest.raises(VqtoolError, match="took no input"):
        infer_interface(lambda: nn.Bilinear(3, 3, 3), "odd", {})


RIGHT = (TrainedVQ, Undetached, WithEntropy, TrainedByTheDecoder, TrainedByTheCaller)


@pytest.mark.parametrize("right", RIGHT, ids=lambda m: m.__name__)
def test_a_right_module_that_the_optimizer_trains_keeps_every_law(right):
    _, found = verdicts(right)
    assert broken(found) == set()
    assert {found[n].status for n in ("nearest-code", "commitment-reaches-encoder", "codebook-learns")} == {"kept"}


@pytest.mark.parametrize("mutant", WRONG_LOSSES, ids=lambda m: m.__name__)
def test_a_loss_that_parts_codes_and_inputs_or_trains_no_codes_is_caught(mutant):
    _, found = verdicts(mutant)
    assert broken(found) == WRONG_LOSSES[mutant]


class ForgottenAverage(PlainVQ):
    """Counts and sums beside the codebook, and nothing that updates any of them."""

    def update(self, x: torch.Tensor, q: torch.Tensor, codes: torch.Tensor) -> None:
        pass


def test_averages_that_nobody_updates():
    _, found = verdicts(lambda: ForgottenAverage(8), dim=8)
    assert broken(found) == {"codebook-learns"}


def test_a_codebook_that_is_fixed_on_purpose_or_moved_in_forward_has_other_laws():
    assert verdicts(OnASphere)[1]["codebook-learns"].status == "n/a"
    assert verdicts(lambda: PlainVQ(8), dim=8)[1]["codebook-learns"].status == "kept"


@pytest.mark.parametrize("mutant", WRONG_CHOICES, ids=lambda m: m.__name__)
def test_a_wrong_distance_is_caught_however_many_codes_it_gets_wrong(mutant):
    _, found = verdicts(mutant)
    assert broken(found) == {"nearest-code"}
    assert found["nearest-code"].figure > 96  # more than half of the plain tokens


class FarthestEma(PlainVQ):
    """The farthest code, and an average that follows: a table in a buffer."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = x.reshape(-1, x.shape[-1])
        codes = torch.cdist(flat.double(), self.embed.double()).argmax(1)
        q = self.embed[codes]
        if self.training:
            self.update(flat.detach(), q.detach(), codes)
        q = q.view(x.shape)
        return self.let_through(x, q), codes.view(x.shape[:2]), self.commitment(x, q)


def test_the_farthest_code_of_a_moving_average_is_caught():
    _, found = verdicts(lambda: FarthestEma(8), dim=8)
    assert found["nearest-code"].status == "broken"


@pytest.mark.parametrize("other", OTHER_RULES, ids=lambda m: m.__name__)
def test_another_rule_of_choice_is_not_accused(other):
    _, found = verdicts(other)
    status, note = OTHER_RULES[other]
    assert found["nearest-code"].status == status
    assert note in found["nearest-code"].note


def test_what_takes_no_table_is_judged_by_its_own():
    found = verdicts(CachedNorms)[1]
    assert found["nearest-code"].status == "kept"
    assert found["nearest-code-stress"].status == "n/a"
    assert "does not take a table" in found["nearest-code-stress"].note


class Signs(nn.Module):
    """Codes by sign, and a table of them that forward never reads; zero to one instead of minus one if `shifted`."""

    def __init__(self, dim: int = 4, shifted: bool = False) -> None:
        super().__init__()
        bits = torch.arange(2**dim)[:, None] >> torch.arange(dim) & 1
        self.low = 0.0 if shifted else -1.0
        self.register_buffer("table", bits + self.low * (1 - bits))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bits = (x > 0).long()
        value = bits + self.low * (1 - bits)
        return x + (value - x).detach(), (bits << torch.arange(x.shape[-1])).sum(-1)


def test_a_table_that_is_never_read_is_not_tried_elsewhere():
    assert verdicts(Signs)[1]["nearest-code"].status == "kept"  # a sign is the nearest of 1 and -1
    assert verdicts(lambda: Signs(shifted=True))[1]["nearest-code"].status == "n/a"  # but not of 1 and 0


class OnASphere(nn.Module):
    """Cosine of a table that is kept normalised, which an offset would move off its sphere."""

    def __init__(self, dim: int = 8, codebook_size: int = 24) -> None:
        super().__init__()
        self.register_buffer("table", F.normalize(torch.randn(codebook_size, dim), dim=1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = (F.normalize(x.double(), dim=-1) @ self.table.double().t()).argmax(-1)
        return Exact.apply(x, self.table[codes]), codes


def test_codes_on_a_sphere_are_not_asked_for_an_offset():
    assert verdicts(OnASphere)[1]["nearest-code"].status == "kept"


def test_the_known_faults_of_a_well_known_library():
    library = pytest.importorskip("vector_quantize_pytorch")
    _, found = verdicts(
        lambda: library.ResidualVQ(dim=8, num_quantizers=4, codebook_size=24, rotation_trick=False), dim=8
    )
    assert {"straight-through-gain", "nan-contained", "nearest-code-stress"} <= broken(found)
    assert found["straight-through-gain"].figure == pytest.approx(3.0, abs=1e-3)
    assert "revival-holds" not in found  # it offers none by default
