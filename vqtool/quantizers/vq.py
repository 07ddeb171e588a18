"""One codebook: the nearest code of each token; codes that follow their inputs, are trained, mapped or frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, TypeGuard

import torch
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from vqtool.api import Estimator, Nested
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.arithmetic import ARITHMETIC
from vqtool.quantizers.core.checked import preset
from vqtool.quantizers.core.codebook import Codebook, Codes, Start
from vqtool.quantizers.core.composable import Coded, Composable, Layout, n_values
from vqtool.quantizers.core.draw import column_keys, gumbel, noise_keys
from vqtool.quantizers.core.kmeans import kmeans, random_rows
from vqtool.quantizers.core.maps import Frozen
from vqtool.quantizers.estimators.diveq import DiVeQ
from vqtool.quantizers.estimators.rotation import Rotation
from vqtool.quantizers.estimators.straight_through import StraightThrough, squared_distance, unit

Weights = Mapping[str, float] | None
Size = Annotated[int, Gt(1), Doc("codes in the codebook")]
Decay = Annotated[float, Interval(ge=0, lt=1), Doc("share of the past in the moving average, per step")]
Revive = Annotated[float, Ge(0), Doc("reinitialise codes used less than this share of uniform use")]
First = Annotated[Literal["kmeans", "random"], Doc("first codes: k-means centres or random ones of the first inputs")]
Project = Annotated[
    Literal["principal", "learned", "affine", "conv", "affine-conv", "random"],
    Doc("how latents get to `code_dim` dimensions and back"),
]
Search = Annotated[
    Literal["nearest", "encodec", "vqgan", "mimi", "vector-quantize-pytorch", "dac", "dac-transformers"],
    Doc("the nearest code, or what another library computes, rounding and all"),
]
Sampling = Annotated[float, Ge(0), Doc("temperature of a random choice among near codes in training; 0: the nearest")]
Passing = Annotated[
    str | Callable[[], Estimator],
    Nested("estimator"),
    Doc("how the gradient passes: straight-through, rotation or diveq"),
]
STARTS: Mapping[str, Start] = {"kmeans": kmeans, "random": random_rows}
ESTIMATORS: Mapping[str, Callable[[], Estimator]] = {
    "straight-through": StraightThrough, "rotation": Rotation, "diveq": DiVeQ,
}  # fmt: skip
START = {"start": "kmeans"}
AVERAGE = {"decay": 0.99, "revive_below": 0.1, **START}
Compared = Annotated[int, Gt(1), Doc("dimensions in which codes are compared")]
Projected = Annotated[int, Gt(0), Doc("dimensions in which codes are compared")]


# kind: vq
class VQ(Composable):
    """One codebook: the nearest code of each token; codes that follow their inputs, are trained, mapped or frozen.

    Vector quantization (VQ-VAE, van den Oord et al. 2017, arXiv 1711.00937).

        self.vq = VQ(64, codebook_size=1024, layout="BCL")
        z, codes, loss = self.vq(latents)       # starts itself on the first training batch
        vqtool.attach(optimizer, model)         # once: moves the codes after every optimizer.step()

    `codes`: "ema", the moving average of the inputs; "learned", by the term `codebook` or the estimator; "mapped",
    frozen random codes behind a trained linear map (SimVQ, Zhu et al. 2024, arXiv 2411.02038); "frozen" (BEST-RQ with
    `metric = "cosine"`, `project = "random"`, Chiu et al. 2022, arXiv 2202.01855).
    `code_dim` and `project`: codes of fewer dimensions, in a plane through the inputs' mean along their principal
    components, or behind trained maps W_in and W_out (ViT-VQGAN, Yu et al. 2021, arXiv 2110.04627, section 3.2):
    "learned", "affine" (with both biases), and convolutions of width one, "conv" and "affine-conv".
    `metric = "cosine"`: inputs and codes are compared, and flow on, with length one.
    `search`: by another library's arithmetic, so that converted models give the same codes to the last index (see
    `vqtool.convert`); with "dac" and "dac-transformers" the code of the nearest direction flows on with its own length.
    Terms: `commitment`, the mean of (z - code)^2 over valid tokens and features, moves the encoder only; `codebook`,
    the same, the codes only.
    """

    terms = frozenset({"commitment"})
    old_names = ((r"^frozen\.", "codebook."), (r"^map\.", "codebook.map."))

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *,
        codebook_size: Size = 512,
        codes: Annotated[Codes, Doc("what moves the codes: their inputs, a loss, a trained map, nothing")] = "ema",
        metric: Annotated[Literal["euclidean", "cosine"], Doc("how inputs and codes are compared")] = "euclidean",
        code_dim: Annotated[int, Ge(0), Doc("dimensions of a code; 0: those of the latents")] = 0,
        project: Project = "principal", gradient: Passing = "straight-through", sampling: Sampling = 0.0,
        decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans", search: Search = "nearest",
    ) -> None:  # fmt: skip
        plane, trained = code_dim if project == "principal" else 0, project not in ("principal", "random")
        super().__init__(dim, layout, weights, inside=code_dim if trained else 0, maps=project)
        if project == "random" and code_dim:
            self.inwards, self.outwards = Frozen(code_dim, dim), Frozen(dim, code_dim)
        if metric == "cosine" and plane:
            raise VqtoolError('`metric = "cosine"` needs another `project` than "principal"')
        self.codebook_sizes = (codebook_size,)
        self.sampling, self.start, self.unit = sampling, start, metric == "cosine"
        if isinstance(gradient, str) and gradient not in ESTIMATORS:
            raise VqtoolError(f'there is no gradient estimator "{gradient}"', hint=f"one of {', '.join(ESTIMATORS)}")
        self.estimator = ESTIMATORS[gradient]() if isinstance(gradient, str) else gradient()
        if self.estimator.trains_codes and codes not in ("learned", "mapped"):
            raise VqtoolError(f"this gradient trains the codes, and `codes` is {codes!r}", hint='codes="learned"')
        width = dim if self.inwards is None else code_dim
        self.arithmetic = ARITHMETIC.get(f"{search}-cosine" if self.unit and search != "nearest" else search)
        if search != "nearest" and self.arithmetic is None:
            raise VqtoolError(f'`search = "{search}"` has no `metric = "cosine"`')
        self.codebook = Codebook(codebook_size, width, codes=codes, unit=self.unit, code_dim=plane, decay=decay,
                                 revive_below=revive_below, arithmetic=self.arithmetic)  # fmt: skip
        self.books = (self.codebook,)
        self.terms = self.terms | self._own_terms(codes)
        self.straight_through = self.estimator.identity and not self.unit and self.inwards is None
        self.nearest = not self.unit and self.inwards is None and not getattr(self.arithmetic, "by_angle", False)

    @staticmethod
    def _own_terms(codes: object) -> frozenset[str]:
        return frozenset({"codebook"}) if codes in ("learned", "mapped") else frozenset()

    @classmethod
    def announced(cls, options: Mapping[str, object]) -> tuple[frozenset[str], frozenset[str]]:
        return cls.terms | cls._own_terms(options.get("codes")), cls.knobs

    def start_from(self, points: Tensor, generator: torch.Generator) -> None:
        points = unit(points) if self.unit else points
        self.codebook.start(points, STARTS[self.start], generator)

    def codebooks_with_inputs(self, tokens: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        if self.codebook.kind in ("mapped", "frozen"):
            return  # their codes are not to be moved one by one
        with torch.no_grad():
            if self.inwards is not None:
                tokens = self.inwards(tokens)
            if self.unit:
                if self.arithmetic is None:
                    self.codebook.codes.copy_(unit(self.codebook.codes))  # their length does not matter
                tokens = unit(tokens)
        yield self.codebook, tokens

    def coded(self, tokens: Tensor, valid: Tensor | None, shape: tuple[int, int], codes: Tensor | None = None) -> Coded:
        """Quantize `tokens` [N, inside] by the `codes` [N] that were chosen for them; None: by the nearest."""
        tokens, book = unit(tokens) if self.unit else tokens, self.codebook
        codes = self.chosen(tokens, valid) if codes is None else codes
        value = book.look_up(codes, valid, trained=self.estimator.trains_codes and torch.is_grad_enabled())
        if self.arithmetic is not None and self.arithmetic.adds:
            value = tokens.detach() + (value - tokens.detach())
        coded = Coded(codes[:, None], value)
        if book.kind in ("learned", "mapped"):
            coded.sse, coded.n_values = squared_distance(tokens, value, valid), n_values(tokens, valid)
            coded.terms["codebook"] = book.loss(tokens, codes, valid, coded.sse, coded.n_values)
        elif book.kind == "ema" and self.training:
            coded.stats = (book.stats(tokens, codes, valid),)
        if self.unit:  # the gradient passes the normalisation
            self.finished(tokens, coded, valid)
        return coded

    def chosen(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """The code [N] of each token: the nearest, or a near one where codes are sampled in training."""
        if not (self.training and self.sampling):
            return self.codebook.search(tokens, valid)
        with torch.no_grad():
            book, scores = self.codebook, self.codebook.scores(tokens, self.sampling)
            seen = tokens.bfloat16().float()[:, None]  # rounding must not change the draw, nor the batch
            state = book.weights[:, None] if book.kind == "ema" else book.codes.bfloat16().float()
            codes = (scores - gumbel(noise_keys(seen, state), column_keys(scores.shape[1], scores.device))).argmax(1)
        return codes if valid is None else codes.masked_fill(~valid, -1)

    def nearest_tables(self) -> tuple[Tensor, ...]:
        book, own = self.codebook, type(self)
        simple = (
            plain(self) and own.chosen is VQ.chosen and book.kind in ("ema", "frozen") and self.arithmetic is None
            and not book.plane and self.estimator.identity and not (self.training and self.sampling)
        )  # fmt: skip
        return (book.codes,) if simple else ()

    def decoded(self, codes: Tensor) -> Tensor:
        return self.codebook.look_up(codes[:, 0], codes[:, 0] >= 0)

    def tables(self) -> tuple[Tensor, ...]:
        return (self.codebook.table,)


# kind: ema
class EMA(VQ):
    """One codebook whose codes follow the mean of their inputs, as a moving average.

    VQ-VAE's quantizer (van den Oord et al. 2017): `vq` as it is by default.
    """

    __init__ = preset(VQ, {"codebook_size": 512, **AVERAGE})


# kind: rotation
class RotationEMA(VQ):
    """One codebook by moving average; the gradient is rotated and scaled as the input is onto its code.

    The rotation trick (Fifty et al. 2024, arXiv 2410.06424): `vq` with `gradient = "rotation"`.
    """

    __init__ = preset(VQ, {"codebook_size": 512, **AVERAGE}, gradient=(Rotation, {"largest_gain": 2.0}))


# kind: gradient
class Gradient(VQ):
    """One codebook trained by its own loss, like every other weight.

    VQ-VAE with a trained codebook (van den Oord et al. 2017, eq. 3): `vq` with `codes = "learned"`. The weights of its
    two terms are the two betas of the objective.
    """

    terms = frozenset({"commitment", "codebook"})
    __init__ = preset(VQ, {"codebook_size": 512, **START}, codes="learned")


# kind: simvq
class SimVQ(VQ):
    """One frozen random codebook, turned and stretched by one trained linear map: all codes move together.

    SimVQ (Zhu et al. 2024, arXiv 2411.02038): `vq` with `codes = "mapped"`.
    """

    terms = frozenset({"commitment", "codebook"})
    __init__ = preset(VQ, {"codebook_size": 1024}, codes="mapped")


# kind: cosine
class Cosine(VQ):
    """Codes of length one in a few dimensions, chosen by cosine similarity; trained by their own loss.

    ViT-VQGAN (Yu et al. 2021, arXiv 2110.04627, section 3.2): `vq` with learned codes, the cosine metric and
    trained maps.
    """

    terms = frozenset({"commitment", "codebook"})
    __init__ = preset(VQ, {"codebook_size": 1024, "code_dim": 8, **START}, {"code_dim": Compared}, codes="learned",
                      metric="cosine", project="learned")  # fmt: skip


# kind: random-projection
class RandomProjection(VQ):
    """A frozen random projection and a frozen random codebook: targets for masked prediction.

    BEST-RQ (Chiu et al. 2022, arXiv 2202.01855): `vq` with frozen codes, the cosine metric and a random projection.
    """

    __init__ = preset(VQ, {"codebook_size": 8192, "code_dim": 16}, {"code_dim": Projected}, codes="frozen",
                      metric="cosine", project="random")  # fmt: skip


def plain(quantizer: nn.Module) -> TypeGuard[VQ]:
    """Whether this is one codebook whose nearest code is taken: a search may be done for it."""
    return isinstance(quantizer, VQ) and quantizer.nearest and type(quantizer).coded is VQ.coded
