"""Laws of priors: what they read, what they score, and that writing and search do what the scores say."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Prior
from vqtool.conformance.law import Laws, Verdict, broken, kept, not_applicable, within
from vqtool.conformance.prior_subject import PriorSubject, flat_logits, log_prob, row

LAWS: Laws[PriorSubject] = Laws()

ROWS = 24  # written at once: what is wrong may by chance be the likeliest in some of them
DRAWS = 4000  # of the first token, to compare with its probabilities


@LAWS
@torch.no_grad()
def earlier_codes_only(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new(), subject.codes(2), subject.condition(2)
    before, worst = flat_logits(prior, codes, condition), 0.0
    for step in range(subject.steps):
        after = flat_logits(prior, changed(subject, codes, step), condition)
        worst = max(worst, float((after - before)[:, : step + 1].abs().max()))
    return within(worst, 1e-6, "change of a logit by a code that is not before it")


def changed(subject: PriorSubject, codes: Tensor, step: int) -> Tensor:
    """The codes with that of one step replaced by another."""
    flat, book = codes.flatten(1).clone(), step % len(subject.codebook_sizes)
    flat[:, step] = (flat[:, step] + 1) % subject.codebook_sizes[book]
    return flat.view_as(codes)


@LAWS
@torch.no_grad()
def reads_its_past(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new(), subject.codes(2), subject.condition(2)
    before, unread = flat_logits(prior, codes, condition), 0
    for step in range(subject.steps - 1):
        after = flat_logits(prior, changed(subject, codes, step), condition)
        unread += not bool((after - before)[:, step + 1 :].abs().flatten(1).amax(1).gt(0).all())
    return within(unread, 0, "codes that no later logit depends on")


@LAWS
@torch.no_grad()
def reads_its_condition(subject: PriorSubject) -> Verdict:
    if not subject.condition_dim:
        return not_applicable("it has no condition")
    prior, codes = subject.new(), subject.codes(2)
    one, other = (flat_logits(prior, codes, subject.condition(2, salt=salt)) for salt in (1, 2))
    if torch.equal(one, other):
        return broken(0.0, "change of the logits by another condition")
    flat_logits(subject.new(condition_dim=0), codes, None)  # and it does without, where there is none
    return kept()


@LAWS
@torch.no_grad()
def sizes_kept(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new(), subject.codes(2), subject.condition(2)
    logits, wrong = prior(codes, condition), 0
    shape = (2, subject.length, len(subject.codebook_sizes))
    if logits.shape[:3] != shape or logits.shape[3] < max(subject.codebook_sizes):
        return broken(None, f"logits of shape {tuple(logits.shape)} for codes of shape {shape}")
    for book, size in enumerate(subject.codebook_sizes):
        wrong += int((~logits[:, :, book, :size].isfinite()).sum()) + int(
            (logits[:, :, book, size:] > -torch.inf).sum()
        )
    written = prior.sample(4, subject.condition(4), temperature=50.0, seeds=[1, 2, 3, 4])
    wrong += int(((written < 0) | (written >= torch.tensor(subject.codebook_sizes))).sum())
    return within(wrong, 0, "codes that do not exist but may be written, or do and have no finite logit")


@LAWS
@torch.no_grad()
def rows_apart(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new(), subject.codes(3), subject.condition(3)
    together = flat_logits(prior, codes, condition)
    alone = torch.cat([flat_logits(prior, codes[b : b + 1], row(condition, b)) for b in range(3)])
    off = float((together - alone).abs().max() / together.abs().max().clamp(min=1))
    return within(off, subject.rounding, "change of a logit by the rest of the batch, over the largest logit")


@LAWS
@torch.no_grad()
def scoring_is_pure(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new(), subject.codes(2), subject.condition(2)
    held = {name: value.clone() for name, value in prior.state_dict().items()}
    torch.manual_seed(subject.seed)
    state = torch.get_rng_state()
    once = prior(codes, condition)
    prior.sample(2, condition, seeds=[1, 2])
    if not torch.equal(once, prior(codes, condition)):
        return broken(None, "scoring the same codes twice differs")
    moved = [name for name, value in prior.state_dict().items() if not torch.equal(value, held[name])]
    if moved:
        return broken(len(moved), f"tensors changed, {moved[0]} first")
    return kept() if torch.equal(state, torch.get_rng_state()) else broken(None, "the global random state moved")


@LAWS
@torch.no_grad()
def greedy_is_likeliest(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(ROWS)
    codes = prior.sample(ROWS, condition, temperature=0)
    logits = prior(codes, condition)
    short = logits.amax(-1) - logits.gather(-1, codes[..., None])[..., 0]
    return within(float(short.max()), subject.rounding, "by how much a likelier code was passed over")


@LAWS
@torch.no_grad()
def prefix_continued(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(ROWS)
    prefix = subject.codes(ROWS, salt=3)[:, :1]
    codes = prior.sample(ROWS, condition, temperature=0, prefix=prefix)
    if not torch.equal(codes[:, :1], prefix):
        return broken(None, "the prefix came back changed")
    logits = prior(codes, condition)
    short = (logits.amax(-1) - logits.gather(-1, codes[..., None])[..., 0])[:, 1:]
    worst = float(short.max()) if short.numel() else 0.0
    return within(worst, subject.rounding, "by how much a likelier code after the prefix was passed over")


@LAWS
@torch.no_grad()
def draws_are_the_distribution(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(1)
    sizes = torch.tensor(subject.codebook_sizes)
    place = torch.cat([sizes.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=torch.long)])
    every = torch.cartesian_prod(*[torch.arange(size) for size in subject.codebook_sizes]).view(-1, len(sizes))
    padded = torch.zeros(len(every), subject.length, len(sizes), dtype=torch.long)
    padded[:, 0] = every
    scores = prior(padded, row(condition, 0, len(every)))[:, :1].double().log_softmax(-1)
    expected = DRAWS * scores.gather(-1, padded[:, :1, :, None]).sum((1, 2, 3)).exp()
    drawn = prior.sample(DRAWS, row(condition, 0, DRAWS), seeds=range(DRAWS), tokens=1)[:, 0]
    counts = torch.bincount((drawn * place).sum(1), minlength=len(every)).double()
    off = float(((counts - expected).square() / expected.clamp(min=1e-9)).sum()) / max(1, len(every) - 1)
    return within(off, 6.0, f"chi squared, per degree of freedom, of {DRAWS} first tokens against their probabilities")


@LAWS
@torch.no_grad()
def samples_by_row(subject: PriorSubject) -> Verdict:
    prior, condition, seeds = subject.new(), subject.condition(4), [5, 1, 4, 5]
    together = prior.sample(4, condition, seeds=seeds)
    alone = [prior.sample(1, row(condition, b), seeds=[seed]) for b, seed in enumerate(seeds)]
    return within(int((together != torch.cat(alone)).sum()), 0, "codes that depend on the rest of the batch")


@LAWS
@torch.no_grad()
def sharp_is_greedy(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(2)
    greedy, wrong = prior.sample(2, condition, temperature=0), 0
    sharp: tuple[dict[str, Any], ...] = ({"temperature": 3.0, "top_k": 1}, {"temperature": 1e-12}, {"top_p": 1e-12})
    for how in sharp:
        wrong += int((prior.sample(2, condition, seeds=[subject.seed, 1], **how) != greedy).sum())
    return within(wrong, 0, "codes that differ from the likeliest")


@LAWS
@torch.no_grad()
def beam_is_scored(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(2)
    if type(prior).beam is Prior.beam:
        return not_applicable("it has no beam search")
    codes, scores = prior.beam(2, condition, width=4)
    off = float((scores.double() - log_prob(prior, codes, condition)).abs().max())
    return within(off, subject.steps * subject.rounding, "between a beam's score and the log-probability of its codes")


@LAWS
@torch.no_grad()
def beam_finds(subject: PriorSubject) -> Verdict:
    prior, condition = subject.new(), subject.condition(2)
    if type(prior).beam is Prior.beam:
        return not_applicable("it has no beam search")
    greedy, slack = prior.sample(2, condition, temperature=0), subject.steps * subject.rounding
    if not torch.equal(prior.beam(2, condition, width=1)[0], greedy):
        return broken(None, "a beam of one is not greedy")
    narrow = log_prob(prior, prior.beam(2, condition, width=4)[0], condition)
    short = float((log_prob(prior, greedy, condition) - narrow).max())
    ranges = [range(size) for size in subject.codebook_sizes] * subject.length
    every = torch.tensor(list(itertools.product(*ranges))).unflatten(1, (subject.length, -1))
    found = log_prob(prior, prior.beam(2, condition, width=len(every))[0], condition)
    best = torch.stack([log_prob(prior, every, row(condition, b, len(every))).max() for b in range(2)])
    short = max(short, float((best - found).max()))
    return within(short, slack, "log-probability by which a full beam misses the best one, or a narrow beam greedy")


@LAWS
def no_share_is_teacher_forcing(subject: PriorSubject) -> Verdict:
    prior, codes, condition = subject.new().train(), subject.codes(2), subject.condition(2)
    if type(prior).own is Prior.own:
        return not_applicable("it does not train on its own codes")
    seen = []
    for sampled in (False, True):
        torch.manual_seed(subject.seed)
        fed = prior.own(codes, condition, 0.0, draw=torch.zeros(codes.shape)) if sampled else None
        if fed is not None and not torch.equal(fed, codes):
            return broken(int((fed != codes).sum()), "codes changed by a share of 0")
        loss = -prior(codes, condition, fed=fed).log_softmax(-1).gather(-1, codes[..., None]).mean()
        gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
        seen.append([loss, torch.get_rng_state(), *(g for g in gradients if g is not None)])
    same = all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    figure = float((seen[0][0] - seen[1][0]).detach())
    return kept() if same else broken(figure, "difference in loss, gradients or random state")
