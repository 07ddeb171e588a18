"""The laws of an autoregressive prior, as functions that raise AssertionError; mutants prove that they can."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from vqtool.api import Condition
from vqtool.nn.code_prior import CodePrior
from vqtool.parts.priors.gpt import Gpt
from vqtool.parts.priors.gru import Gru
from vqtool.parts.priors.lstm import Lstm

KINDS = {"gpt": Gpt, "gru": Gru, "lstm": Lstm}
WIDTH = 5  # of the condition


def small(
    kind: str, sizes: tuple[int, ...] = (4, 3), length: int = 3, *, geometry: bool = True, seed: int = 0
) -> CodePrior:
    """A small prior in float64 with every parameter stirred, so that nothing that starts at zero hides a mistake."""
    torch.manual_seed(seed)
    vectors = tuple(torch.randn(size, 6) * 0.6**book for book, size in enumerate(sizes)) if geometry else None
    options = {"heads": 2} if kind == "gpt" else {}
    prior = KINDS[kind](sizes, length, WIDTH, vectors, layers=2, width=16, dropout=0.2, **options).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior


def random_codes(prior: CodePrior, batch: int, seed: int = 0) -> Tensor:
    """Codes [B, T, Q], each within its codebook."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, prior.length)
    return torch.stack([torch.randint(size, shape, generator=generator) for size in prior.codebook_sizes], dim=-1)


def random_condition(batch: int, seed: int = 0) -> Condition:
    """A vector [B, M] and 7 tokens [B, 7, M]."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(batch, 8, WIDTH, dtype=torch.float64, generator=generator)
    return Condition(shape[:, 0], shape[:, 1:])


def row(condition: Condition, index: int) -> Condition:
    """One row of a condition, as a batch of 1."""
    return Condition(condition.vector[index : index + 1], condition.tokens[index : index + 1])


def log_prob(prior: CodePrior, codes: Tensor, condition: Condition | None) -> Tensor:
    """log p(codes) [B], teacher-forced."""
    return prior(codes, condition).log_softmax(-1).gather(-1, codes[..., None]).sum((1, 2, 3))


def flat_logits(prior: CodePrior, codes: Tensor, condition: Condition | None) -> Tensor:
    """Logits [B, N, K] of all steps in one pass, 0 where -inf."""
    logits = prior(codes, condition).flatten(1, 2)
    return torch.where(logits.isfinite(), logits, 0.0)


@torch.no_grad()
def causal(prior: CodePrior, step: int, seed: int = 0) -> None:
    """Changing codes >= step leaves the logits of steps <= step alone, and does change the logits after it."""
    codes, condition = random_codes(prior, 2, seed), random_condition(2, seed)
    changed = codes.flatten(1).clone()
    sizes = torch.tensor(prior.codebook_sizes).repeat(prior.length)
    changed[:, step:] = (changed[:, step:] + 1) % sizes[step:]
    before = flat_logits(prior, codes, condition)
    after = flat_logits(prior, changed.view_as(codes), condition)
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1], rtol=0, atol=1e-12)
    moved = (after - before).abs().amax(-1)[:, step + 1 :]
    assert bool((moved > 1e-9).all()), "a later step does not read the code that changed"


@torch.no_grad()
def cached(prior: CodePrior, seed: int = 0) -> None:
    """Step by step with a cache, from every prefix, alone or in a batch: the logits of one pass."""
    codes, condition = random_codes(prior, 3, seed), random_condition(3, seed)
    whole = flat_logits(prior, codes, condition)
    steps = whole.shape[1]
    for prefix in range(1, steps + 1):
        state, guess = prior.start(1, row(condition, 1), room=steps), prior.guess(1, row(condition, 1))
        bounds = [(0, prefix), *((n, n + 1) for n in range(prefix, steps))]
        for start, stop in bounds:
            hidden = prior.advance(prior.head.inputs(codes[1:2], start, stop), state)
            logits = prior.head.step(hidden[:, -1], codes[1:2], stop - 1, guess)
            logits = torch.where(logits.isfinite(), logits, 0.0)
            size = logits.shape[-1]
            torch.testing.assert_close(logits, whole[1:2, stop - 1, :size], rtol=0, atol=1e-5)


def brute_force(prior: CodePrior, condition: Condition) -> tuple[Tensor, Tensor]:
    """The best of all sequences for one row, and its log-probability."""
    ranges = [range(size) for size in prior.codebook_sizes] * prior.length
    every = torch.tensor(list(itertools.product(*ranges))).unflatten(1, (prior.length, -1))
    many = Condition(condition.vector.expand(len(every), -1), condition.tokens.expand(len(every), -1, -1))
    scores = log_prob(prior, every, many)
    return every[scores.argmax()], scores.max()


@torch.no_grad()
def beam_searches(prior: CodePrior, width: int, seed: int = 0) -> None:
    """Beam 1 is greedy; no beam is worse than greedy; a full beam finds the best; scores are log-probabilities."""
    condition = random_condition(2, seed)
    greedy = prior.sample(2, condition, temperature=0)
    narrow, _ = prior.beam(2, condition, width=1)
    assert torch.equal(narrow, greedy)
    codes, scores = prior.beam(2, condition, width=width)
    torch.testing.assert_close(scores, log_prob(prior, codes, condition), rtol=0, atol=1e-5)
    assert bool((scores >= log_prob(prior, greedy, condition) - 1e-9).all())
    count = 1
    for size in prior.codebook_sizes:
        count *= size
    full, scores = prior.beam(2, condition, width=count**prior.length)
    for index in range(2):
        best, score = brute_force(prior, row(condition, index))
        assert torch.equal(full[index], best)
        torch.testing.assert_close(scores[index], score, rtol=0, atol=1e-5)


@torch.no_grad()
def samples_by_row(prior: CodePrior, seeds: list[int], **how: float) -> None:
    """A row's sample follows from its seed and condition alone, whatever the rest of the batch."""
    condition = random_condition(len(seeds))
    together = prior.sample(len(seeds), condition, seeds=seeds, **how)
    for index, seed in enumerate(seeds):
        alone = prior.sample(1, row(condition, index), seeds=[seed], **how)
        assert torch.equal(alone[0], together[index])


