"""Codes in, logits out: the embedding and the head of a prior, tied to each other and to the codebooks' geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-12
GUESSED = 0.0025  # share of the latents' variance that a guess from the condition is expected to miss: 5 % of the rms


class CodeHead(nn.Module):
    """What a prior reads of codes [B, T, Q], and the logits it gives, in the flat order n = t * Q + q.

    Where the quantizer adds up its codes (`vectors`, Q tensors [K_q, D] whose sum over q is the latent of a token), the
    network predicts a full latent z_hat at every step, and

        logits_k = s ((z_hat - partial) . e_qk - |e_qk|^2 / 2) + h . u_qk,

    which is -s |z_hat - partial - e_qk|^2 / 2 but for a constant: the nearest code is the likeliest, as the quantizer
    would choose, and s is how sure the network is. `partial` is the sum of the codes already chosen for the same
    token. u is a table that is also the input embedding. Without `vectors`, logits_k = h . u_qk.

    z_hat mixes two estimates, z_hat = g z + (1 - g) (partial + the mean of what the codes still add), where z is
    the network's own and the gate g starts at the share of z's variance in both; so every codebook, however fine,
    starts with logits of a sensible spread, and g -> 1 as the network gets to know the latent. With `guessed`, a guess
    from the condition is added to z, and g starts for a z that misses little.
    """

    vectors: Tensor | None
    real: Tensor
    rest_mean: Tensor
    spread: Tensor
    log_sharpness: Tensor
    gate_start: Tensor

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        length: int,
        width: int,
        vectors: Sequence[Tensor] | None,
        *,
        guessed: bool = False,
    ) -> None:
        super().__init__()
        self.codebook_sizes, self.length, self.width = tuple(codebook_sizes), length, width
        books, largest = len(self.codebook_sizes), max(self.codebook_sizes)
        real = torch.arange(largest) < torch.tensor(self.codebook_sizes)[:, None]
        self.register_buffer("real", real, persistent=False)  # [Q, K]   false beyond a codebook's size
        self.table = nn.Parameter(0.02 * torch.randn(books, largest, width))  # u
        self.begin = nn.Parameter(0.2 * torch.randn(width))
        self.place_token = nn.Parameter(0.2 * torch.randn(length, width))
        self.place_book = nn.Parameter(0.2 * torch.randn(books, width))
        self.missed = GUESSED if guessed else 1.0
        self.register_buffer("vectors", None)
        if vectors is not None:
            self._build_geometry(vectors)

    def _build_geometry(self, vectors: Sequence[Tensor]) -> None:
        books, dim = len(self.codebook_sizes), vectors[0].shape[-1]
        self.register_buffer("vectors", torch.zeros(books, max(self.codebook_sizes), dim))  # [Q, K, D]
        self.register_buffer("rest_mean", torch.zeros(books, dim))  # what codebooks q, q + 1, ... still add
        self.register_buffer("spread", torch.ones(books + 1, dim))  # of each codebook; last: of the whole latent
        self.register_buffer("log_sharpness", torch.zeros(books))
        self.register_buffer("gate_start", torch.zeros(books, dim))
        self.read = nn.Linear(2 * dim, self.width)
        self.latent = nn.Linear(self.width, dim)
        self.gate = nn.Linear(self.width, dim)
        self.sharpness = nn.Linear(self.width, books)
        for layer in (self.gate, self.sharpness, *([self.latent] if self.missed < 1 else [])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.copy_vectors(vectors)

    @torch.no_grad()
    def copy_vectors(self, vectors: Sequence[Tensor]) -> None:
        """Take the codes' vectors from a trained quantizer, as a copy, and the scales that follow from them."""
        total, variances, effective = [], [], []
        table = self.geometry()
        for book, given in enumerate(vectors):
            code = torch.nan_to_num(given.detach().to(table))
            table[book, : len(code)] = code
            centred = code - code.mean(0)
            covariance = centred.T @ centred / len(code)
            total.append(code.mean(0))
            variances.append(covariance.diagonal())
            effective.append(covariance.trace() ** 2 / (covariance.square().sum() + TINY))  # participation ratio
        variance = torch.stack(variances)
        rest = variance.flip(0).cumsum(0).flip(0)  # [Q, D]  of what codebooks q, q + 1, ... still add
        floor = 1e-4 * variance.mean(1, keepdim=True) + TINY
        self.rest_mean.copy_(torch.stack(total).flip(0).cumsum(0).flip(0))
        self.spread[:-1] = (variance + floor).sqrt()
        self.spread[-1] = (rest[0] + floor[0]).sqrt()
        self.log_sharpness.copy_(((torch.stack(effective) + 1) / (rest.sum(1) + TINY)).clamp(max=1e12).log())
        self.gate_start.copy_(torch.logit(rest / (rest + self.missed * rest[0] + TINY), eps=1e-5))

    def geometry(self) -> Tensor:
        """The codes' vectors [Q, K, D], of a head that has them."""
        assert self.vectors is not None
        return self.vectors

    def compiled(self) -> CodeHead | SingleCodebookHead:
        """A head that computes the same in fewer calls, where there is one; else this head."""
        return SingleCodebookHead(self) if len(self.codebook_sizes) == 1 and not torch.is_grad_enabled() else self

    # ---- codes in

    def inputs(self, codes: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """What the network reads at the flat steps start .. stop - 1: [B, stop - start, W].

        Step n reads the code n - 1 of `codes` [B, T, Q] (-1 reads as nothing) and the sum of its token so far, and
        knows its own place; codes from n on are not looked at.
        """
        books = len(self.codebook_sizes)
        stop = codes.shape[1] * books if stop is None else stop
        steps = torch.arange(start, stop, device=codes.device)
        places = self.place_token[steps // books] + self.place_book[steps % books]
        parts = []
        if start == 0:
            parts.append(self.begin.expand(len(codes), 1, -1))
        if stop > max(start, 1):
            first = max(start - 1, 0) // books
            past = codes[:, first : (stop - 2) // books + 1]
            read = self._embed(past).flatten(1, 2)
            parts.append(read[:, max(start - 1, 0) - first * books : stop - 1 - first * books])
        return torch.cat(parts, dim=1) + places

    def _embed(self, codes: Tensor) -> Tensor:
        """[B, T, Q] -> [B, T, Q, W]."""
        embedded = math.sqrt(self.width) * self._look_up(self.table, codes)
        if self.vectors is None:
            return embedded
        vectors = self._look_up(self.vectors, codes)
        scaled = torch.cat([vectors / self.spread[:-1], vectors.cumsum(2) / self.spread[-1]], dim=-1)
        return embedded + self.read(scaled)

    def _look_up(self, table: Tensor, codes: Tensor) -> Tensor:
        """Rows of `table` [Q, K, F] for codes [B, T, Q]: [B, T, Q, F]; zeros for -1."""
        books, size, _ = table.shape
        rows = codes.clamp(min=0) + size * torch.arange(books, device=codes.device)
        return F.embedding(rows, table.flatten(0, 1)) * (codes >= 0)[..., None]

    def whole(self, guess: Tensor) -> Tensor:
        """A guess [B, T, D] in units of the latents' spread as a latent."""
        return self.rest_mean[0] + self.spread[-1] * guess

    def partial(self, codes: Tensor) -> Tensor | None:
        """[B, T, Q, D]: the sum of the vectors of the codes before q of the same token; None without geometry."""
        if self.vectors is None:
            return None
        return F.pad(self._look_up(self.vectors, codes).cumsum(2)[:, :, :-1], (0, 0, 1, 0))

    # ---- logits out

    def outputs(self, hidden: Tensor, past: Tensor, guess: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states [B, N, W] and the codes fed [B, T, Q] -> logits [B, T, Q, K], z_hat [B, T, Q, D] or None.

        `guess` [B, T, D], in units of the latents' spread, is added to the network's own prediction.
        """
        books = len(self.codebook_sizes)
        guess = None if guess is None else guess[:, : past.shape[1]]
        return self._outputs(hidden.unflatten(1, (-1, books)), self.partial(past), slice(0, books), guess)

    def step(self, hidden: Tensor, past: Tensor, step: int, guess: Tensor | None = None) -> Tensor:
        """The logits [B, K] of the flat step `step` from its hidden state [B, W]."""
        token, book = divmod(step, len(self.codebook_sizes))
        partial = self.partial(past[:, token : token + 1])
        partial = None if partial is None else partial[:, :, book : book + 1]
        guess = None if guess is None else guess[:, token : token + 1]
        return self._outputs(hidden[:, None, None], partial, slice(book, book + 1), guess)[0][:, 0, 0]

    def _outputs(
        self, hidden: Tensor, partial: Tensor | None, books: slice, guess: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(hidden.device.type, enabled=False):  # distances of fine codes need full precision
            hidden = hidden.to(self.table.dtype)
            logits = torch.einsum("btqw,qkw->btqk", hidden, self.table[books])
            z_hat = None
            if partial is not None:
                gate = (self.gate(hidden) + self.gate_start[books]).sigmoid()
                latent = self.latent(hidden) if guess is None else self.latent(hidden) + guess[:, :, None].to(hidden)
                own = self.rest_mean[0] + self.spread[-1] * latent
                rest = gate * (own - partial) + (1 - gate) * self.rest_mean[books]
                z_hat = partial + rest
                surer = self.sharpness(hidden)[..., books].diagonal(dim1=2, dim2=3)  # [B, T, q]
                sharp = (self.log_sharpness[books] + surer.clamp(-8, 8)).exp()
                logits = logits + sharp[..., None] * self._closeness(rest, books)
            return logits.masked_fill(~self.real[books], -math.inf), z_hat

    def _closeness(self, rest: Tensor, books: slice) -> Tensor:
        """rest . e - |e|^2 / 2 for every code: [B, T, q, D] -> [B, T, q, K]; largest for the nearest code."""
        vectors = self.geometry()[books]
        return torch.einsum("btqd,qkd->btqk", rest, vectors) - 0.5 * vectors.square().sum(-1)

    @torch.no_grad()
    def targets(self, codes: Tensor, fed: Tensor, latent: Tensor | None = None) -> Tensor:
        """The target codes after `fed`, where `codes` [B, T, Q] are the true ones.

        After a wrong code the true finer codes no longer fit: right is then the code nearest to what is still missing
        of the latent [B, T, D] (by default the sum of the true codes' vectors). Without geometry: `codes`.
        """
        partial = self.partial(fed)
        if self.vectors is None or partial is None:
            return codes
        if latent is None:
            latent = self._look_up(self.vectors, codes).sum(2)
        missing = latent[:, :, None] - partial
        close = self._closeness(missing, slice(0, len(self.codebook_sizes)))
        nearest = close.masked_fill(~self.real, -math.inf).argmax(-1)
        astray = F.pad((fed != codes).cumsum(2)[:, :, :-1], (1, 0)) > 0
        return torch.where(astray & (codes >= 0), nearest, codes)


class SingleCodebookHead:
    """A head of a single codebook, compiled for generation: inputs are looked up, and logits are two or three products.

    With one codebook nothing of a token is chosen before its code, so all that depends on codes alone is a table. It
    holds copies of the weights, so it lives only as long as one sequence is generated.
    """

    def __init__(self, head: CodeHead) -> None:
        self.head = head
        every = torch.arange(head.codebook_sizes[0], device=head.begin.device)
        self.read = head._embed(every[:, None, None])[:, 0, 0]  # [K, W]
        self.places = head.place_token + head.place_book[0]  # [T, W]
        self.table = head.table[0, : len(every)].t().contiguous()  # [W, K]
        if head.vectors is not None:
            codes = head.vectors[0, : len(every)]
            self.codes, self.halves = codes.t().contiguous(), 0.5 * codes.square().sum(-1)
            layers = (head.gate, head.latent, head.sharpness)
            self.bias = torch.cat([layer.bias for layer in layers])
            self.weight = torch.cat([layer.weight for layer in layers]).t().contiguous()

    def inputs(self, codes: Tensor, start: int, stop: int) -> Tensor:
        """As `CodeHead.inputs`, of codes that are all there."""
        if stop - start > 1 or start == 0:
            return self.head.inputs(codes, start, stop)
        return (self.read[codes[:, start - 1, 0]] + self.places[start])[:, None]

    def step(self, hidden: Tensor, past: Tensor, step: int, guess: Tensor | None = None) -> Tensor:
        """As `CodeHead.step`: [B, W] -> [B, K]."""
        logits = hidden @ self.table
        if self.head.vectors is None:
            return logits
        head, dim = self.head, len(self.codes)
        gate, latent, sharp = torch.addmm(self.bias, hidden, self.weight).split((dim, dim, 1), dim=1)
        gate = (gate + head.gate_start[0]).sigmoid()
        latent = latent if guess is None else latent + guess[:, step]
        rest = gate * (head.rest_mean[0] + head.spread[-1] * latent) + (1 - gate) * head.rest_mean[0]
        return logits + (head.log_sharpness[0] + sharp.clamp(-8, 8)).exp() * (rest @ self.codes - self.halves)
