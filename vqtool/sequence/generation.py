"""Generating codes with a prior: greedy, sampled (one generator a row) and beam search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vqtool.api import Condition
from vqtool.errors import VqtoolError
from vqtool.sequence.code_head import CodeHead

Choose = Callable[[Tensor, int], Tensor]  # logits [B, K] and the flat step -> codes [B]
LIVE = 1024  # rows that beam search keeps at once, to bound its memory


class CodeGenerator(Protocol):
    """What generation needs of a prior."""

    codebook_sizes: tuple[int, ...]
    length: int
    head: CodeHead

    def start(self, batch: int, condition: Condition | None, room: int = 0) -> Any: ...
    def advance(self, inputs: Tensor, state: Any) -> Tensor: ...
    def guess(self, batch: int, condition: Condition | None) -> Tensor | None: ...


def generate(
    prior: CodeGenerator,
    batch: int,
    condition: Condition | None,
    choose: Choose,
    prefix: Tensor | None = None,
    *,
    paths: int = 1,
    tokens: int | None = None,
) -> Tensor:
    """Generate codes [B * paths, T, Q], each chosen by `choose` from the logits that those before it give.

    The paths of a row share the pass over the prefix. T is the prior's length, or `tokens`.
    """
    with torch.inference_mode():
        codes = _generate(prior, batch, condition, choose, prefix, paths, tokens)
    return codes.clone()  # a tensor like any other: those made in inference mode cannot be trained on


def _generate(
    prior: CodeGenerator,
    batch: int,
    condition: Condition | None,
    choose: Choose,
    prefix: Tensor | None,
    paths: int,
    tokens: int | None,
) -> Tensor:
    books = len(prior.codebook_sizes)
    length = prior.length if tokens is None else min(tokens, prior.length)
    codes = torch.zeros(batch, length, books, dtype=torch.long, device=prior.head.begin.device)
    begin, steps = 0, length * books
    if prefix is not None:
        _check_prefix(prior, batch, prefix, length)
        codes[:, : prefix.shape[1]] = prefix
        begin = prefix.shape[1] * books
    rows = torch.arange(batch, device=codes.device).repeat_interleave(paths)
    if begin == steps:
        return codes[rows]
    state, guess = prior.start(batch, condition, room=steps), prior.guess(batch, condition)
    head = prior.head.compiled()
    for step in range(begin, steps):
        taken = 0 if step == begin else step  # the first pass reads the whole prefix
        hidden = prior.advance(head.inputs(codes, taken, step + 1), state)[:, -1]
        if step == begin and paths > 1:
            state.spread(rows)
            codes, hidden, guess = codes[rows], hidden[rows], None if guess is None else guess[rows]
        codes[:, step // books, step % books] = choose(head.step(hidden, codes, step, guess), step)
    return codes


def _check_prefix(prior: CodeGenerator, batch: int, prefix: Tensor, length: int) -> None:
    books = len(prior.codebook_sizes)
    if prefix.ndim != 3 or prefix.shape[0] != batch or prefix.shape[2] != books or prefix.shape[1] > length:
        raise VqtoolError(
            f"a prefix of shape {tuple(prefix.shape)} does not fit: {batch} rows, at most {length} tokens "
            f"and {books} codes a token are generated"
        )
    sizes = torch.tensor(prior.codebook_sizes, device=prefix.device)
    if bool(((prefix < 0) | (prefix >= sizes)).any()):
        raise VqtoolError(f"the prefix holds codes outside the codebooks' sizes {prior.codebook_sizes}")


def chooser(
    prior: CodeGenerator,
    batch: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seeds: Sequence[int] | None,
) -> Choose:
    """How to choose a code: greedy for temperature 0, else drawn, in the order temperature, top-k, top-p.

    Row b draws step n's code with the n-th number of its own generator, so neither the rest of the batch nor a prefix
    changes what a seed means.
    """
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise VqtoolError(f"the temperature must be 0 or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise VqtoolError(f"`top_k` must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise VqtoolError(f"`top_p` must be above 0 and at most 1, not {top_p}")
    if temperature == 0 or top_k == 1:
        return greedy
    if seeds is None:
        seeds = torch.randint(2**62, (batch,)).tolist()
    if len(seeds) != batch:
        raise VqtoolError(f"{len(seeds)} seeds for {batch} rows: every row needs one")
    steps = prior.length * len(prior.codebook_sizes)  # always all of them: how many are used changes none
    draws = [torch.rand(steps, generator=torch.Generator().manual_seed(int(s)), dtype=torch.float64) for s in seeds]
    draw = torch.stack(draws) if draws else torch.zeros(0, steps, dtype=torch.float64)
    return lambda logits, step: pick(probabilities(logits, temperature, top_k, top_p), draw[:, step]).to(logits.device)


def greedy(logits: Tensor, step: int) -> Tensor:
    """The likeliest code, the first of equals."""
    return logits.argmax(-1)


def probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """[B, K] logits -> what to draw from, on the CPU in float64; 0 for what top-k or top-p (the nucleus) leaves out."""
    logits = logits.detach().to("cpu", torch.float64)
    if temperature != 1:
        logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(~_largest(logits, top_k), -math.inf)
    probs = logits.softmax(-1)
    if top_p is None:
        return probs
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    kept = ordered * (ordered.cumsum(-1) - ordered < top_p)  # the smallest set that holds top_p: a code stays while
    return torch.zeros_like(kept).scatter(-1, order, kept / kept.sum(-1, keepdim=True))  # those before it hold less


def _largest(logits: Tensor, count: int) -> Tensor:
    """[B, K]: which `count` codes of each row are the likeliest, the first of equals."""
    least = logits.topk(count).values[:, -1:]
    kept = logits >= least
    if int(kept.sum()) > count * len(logits):  # equals at the border
        above = logits > least
        border = kept & ~above
        kept = above | (border & (border.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return kept


def pick(probs: Tensor, draw: Tensor) -> Tensor:
    """Invert the cumulated distribution [B, K] at `draw` [B] in [0, 1); never a code of probability 0."""
    cumulated = probs.cumsum(-1)
    total = cumulated[:, -1:]
    at = torch.minimum(draw[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, at, right=True)[:, 0]


def beam(prior: CodeGenerator, batch: int, condition: Condition | None, width: int) -> tuple[Tensor, Tensor]:
    """Beam search over all N steps: the best codes [B, T, Q] and their log-probabilities [B], float64.

    The greedy path is kept in a place of its own, so the result is never worse, and `width` 1 is greedy.

    Raises:
        VqtoolError: a width below 1.
    """
    if width < 1:
        raise VqtoolError(f"the beam's width must be at least 1, not {width}")
    rows = max(1, LIVE // (width + 1))
    parts = [_beam(prior, _rows(condition, b, b + rows), min(rows, batch - b), width) for b in range(0, batch, rows)]
    if not parts:
        empty = torch.zeros(0, prior.length, len(prior.codebook_sizes), dtype=torch.long)
        return empty, torch.zeros(0, dtype=torch.float64)
    return torch.cat([codes for codes, _ in parts]), torch.cat([scores for _, scores in parts])


def _beam(prior: CodeGenerator, condition: Condition | None, batch: int, width: int) -> tuple[Tensor, Tensor]:
    books, slots = len(prior.codebook_sizes), width + 1  # the last slot is the greedy path's
    device = prior.head.begin.device
    codes = torch.zeros(batch * slots, prior.length, books, dtype=torch.long, device=device)
    score = torch.full((batch, slots), -math.inf, dtype=torch.float64)
    score[:, [0, -1]] = 0.0  # one beam to start from
    repeated = _repeat(condition, slots)
    state = prior.start(batch * slots, repeated, room=prior.length * books)
    guess = prior.guess(batch * slots, repeated)
    first = slots * torch.arange(batch)[:, None]
    for step in range(prior.length * books):
        hidden = prior.advance(prior.head.inputs(codes, step, step + 1), state)
        logits = prior.head.step(hidden[:, -1], codes, step, guess).to("cpu", torch.float64)
        gained = logits.log_softmax(-1).unflatten(0, (batch, slots))
        score, source, chosen = _extend(score, gained, width)
        rows = (first + source).flatten().to(device)
        codes = codes[rows]
        codes[:, step // books, step % books] = chosen.flatten().to(device)
        state.pick(rows)
    best = score.argmax(-1)
    return codes[(first[:, 0] + best).to(device)], score[torch.arange(batch), best]


def _extend(score: Tensor, gained: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """One step: scores [B, S] and log-probabilities [B, S, K] -> new scores, the slots they come from, the codes."""
    size = gained.shape[-1]
    candidates = (score[:, :width, None] + gained[:, :width]).flatten(1)
    kept, order = candidates.sort(dim=-1, descending=True, stable=True)
    kept, order = kept[:, :width], order[:, :width]
    sure, code = gained[:, -1].max(-1)  # the greedy path continues by itself
    source = torch.cat([order // size, torch.full_like(code, width)[:, None]], dim=1)
    chosen = torch.cat([order % size, code[:, None]], dim=1)
    return torch.cat([kept, (score[:, -1] + sure)[:, None]], dim=1), source, chosen


def _rows(condition: Condition | None, start: int, stop: int) -> Condition | None:
    if condition is None:
        return None
    tokens = None if condition.tokens is None else condition.tokens[start:stop]
    return Condition(condition.vector[start:stop], tokens)


def _repeat(condition: Condition | None, times: int) -> Condition | None:
    if condition is None:
        return None
    tokens = None if condition.tokens is None else condition.tokens.repeat_interleave(times, dim=0)
    return Condition(condition.vector.repeat_interleave(times, dim=0), tokens)