@torch.no_grad()
def sharp_sampling_is_greedy(prior: CodePrior, seed: int) -> None:
    """top_k = 1 and a temperature close to 0 are greedy."""
    condition = random_condition(2, seed)
    greedy = prior.sample(2, condition, temperature=0)
    assert torch.equal(prior.sample(2, condition, temperature=3.0, top_k=1, seeds=[seed, 1]), greedy)
    assert torch.equal(prior.sample(2, condition, temperature=1e-12, seeds=[seed, 1]), greedy)
    assert torch.equal(prior.sample(2, condition, top_p=1e-12, seeds=[seed, 1]), greedy)


def no_share_is_teacher_forcing(prior: CodePrior, seed: int = 0) -> None:
    """A share of 0: the same codes, random state, loss and gradients as without scheduled sampling, bit for bit."""
    codes, condition = random_codes(prior, 2, seed), random_condition(2, seed)
    draw = torch.zeros(codes.shape)
    prior.train()
    results = []
    for sampled in (False, True):
        torch.manual_seed(seed)
        fed = prior.own(codes, condition, 0.0, draw=draw) if sampled else None
        assert fed is None or torch.equal(fed, codes)
        loss = -prior(codes, condition, fed=fed).log_softmax(-1).gather(-1, codes[..., None]).mean()
        gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
        results.append((loss, gradients, torch.get_rng_state()))
    prior.eval()
    (loss, gradients, state), (loss_, gradients_, state_) = results
    assert torch.equal(loss, loss_)
    assert torch.equal(state, state_)
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_, strict=True) if a is not None)
