"""A channel that carries the bits of codes, whatever its noise is; also for quantizers that route windows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, cast

import torch
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor, nn

from vqtool.api import Channel, Quantized, Received
from vqtool.api.precision import own_precision
from vqtool.errors import VqtoolError
from vqtool.quantizers.estimators.straight_through import AddGradient
from vqtool_semcom.index_bits import IndexBits
from vqtool_semcom.labels import Labelling
from vqtool_semcom.mode_router import ModeRoute, with_mode

Gradient = Literal["straight-through", "link", "both"]
Noise = tuple[Tensor, ...]
Pair = tuple[Tensor, Tensor]  # (soft, hard)
SURE = 1e6  # an LLR of a bit beyond doubt: sums of infinite ones are NaN


@dataclass(frozen=True, slots=True)
class Transmission:
    """Bits that came through the noise: n bits per window."""

    llr: Tensor  # [B, n]  log P(bit = 1) / P(bit = 0)
    sent: Mapping[str, Tensor] = field(default_factory=dict)  # what was transmitted, to compare soft with hard
    figures: Mapping[str, Tensor] = field(default_factory=dict)  # [B] each
    arrived: Mapping[str, Tensor] = field(default_factory=dict)  # what the receiver computed them from


class BitChannel(Channel):
    """Codes -> labels -> bits -> `transmit` (a subclass's noise) -> LLRs -> P(code | received) -> the mean code vector.

    The soft path transmits, in place of a code's bits, each bit's probability under the quantizer's distribution.
    Training transmits p = soft + hard_share (bits - soft), where the bracket has no gradient: the value is moved by
    the share `hard` towards the deployed path, the gradient is that of the soft path. The gradient goes back through
    the noise to the quantizer's `probs` ("link"), past channel and code choice to the latents as if z had arrived
    unchanged ("straight-through", the only way for a quantizer without probabilities), or both ways ("both").

    Of a residual quantizer the first `send_levels` levels may be sent alone: fewer symbols for the same weights. The
    bits of a window go level after level. With a quantizer that routes, the codes of a window are those of one codebook
    and use one mode of the channel; the receiver gets both as side information.
    """

    knobs = frozenset({"hard"})
    arrivals: tuple[tuple[str, ...], ...] = (("llr",),)
    measure: str  # what a level is
    span: tuple[float, float]  # the lowest and the highest level
    symbol_bits: tuple[int, ...] = (1,)  # bits that one use of the channel carries, by mode
    protect = False  # whether the bits of several levels share the uses of the channel
    prepared: Tensor

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        *,
        labels: Annotated[
            Labelling, Doc("bits of the codes: their number, a Gray code along their first axis, or that, optimised")
        ] = "pseudo-gray",
        radius: Annotated[
            Annotated[int, Ge(0)] | None,
            Doc("largest Hamming distance of codes that the receiver considers; none: all"),
        ] = None,
        hard: Annotated[float, Interval(ge=0, le=1), Doc("share of the hard path in what training transmits")] = 1.0,
        gradient: Annotated[
            Gradient, Doc("path of the gradient: past the channel, through its noise, or both")
        ] = "both",
        send_levels: Annotated[
            int, Ge(0), Doc("levels of a residual quantizer that are sent, the first ones; 0: all")
        ] = 0,
        random_levels: Annotated[
            bool, Doc("send the first levels of each training batch alone, a random number of them")
        ] = False,
    ) -> None:
        super().__init__()
        self._use_codes(codebook_sizes, labels, radius)
        if send_levels > len(codebook_sizes):
            raise VqtoolError(f"`send_levels` is {send_levels}, and there are {len(codebook_sizes)} levels")
        self.send_levels, self.random_levels = send_levels, random_levels
        self.hard, self.gradient = hard, gradient
        self.register_buffer("prepared", torch.zeros((), dtype=torch.bool))

    def _use_codes(self, codebook_sizes: Sequence[int], labels: Labelling, radius: int | None) -> None:
        self.books = nn.ModuleList(IndexBits(size, radius=radius) for size in codebook_sizes)
        self.labelling: Labelling = labels

    @property
    def width(self) -> int:
        """Bits per token, of the levels that are sent."""
        return sum(book.width for book in self.index_bits[: self.send_levels or None])

    @property
    def index_bits(self) -> list[IndexBits]:
        """`books`, typed."""
        return cast("list[IndexBits]", list(self.books))

    def prepare(self, tables: Sequence[Tensor]) -> None:
        """Label the codes; only once, since whatever is trained afterwards is trained for these labels."""
        if self.prepared:
            return
        self.prepared.fill_(True)
        for book, table in zip(self.index_bits, tables, strict=True):
            book.relabel(self.labelling, table)

    def for_codes(self, codebook_sizes: Sequence[int], labels: Labelling) -> BitChannel:
        """The same noise for other codes, with a receiver that weighs all of them."""
        other = copy.deepcopy(self)
        other._use_codes(codebook_sizes, labels, None)
        other.prepared.fill_(False)
        other.send_levels, other.random_levels = 0, False
        return other

    def transmit(self, bits: Tensor, level: Tensor, noise: Noise, *, soft: bool, mode: int = 0) -> Transmission:
        """Bits or, where `soft`, probabilities of ones [B, n] through the noise at `level` [B]; differentiable.

        The noise may be for more than n bits: then its first part is used.
        """
        raise NotImplementedError

    def transmit_blend(
        self, soft: Transmission, hard: Transmission, bits: Tensor, level: Tensor, noise: Noise
    ) -> Transmission:
        """What training transmits, given the blended `bits`; a channel with more stages may blend them as well."""
        return self.transmit(bits, level, noise, soft=True)

    def training_level(self, rows: int, device: torch.device) -> Tensor:
        """A level [B] for each row of a training batch."""
        raise NotImplementedError

    def bits_of(self, quantized: Quantized) -> int:
        """n, the bits of a window; with a quantizer that routes, those of its largest codebook."""
        width = self.width if quantized.route is None else max(book.width for book in self.index_bits)
        return quantized.codes.shape[1] * width

    def symbols_of(self, bits: int, mode: int = 0) -> int:
        """S, the uses of the channel that carry `bits` bits of a window."""
        return -(-bits // self.symbol_bits[mode])

    def forward(
        self,
        quantized: Quantized,
        tables: Sequence[Tensor],
        *,
        level: float | None = None,
        noise: Noise | None = None,
    ) -> Received:
        rows, device = quantized.codes.shape[0], quantized.z.device
        if level is not None:
            low, high = self.span
            if not low <= level <= high:
                raise VqtoolError(f"{self.measure} should be from {low:g} to {high:g}, not {level:g}")
            levels = torch.full((rows,), float(level), device=device)
        elif self.training:
            levels = self.training_level(rows, device)
        else:
            levels = torch.full((rows,), float(self.levels()[""]), device=device)
        route = None if quantized.route is None else with_mode(quantized.route)
        modes = 1 if route is None else route.mode_probs.shape[1]
        if modes != len(self.symbol_bits):
            raise VqtoolError(
                f"the channel has {len(self.symbol_bits)} modes, and the quantizer chooses among {modes}",
                hint=f"a quantizer that routes, with `modes = {len(self.symbol_bits)}`: mixture-ema or routed-modes",
            )
        noise = self.draw(quantized) if noise is None else noise
        with own_precision(quantized.z):
            if route is not None:
                if self.send_levels or self.random_levels:
                    raise VqtoolError("a quantizer that routes has no levels to leave out", hint="send_levels = 0")
                return send_by_route(self, quantized, route, tables, levels, noise)
            return self._send(quantized, tables, levels, noise)

    def rounds(
        self, quantized: Quantized, tables: Sequence[Tensor], level: float | None, noise: Noise | None
    ) -> Iterator[Received]:
        if quantized.route is not None or len(self.books) == 1:
            raise VqtoolError("this quantizer has no levels to send one after the other",
                              hint="leave `doubt` out; residual-ema has levels")  # fmt: skip
        if self.protect:
            raise VqtoolError("with `protect` the bits of all levels share the symbols, and are sent at once",
                              hint="protect = false, or leave `doubt` out")  # fmt: skip
        bits, tokens = self.symbol_bits[0], quantized.codes.shape[1]
        if any(tokens * book.width % bits for book in self.index_bits):
            raise VqtoolError(f"a level of {tokens} tokens should fill whole symbols of {bits} bits to be sent alone",
                              hint="another `order`, or leave `doubt` out")  # fmt: skip
        noise = self.draw(quantized) if noise is None else noise
        for count in range(1, (self.send_levels or len(self.books)) + 1):
            yield self(first_levels(quantized, count), tables, level=level, noise=noise)

    def _first_levels(self, quantized: Quantized) -> Quantized:
        """The codes of the levels that are sent: as many as `send_levels` says, in training at random where asked."""
        count = self.send_levels or len(self.books)
        if self.training and self.random_levels:
            count = int(torch.randint(count, ())) + 1
        return first_levels(quantized, count)

    def _send(self, quantized: Quantized, tables: Sequence[Tensor], level: Tensor, noise: Noise) -> Received:
        quantized = self._first_levels(quantized)
        tables = tables[: quantized.codes.shape[-1]]
        bits = self.bits(quantized.codes)
        hard = self.transmit(bits, level, noise, soft=False)
        posterior = self.posteriors(hard.llr, quantized)
        arrived = mean_vectors(posterior, tables)
        size = {"bits": bits.shape[1], "symbols": self.symbols_of(bits.shape[1])}  # of a window
        figures = {**hard.figures, "ber": bit_error_share(hard.llr, bits)}
        figures |= {name: torch.full_like(level, value) for name, value in size.items()}
        codes = torch.stack([p.argmax(-1) for p in posterior], -1)
        trace = {"bits": bits, **hard.sent, "llr": hard.llr, **hard.arrived}
        if quantized.probs is None:
            return Received(straight_through(arrived, quantized), arrived.detach(), codes, None, {}, figures, trace)
        soft_bits = self._soft_bits(quantized.probs)
        soft = self.transmit(soft_bits, level, noise, soft=True)
        arrived_soft = mean_vectors(self.posteriors(soft.llr, quantized), tables)
        stages = {"bits": (soft_bits, bits), "llr": (soft.llr, hard.llr), "vectors": (arrived_soft, arrived)}
        stages |= {name: (soft.sent[name], hard.sent[name]) for name in hard.sent}
        figures |= {f"{name}.soft": figure for name, figure in soft.figures.items() if name != "ber.theory"}
        figures |= self.soft_figures(soft_bits)
        z = arrived
        if self.training and self.gradient == "straight-through":
            z = straight_through(torch.lerp(arrived_soft.detach(), arrived, self.hard), quantized)
        elif self.training:
            z = arrived_soft
            if self.hard != 0:
                mixed = towards_hard((soft_bits, bits), self.hard)
                llr = self.transmit_blend(soft, hard, mixed, level, noise).llr
                z = mean_vectors(self.posteriors(llr, quantized), tables)
            z = z if self.gradient == "link" else straight_through(z, quantized)
        return Received(z, arrived.detach(), codes, arrived_soft, stages, figures, trace)

    def bits(self, codes: Tensor) -> Tensor:
        """The bits [B, n] of the codes [B, T, Q] of a window, level after level: a part of them is the first levels."""
        columns = zip(self.index_bits, codes.unbind(-1), strict=False)
        return torch.cat([book.hard(column).flatten(1) for book, column in columns], -1)

    def soft_figures(self, bits: Tensor) -> dict[str, Tensor]:
        """Figures [B] of the soft path's bits [B, n], probabilities of ones."""
        return {}

    def send(self, quantized: Quantized) -> dict[str, Tensor]:
        """`bits` [B, n], and what carries them.

        Raises:
            VqtoolError: the quantizer routes: how a window is sent is known with its codes only.
        """
        if quantized.route is not None:
            raise VqtoolError(
                "the two ends of this link cannot be used apart: each window has a route of its own",
                hint="vqtool transmit CKPT INPUT --snr DB sends, and receives with the route known",
            )
        bits = self.bits(self._first_levels(quantized).codes)
        return {"bits": bits, **self.carried(bits)}

    def carried(self, bits: Tensor) -> dict[str, Tensor]:
        """What goes into the channel for `bits` [B, n], beside these themselves."""
        return {}

    def observe(self, quantized: Quantized, tables: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        received = self(quantized, tables)
        return self.forms(received, torch.full((len(quantized.codes),), float(self.levels()[""])))

    def forms(self, received: Received, level: Tensor) -> list[dict[str, Tensor]]:
        """What arrived, in each of the forms of `arrivals`."""
        return [{"llr": received.trace["llr"]}]

    def receive(self, arrived: Mapping[str, Tensor], tables: Sequence[Tensor], tokens: int) -> Tensor:
        """From `llr` [B, n] = log P(bit = 1) / P(bit = 0), or from what the channel has besides in `arrivals`."""
        if not any(set(names) == arrived.keys() for names in self.arrivals):
            forms = " or ".join(" and ".join(f"`{name}`" for name in names) for names in self.arrivals)
            given = ", ".join(f"`{name}`" for name in arrived) or "nothing"
            raise VqtoolError(f"this receiver takes {forms}, not {given}")
        bits = tokens * self.width
        llr = real(arrived, "llr").clamp(-SURE, SURE) if "llr" in arrived else self.llr_of(arrived, bits)
        if llr.dim() != 2 or llr.shape[1] != bits:
            raise VqtoolError(f"`llr` should have the shape [B, {bits}], not {list(llr.shape)}")
        levels = self.send_levels or len(self.books)
        return mean_vectors(self._by_token(llr, tokens, levels), tables[:levels])

    def llr_of(self, arrived: Mapping[str, Tensor], bits: int) -> Tensor:
        """The LLRs [B, `bits`] of what arrived in another form."""
        raise NotImplementedError

    def _soft_bits(self, probs: Tensor) -> Tensor:
        books = self.index_bits[: probs.shape[2]]
        return torch.cat([book.soft(probs[:, :, q, : book.size]).flatten(1) for q, book in enumerate(books)], -1)

    def posteriors(self, llr: Tensor, quantized: Quantized) -> list[Tensor]:
        """P(code | received), Q of [B, T, K_q], from the LLRs [B, n] of a window."""
        return self._by_token(llr, *quantized.codes.shape[1:])

    def _by_token(self, llr: Tensor, tokens: int, levels: int) -> list[Tensor]:
        books = self.index_bits[:levels]
        parts = llr.split([tokens * book.width for book in books], 1)
        return [book.posterior(part.reshape(-1, tokens, book.width)) for book, part in zip(books, parts, strict=True)]


def first_levels(quantized: Quantized, count: int) -> Quantized:
    """The codes of the first `count` levels alone."""
    probs = None if quantized.probs is None else quantized.probs[:, :, :count]
    return replace(quantized, codes=quantized.codes[..., :count], probs=probs)


def real(arrived: Mapping[str, Tensor], name: str) -> Tensor:
    """One of the tensors that arrived, as float32."""
    if arrived[name].is_complex():
        raise VqtoolError(f"`{name}` should be real numbers, not complex ones")
    return arrived[name].float()


def mean_vectors(posteriors: Sequence[Tensor], tables: Sequence[Tensor]) -> Tensor:
    """The mean code vectors [B, T, D], summed over codebooks."""
    return torch.stack([p @ table for p, table in zip(posteriors, tables, strict=True)]).sum(0)


def bit_error_share(llr: Tensor, bits: Tensor) -> Tensor:
    """The share of wrong bits [B] among those decided by the sign of `llr` [B, n]."""
    return ((llr > 0) != (bits > 0.5)).float().mean(1)


def straight_through(arrived: Tensor, quantized: Quantized) -> Tensor:
    """The value of `arrived` with its own gradient and, in addition, the identity to what the quantizer passed on."""
    return AddGradient.apply(quantized.z, arrived) if quantized.z.requires_grad else arrived


def towards_hard(pair: Pair, share: float) -> Tensor:
    """soft + share (hard - soft), with the gradient of `soft`."""
    soft, hard = pair
    return soft + share * (hard - soft).detach()


def send_by_route(
    channel: BitChannel, quantized: Quantized, route: ModeRoute, tables: Sequence[Tensor], level: Tensor, noise: Noise
) -> Received:
    """Send every window by its route, which the receiver gets as `side_bits` bits without errors.

    The value is that of the chosen routes alone. In training the router learns the mode from what the other modes
    would have given through the same noise: its probabilities p_m get the gradient of sum_m p_m z_m; the rest of the
    gradient goes past the channel. `symbols` is what a window takes, with one symbol per side bit; `symbols.expected`
    is the mean over the router's probabilities, sum_{r,m} p_r p_m N k_r / log2 M_m, with its gradient.
    """
    learns = channel.training and route.mode_probs.requires_grad and len(channel.symbol_bits) > 1
    hard, all_modes = torch.zeros_like(quantized.hard), torch.zeros_like(quantized.hard)
    codes = torch.full_like(quantized.codes, -1)
    figures: dict[str, Tensor] = {}
    trace: dict[str, Tensor] = {}
    for expert, book in enumerate(channel.index_bits):
        for mode in range(len(channel.symbol_bits)):
            taken = (route.expert == expert) & (route.mode == mode)
            rows = ((route.expert == expert) if learns else taken).nonzero().squeeze(1)
            if not len(rows):
                continue
            sent = quantized.codes[rows, :, expert]
            bits = book.hard(sent).flatten(1)
            got = channel.transmit(bits, level[rows], tuple(n[rows] for n in noise), soft=False, mode=mode)
            posterior = book.posterior(got.llr.view(*sent.shape, book.width))
            arrived = posterior.detach() @ tables[expert].detach()
            if learns:
                all_modes = all_modes.index_add(0, rows, route.mode_probs[rows, mode, None, None] * arrived)
            mine = taken[rows]
            rows = rows[mine]
            hard[rows] = arrived[mine]
            codes[rows, :, expert] = posterior.argmax(-1)[mine]
            wrong = bit_error_share(got.llr, bits)
            symbols = torch.full_like(wrong, channel.symbols_of(bits.shape[1], mode) + route.side_bits)
            size = {"bits": torch.full_like(wrong, bits.shape[1]), "symbols": symbols}
            for name, figure in {**got.figures, "ber": wrong, **size}.items():
                figures.setdefault(name, level.new_zeros(len(level)))[rows] = figure[mine]
            for name, value in {"bits": bits, **got.sent, **got.arrived}.items():
                put(trace, name, value[mine], rows, len(level))
    figures["side_bits"] = torch.full_like(level, route.side_bits)
    widths = [book.width for book in channel.index_bits]
    figures["symbols.expected"] = expected_symbols(route, quantized.codes.shape[1], widths, channel.symbol_bits)
    z = straight_through(hard.clone(), quantized)
    if learns:
        z = AddGradient.apply(all_modes, z)
    return Received(z, hard, codes, figures=figures, trace=trace)


def put(trace: dict[str, Tensor], name: str, value: Tensor, rows: Tensor, count: int) -> None:
    """Set `rows` of a [`count`, ...] tensor of the trace, as wide as its widest row; NaN where a row is shorter."""
    held = trace.get(name, value.new_full((count, 0, *value.shape[2:]), torch.nan))
    if short := max(0, value.shape[1] - held.shape[1]):
        held = torch.cat([held, held.new_full((count, short, *value.shape[2:]), torch.nan)], 1)
    held[rows, : value.shape[1]] = value.detach()
    trace[name] = held


def expected_symbols(route: ModeRoute, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """sum_{r,m} p_r p_m N k_r / log2 M_m [B] for N `tokens`, k_r = `widths` bits a code, log2 M_m = `symbol_bits`."""
    bits = route.expert_probs @ route.expert_probs.new_tensor([tokens * width for width in widths])
    uses = route.mode_probs @ route.mode_probs.new_tensor([1 / width for width in symbol_bits])
    return bits * uses
