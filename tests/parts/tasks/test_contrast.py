"""The contrastive task: what it hides, whom it compares, where gradients go, and that a collapse cannot look well."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from vqtool.api import DataSpec, Embeds, Encodes, Field, Parts
from vqtool.errors import VqtoolError
from vqtool.parts.contexts.transformer import TransformerContext
from vqtool.parts.encoders.conv1d import Conv1dEncoder
from vqtool.parts.losses.info_nce import InfoNCE
from vqtool.parts.tasks.contrast import Contrast, contrast_figures
from vqtool.quantizers.gumbel import ProductGumbel
from vqtool.sequence.spans import hidden_spans

SPEC = DataSpec({"x": Field((2, 96), "signal")})


def built(**options: object) -> tuple[Contrast, Parts]:
    """A small task over windows [2, 96] of 24 tokens."""
    torch.manual_seed(0)
    parts, task = Parts(), Contrast(span=3, **options)

    def make(role, *wiring, optional=False):
        if role == "norm":
            parts[role] = Identity()
        elif role == "encoder":
            parts[role] = Conv1dEncoder(*wiring, dim=8, width=8, strides=(2, 2))
        elif role == "quantizer":
            parts[role] = ProductGumbel(*wiring, codebook_size=12)
        elif role == "context":
            parts[role] = TransformerContext(*wiring, width=16, layers=1, heads=2, kernel=5, dropout=0.0)
        return dict(parts.items()).get(role)

    task.build(make, SPEC)
    return task, parts


class Identity(torch.nn.Module):
    """No norm."""

    def forward(self, batch):
        return batch, batch["x"].new_zeros(len(batch["x"]), 0)


def signals(batch: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {"x": torch.randn(batch, 2, 96)}


def wrong_negatives(task: Contrast, hidden: torch.Tensor, codes: torch.Tensor) -> bool:
    """Whether a candidate is visible, has the right one's codes, or the right one is missing."""
    candidates = task.candidates(hidden, codes)
    for b, i in hidden.nonzero().tolist():
        for j in range(hidden.shape[1]):
            allowed = i == j or (bool(hidden[b, j]) and not torch.equal(codes[b, i], codes[b, j]))
            if (bool(candidates[b, i, j]) and not allowed) or (i == j and not bool(candidates[b, i, j])):
                return True
    return False


def some_codes() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(3, 20) < 0.5, torch.randint(3, (3, 20, 2))


@pytest.mark.parametrize("negatives", [None, 4])
def test_no_negative_equals_its_positive_and_none_is_visible(negatives):
    task = Contrast(negatives=negatives)
    assert not wrong_negatives(task, *some_codes())


@pytest.mark.parametrize("fault", ["visible", "identical"])
def test_a_wrong_choice_of_negatives_is_caught(fault):
    class Mutant(Contrast):
        def candidates(self, hidden, codes):
            if fault == "visible":
                return super().candidates(torch.ones_like(hidden), codes)
            return super().candidates(hidden, torch.arange(codes.numel()).view(codes.shape))

    assert wrong_negatives(Mutant(), *some_codes())


def test_all_other_hidden_tokens_with_other_codes_are_negatives():
    hidden, codes = some_codes()
    candidates = Contrast().candidates(hidden, codes)
    same = (codes[:, :, None] == codes[:, None]).all(-1)
    expected = (hidden[:, None] & ~same).sum(2) + 1
    assert torch.equal(candidates.sum(2)[hidden], expected[hidden])


def test_as_many_negatives_as_asked_for_and_drawn_evenly():
    torch.manual_seed(0)
    hidden, codes = torch.ones(1, 12, dtype=torch.bool), torch.arange(24).view(1, 12, 2)
    task = Contrast(negatives=5)
    drawn = torch.stack([task.candidates(hidden, codes)[0] for _ in range(400)])
    assert bool((drawn.sum(2) == 6).all())
    share = drawn.float().mean(0)[~torch.eye(12, dtype=torch.bool)]
    assert float((share - 5 / 11).abs().max()) < 0.12


def test_similarities_are_cosines_with_the_unhidden_targets():
    task, parts = built()
    parts.eval()
    z = parts.encoder(signals()["x"])
    quantized = parts.quantizer(z)
    torch.manual_seed(5)
    out = task.compare(parts, signals(), z, quantized)
    hidden = out["hidden"]
    context = parts.context(torch.where(hidden[..., None], 0, z)).detach()
    rows = hidden.nonzero().tolist()
    for row, (b, i) in enumerate(rows[:10]):
        assert int(out["positive"][row]) == i
        for j in range(hidden.shape[1]):
            if bool(out["similarities"][row, j].isfinite()):
                near = F.cosine_similarity(context[b, i], quantized.hard[b, j], dim=0)
                assert float(out["similarities"].detach()[row, j]) == pytest.approx(float(near), abs=1e-5)


def test_no_gradient_reaches_what_is_hidden_from_the_context():
    task, parts = built()
    z = parts.encoder(signals(1)["x"]).detach().requires_grad_()
    out = task.compare(parts, signals(1), z, parts.quantizer(z.detach()))
    (grad,) = torch.autograd.grad(InfoNCE(SPEC)(similarities=out["similarities"], positive=out["positive"]), z)
    by_token, hidden = grad[0].abs().amax(1), out["hidden"][0]
    assert not bool(by_token[hidden].any())
    assert bool((by_token[~hidden] > 0).all())


