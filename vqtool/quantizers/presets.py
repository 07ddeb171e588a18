"""Kinds that are a quantizer with some options set: the names that recipes and checkpoints have used from the start."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from annotated_doc import Doc
from annotated_types import Ge, Gt

from vqtool.quantizers.core.tokens import Layout
from vqtool.quantizers.estimators.rotation import Rotation
from vqtool.quantizers.grouped import Grouped, Groups
from vqtool.quantizers.gumbel import Gumbel, Logits, Spread, Temperature
from vqtool.quantizers.residual import Beam, Dropout, Levels, Residual
from vqtool.quantizers.soft import Soft
from vqtool.quantizers.vq import VQ, Decay, First, Revive, Size, Weights
from vqtool.quantizers.waterfill import Depth, Floor, StartTokens, Step, Waterfill


# kind: ema
class EMA(VQ):
    """One codebook whose codes follow the mean of their inputs, as a moving average.

    VQ-VAE's quantizer (van den Oord et al. 2017): `vq` as it is by default.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, decay=decay, revive_below=revive_below,
                         start=start)  # fmt: skip


# kind: rotation
class RotationEMA(VQ):
    """One codebook by moving average; the gradient is rotated and scaled as the input is onto its code.

    The rotation trick (Fifty et al. 2024, arXiv 2410.06424): `vq` with `gradient = "rotation"`.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        decay: Decay = 0.99, revive_below: Revive = 0.1,
        largest_gain: Annotated[float, Gt(0), Doc("bound of the gradient's scale |code| / |z|")] = 2.0,
        start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, decay=decay, revive_below=revive_below,
                         start=start, gradient=partial(Rotation, largest_gain=largest_gain))  # fmt: skip


# kind: gradient
class Gradient(VQ):
    """One codebook trained by its own loss, like every other weight.

    VQ-VAE with a trained codebook (van den Oord et al. 2017, eq. 3): `vq` with `codes = "learned"`. The weights of its
    two terms are the two betas of the objective.
    """

    terms = frozenset({"commitment", "codebook"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes="learned", start=start)


# kind: simvq
class SimVQ(VQ):
    """One frozen random codebook, turned and stretched by one trained linear map: all codes move together.

    SimVQ (Zhu et al. 2024, arXiv 2411.02038): `vq` with `codes = "mapped"`.
    """

    terms = frozenset({"commitment", "codebook"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 1024
    ) -> None:
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes="mapped")


# kind: cosine
class Cosine(VQ):
    """Codes of length one in a few dimensions, chosen by cosine similarity; trained by their own loss.

    ViT-VQGAN (Yu et al. 2021, arXiv 2110.04627, section 3.2): `vq` with learned codes, the cosine metric and
    trained maps.
    """

    terms = frozenset({"commitment", "codebook"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 1024,
        code_dim: Annotated[int, Gt(1), Doc("dimensions in which codes are compared")] = 8, start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes="learned", metric="cosine",
                         code_dim=code_dim, project="learned", start=start)  # fmt: skip


# kind: soft-ema
class SoftEMA(Soft):
    """One codebook that follows the mean of its inputs, and the distribution over codes that each input stands for.

    `soft` with codes by moving average.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 256,
        temperature: Annotated[float, Gt(0), Doc("of the distribution, relative to the codes' own spread")] = 0.05,
        decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans",
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes="ema", temperature=temperature,
                         decay=decay, revive_below=revive_below, start=start)  # fmt: skip


# kind: residual-ema
class ResidualEMA(Residual):
    """Levels of codebooks, each of which quantizes what the ones before left over; codes by moving average.

    `residual` of `vq`.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        levels: Levels = 4, level_dropout: Dropout = 0.0,
        code_dim: Annotated[int, Ge(0), Doc("dimensions of a code, in a subspace of its level's own; 0: all")] = 0,
        decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans",
    ) -> None:  # fmt: skip
        of = partial(VQ, codebook_size=codebook_size, code_dim=code_dim, decay=decay, revive_below=revive_below,
                     start=start)  # fmt: skip
        super().__init__(dim, layout, weights, of=of, levels=levels, level_dropout=level_dropout)


# kind: product-ema
class ProductEMA(Grouped):
    """Groups of features, each with a codebook of its own that follows by moving average.

    Product quantization: `grouped` of `vq`.
    """

    terms = frozenset({"commitment"})

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 320,
        groups: Groups = 2, decay: Decay = 0.99, revive_below: Revive = 0.1, start: First = "kmeans",
    ) -> None:  # fmt: skip
        of = partial(VQ, codebook_size=codebook_size, decay=decay, revive_below=revive_below, start=start)
        super().__init__(dim, layout, weights, of=of, groups=groups)


# kind: product-gumbel
class ProductGumbel(Gumbel):
    """Groups of codes chosen by logits with Gumbel noise, as in wav2vec 2.0.

    `gumbel` with two groups by default.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 320,
        groups: Groups = 2, temperature: Temperature = 2.0, logits: Logits = "linear", spread: Spread = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, groups=groups, temperature=temperature,
                         logits=logits, spread=spread)  # fmt: skip


# kind: residual-waterfill
class ResidualWaterfill(Waterfill):
    """Residual levels shared out by energy: loud tokens go through many of them, soft ones through few or none.

    `waterfill` of `vq`.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 512,
        first_size: Annotated[int, Ge(0), Doc("codes of the first level, which few tokens take; 0: as the others")] = 0,
        levels: Levels = 4, depth: Depth = 0, step_db: Step = 3.5, floor_db: Floor = -60.0, beam: Beam = 1,
        start_tokens: StartTokens = 64, level_dropout: Dropout = 0.0, decay: Decay = 0.99, revive_below: Revive = 0.1,
        start: First = "kmeans",
    ) -> None:  # fmt: skip
        how = partial(VQ, decay=decay, revive_below=revive_below, start=start)
        sizes = (first_size or codebook_size, *((codebook_size,) * (levels - 1)))
        super().__init__(dim, layout, weights, of=[partial(how, codebook_size=n) for n in sizes], depth=depth,
                         step_db=step_db, floor_db=floor_db, beam=beam, start_tokens=start_tokens,
                         level_dropout=level_dropout)  # fmt: skip


# kind: random-projection
class RandomProjection(VQ):
    """A frozen random projection and a frozen random codebook: targets for masked prediction.

    BEST-RQ (Chiu et al. 2022, arXiv 2202.01855): `vq` with frozen codes, the cosine metric and a random projection.
    """

    def __init__(
        self, dim: int, layout: Layout = "BTD", weights: Weights = None, *, codebook_size: Size = 8192,
        code_dim: Annotated[int, Gt(0), Doc("dimensions in which codes are compared")] = 16,
    ) -> None:  # fmt: skip
        super().__init__(dim, layout, weights, codebook_size=codebook_size, codes="frozen", metric="cosine",
                         code_dim=code_dim, project="random")  # fmt: skip
