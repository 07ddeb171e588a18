"""The cases of `vqtool bench generation`: generating codes with a small transformer, beside transformers' GPT-2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from vqtool.bench.measure import Call, in_turns
from vqtool.bench.peers import installed
from vqtool.catalog import catalog


@dataclass(frozen=True, slots=True)
class Case:
    """So many texts at once, each of `new` codes after a prompt; drawn from the 50 likeliest, in float32."""

    batch: int
    prompt: int = 32
    new: int = 256
    codes: int = 256
    layers: int = 4
    heads: int = 4
    width: int = 128
    top_k: int = 50

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"gpt {self.layers} x {self.width}, {self.new} codes after {self.prompt}, batch {self.batch}"


CASES = (Case(1), Case(32))


def rows(device: torch.device, seconds: float) -> Iterator[dict[str, Any]]:
    """Every row of the table, each in about `seconds`; `tokens_per_second` is of CPU time where one thread computes."""
    for case in CASES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            prompt = torch.randint(case.codes, (case.batch, case.prompt), device=device)
            calls = {"ours": ours(case, prompt)} | dict(peers(case, prompt))
            figures = in_turns(calls, device, seconds=seconds)
        mine, tokens = figures.pop("ours"), case.batch * case.new
        yield {
            "case": case.name,
            "mode": "generate",
            "ours_ms": mine.ms,
            "ours_mib": mine.mib,
            "tokens_per_second": 1000 * tokens / mine.ms,
            "peers": {n: f.beside(mine) | {"tokens_per_second": 1000 * tokens / f.ms} for n, f in figures.items()},
        }


def ours(case: Case, prompt: torch.Tensor) -> Call:
    """The `gpt` prior of one codebook, without a condition."""
    made = catalog().load("prior", "gpt")
    length = case.prompt + case.new
    prior = made((case.codes,), length, layers=case.layers, heads=case.heads, width=case.width)
    prior.to(prompt.device).eval()
    seeds = list(range(case.batch))
    return lambda: prior.sample(case.batch, prefix=prompt[:, :, None], top_k=case.top_k, seeds=seeds)


def peers(case: Case, prompt: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """GPT-2 of the same shape as transformers generates with it, with its cache."""
    library = installed("transformers", "GPT2Config", "GPT2LMHeadModel")
    if library is None:
        return
    length = case.prompt + case.new
    config = library.GPT2Config(
        vocab_size=case.codes, n_positions=length, n_embd=case.width, n_layer=case.layers, n_head=case.heads,
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = library.GPT2LMHeadModel(config).to(prompt.device).eval()
    mask = torch.ones_like(prompt)

    def generate() -> None:
        with torch.no_grad():
            model.generate(prompt, attention_mask=mask, max_new_tokens=case.new, min_new_tokens=case.new,
                           do_sample=True, top_k=case.top_k, use_cache=True)  # fmt: skip

    yield "transformers GPT-2", generate