@pytest.mark.parametrize("hide", ["features", "signal"])
def test_with_the_signal_hidden_the_context_reads_nothing_of_hidden_samples(hide):
    """An encoder of some reach holds hidden samples in the features of visible tokens beside them."""
    task, parts = built(hide=hide)
    parts.eval()
    x = signals(1)["x"]
    z = parts.encoder(x)
    results = []
    for scale in (1.0, 5.0):
        torch.manual_seed(5)
        hidden = hidden_spans(1, 24, share=task.hidden, span=task.span)
        louder = torch.where(hidden.repeat_interleave(4, 1)[:, None], scale * x, x)
        torch.manual_seed(5)
        out = task.compare(parts, {"x": louder}, parts.encoder(louder), parts.quantizer(z))
        assert torch.equal(out["hidden"], hidden)
        results.append(out["similarities"].nan_to_num(neginf=0))
    assert torch.equal(*results) == (hide == "signal")


def test_no_negative_is_nearer_than_asked_for():
    hidden, codes = torch.ones(1, 20, dtype=torch.bool), torch.arange(40).view(1, 20, 2)
    away = (torch.arange(20)[:, None] - torch.arange(20)).abs()
    for apart in (1, 2, 6):
        assert torch.equal(Contrast(min_distance=apart).candidates(hidden, codes)[0], (away == 0) | (away >= apart))


def test_gradient_reaches_encoder_quantizer_and_context():
    task, parts = built()
    out = task.step(parts, signals())
    InfoNCE(SPEC)(similarities=out["similarities"], positive=out["positive"]).backward()
    for role in ("encoder", "quantizer", "context"):
        grads = [p.grad for p in parts[role].parameters()]
        assert all(g is not None and bool(g.isfinite().all()) for g in grads), role
        assert any(bool(g.any()) for g in grads), role


def test_the_targets_alone_move_the_encoder():
    task, parts = built()
    z = parts.encoder(signals()["x"])
    out = task.compare(parts, signals(), z.detach(), parts.quantizer(z))
    InfoNCE(SPEC)(similarities=out["similarities"], positive=out["positive"]).backward()
    assert any(bool(p.grad.any()) for p in parts.encoder.parameters() if p.grad is not None)


def test_step_gives_what_it_promises():
    task, parts = built()
    out = task.step(parts, signals())
    assert task.provides <= out.keys()
    assert out["similarities"].shape == (int(out["hidden"].sum()), 24)


def test_collapse_reads_as_accuracy_one_among_none():
    task, parts = built()
    with torch.no_grad():
        parts.quantizer.linear.weight.zero_()
        parts.quantizer.linear.bias[[0, 12]] = 1e4
    figures = task.step(parts, signals())["figures"]
    assert float(figures["contrastive.accuracy"]) == 1
    assert float(figures["contrastive.effective_negatives"]) == 0
    assert float(figures["contrastive.chance"]) == 1


def test_figures_by_hand():
    out = -torch.inf
    figures = contrast_figures(torch.tensor([[0.9, 0.1, out], [0.1, 0.2, 0.3]]), torch.tensor([0, 1]))
    assert float(figures["contrastive.accuracy"]) == 0.5
    assert float(figures["contrastive.effective_negatives"]) == 1.5
    assert float(figures["contrastive.chance"]) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_token_that_is_not_finite_is_never_looked_for():
    task, parts = built(hidden=1.0)
    z = parts.encoder(signals()["x"]).detach()
    quantized = parts.quantizer(z)
    quantized = dataclasses.replace(quantized, codes=quantized.codes.index_fill(1, torch.tensor([4]), -1))
    out = task.compare(parts, signals(), z, quantized)
    assert not bool(out["hidden"][:, 4].any())
    assert not bool(out["similarities"].isfinite()[:, 4].any())


def test_evaluation_repeats_itself_and_changes_nothing():
    task, parts = built()
    parts.eval()
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        with torch.no_grad():
            results.append(task.estimate(parts, signals()).named)
    for name in ("codes", "features", "context", "similarities", "positive", "usage"):
        assert torch.equal(results[0][name], results[1][name]), name
    assert all(torch.equal(before[name], value) for name, value in parts.state_dict().items())


def test_it_encodes_and_embeds():
    task, parts = built()
    parts.eval()
    assert isinstance(task, Encodes)
    assert isinstance(task, Embeds)
    with torch.no_grad():
        codes, embedded = task.encode(parts, signals())["codes"], task.embed(parts, signals())
    assert torch.equal(codes, embedded["codes"])
    assert embedded["features"].shape == embedded["context"].shape == (4, 24, 8)
    assert torch.equal(parts.quantizer(embedded["features"]).codes, codes)


def test_widths_that_cannot_be_compared_are_refused():
    parts = Parts()

    def make(role, *wiring, optional=False):
        if role == "encoder":
            return Conv1dEncoder(*wiring, dim=8, width=8, strides=(2, 2))
        if role == "context":
            parts[role] = TransformerContext(*wiring, width=16)
            parts[role].dim = 5
            return parts[role]
        return None

    with pytest.raises(VqtoolError, match="5 features"):
        Contrast().build(make, SPEC)


def test_samples_of_images_cannot_be_hidden():
    with pytest.raises(VqtoolError, match="images"):
        Contrast(hide="signal").build(lambda *_, **__: None, DataSpec({"x": Field((1, 8, 8), "signal")}))
