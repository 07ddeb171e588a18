"""The convolutional code that corrects bit errors: bits or their probabilities to coded ones, and LLRs back."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Literal

import torch
from torch import Tensor, nn

Rate = Literal["1/2", "2/3", "3/4"]
MEMORY = 6
STATES = 2**MEMORY
TAPS = 0o133, 0o171  # of the two bits that each bit becomes, the newest bit first
KEPT: dict[Rate, tuple[int, ...]] = {"1/2": (1, 1), "2/3": (1, 1, 1, 0), "3/4": (1, 1, 1, 0, 0, 1)}  # A1 B1 A2 B2 ...
MOST = 1e3  # |LLR|: larger ones decide no more, and would leave float32 no digits for the others


class Uncoded(nn.Module):
    """No error correction: what a code does to the bits of a window, which here is nothing."""

    corrects = False

    def coded(self, bits: int) -> int:
        """The number of coded bits of `bits` bits."""
        return bits

    def encode(self, bits: Tensor) -> Tensor:
        """Bits, or probabilities of ones, [B, n] -> coded ones [B, m]."""
        return bits

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        """The LLRs [B, `bits`] of the bits, log P(1) / P(0), from those of the coded bits [B, m]."""
        return llr


class Convolutional(Uncoded):
    """The code of constraint length 7 with the generators 133 and 171 (octal) of IEEE 802.11, ended by 6 zeros.

    Rates above 1/2 leave coded bits out by the patterns of that standard. They are sent in another order: neighbours
    in the code, which correct each other, lie about .38 of a window apart and share neither a symbol nor a fade.
    """

    corrects = True
    outputs: Tensor  # [2, 128]  the coded bits of each window of 7 bits, the newest its highest

    def __init__(self, rate: Rate = "1/2") -> None:
        super().__init__()
        self.rate = rate
        ones = [[(window & taps).bit_count() % 2 for window in range(2 * STATES)] for taps in TAPS]
        self.register_buffer("outputs", torch.tensor(ones).float(), persistent=False)

    def coded(self, bits: int) -> int:
        return len(places(self.rate, bits))

    def carried(self, coded: int) -> int:
        """The most bits that take no more than `coded` coded bits; 0 where none do."""
        return next((bits for bits in range(coded, 0, -1) if self.coded(bits) <= coded), 0)

    def encode(self, bits: Tensor) -> Tensor:
        """The parity of independent bits has 1 - 2 p = prod (1 - 2 p_i): at certain bits that is the bit itself."""
        sign = nn.functional.pad(1 - 2 * bits, (MEMORY, MEMORY), value=1.0)
        steps = bits.shape[1] + MEMORY
        each = []
        for taps in TAPS:
            product = torch.ones_like(sign[:, :steps])
            for delay in range(MEMORY + 1):
                if taps >> (MEMORY - delay) & 1:
                    product = product * sign[:, MEMORY - delay : MEMORY - delay + steps]
            each.append(product)
        coded = (1 - torch.stack(each, -1).flatten(1)) / 2
        return coded[:, torch.tensor(places(self.rate, bits.shape[1]), device=bits.device)]

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        """Exact for each bit, given independent noise: Bahl, Cocke, Jelinek and Raviv 1974, in logarithms.

        A path of the trellis is a window of 7 bits for each step: its state before is the window without its newest
        bit, its state after is the window without its oldest.
        """
        steps = bits + MEMORY
        place = {at: number for number, at in enumerate(places(self.rate, bits))}
        order = torch.tensor([place.get(at, len(place)) for at in range(2 * steps)], device=llr.device)
        known = nn.functional.pad(llr.clamp(-MOST, MOST), (0, 1))  # of a bit that was left out nothing is known
        gain = known[:, order].unflatten(1, (steps, 2)).unbind(1)
        never = -MOST * 2 * steps * 2  # below every path that may be
        start = nn.functional.pad(torch.zeros_like(llr[:, :1]), (0, STATES - 1), value=never)
        forward = [start]
        for step in range(steps):
            paths = forward[-1].repeat(1, 2) + gain[step] @ self.outputs
            if step >= bits:  # the zeros at the end
                paths = nn.functional.pad(paths[:, :STATES], (0, STATES), value=never)
            state = torch.logaddexp(*paths.unflatten(1, (STATES, 2)).unbind(2))
            forward.append(state - state.amax(1, keepdim=True))
        back, found = start, []
        for step in reversed(range(steps)):
            after = torch.stack([back, back], 2).flatten(1) + gain[step] @ self.outputs
            zero, one = after.unflatten(1, (2, STATES)).unbind(1)
            if step < bits:
                past = forward[step]
                found.append(torch.logsumexp(past + one, 1) - torch.logsumexp(past + zero, 1))
            back = zero if step >= bits else torch.logaddexp(zero, one)
            back = back - back.amax(1, keepdim=True)
        return torch.stack(found[::-1], 1)


@cache
def places(rate: Rate, bits: int) -> tuple[int, ...]:
    """The place of each coded bit, in the order sent, among A1 B1 A2 B2 ... before any is left out."""
    kept = KEPT[rate]
    left = [place for place in range(2 * (bits + MEMORY)) if kept[place % len(kept)]]
    apart = next(step for step in range(int(0.382 * len(left)), len(left)) if gcd(step, len(left)) == 1)
    sent = {at * apart % len(left): place for at, place in enumerate(left)}
    return tuple(sent[at] for at in range(len(left)))
