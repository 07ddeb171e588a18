"""Kinds that are a quantizer with some options set: the names that recipes and checkpoints have used from the start."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from annotated_doc import Doc
from annotated_types import Ge, Gt

from vqtool.quantizers.core.composable import Layout
from vqtool.quantizers.estimators.rotation import Rotation
from vqtool.quantizers.grouped import Grouped
from vqtool.quantizers.gumbel import Gumbel
from vqtool.quantizers.residual import Beam, Dropout, Levels, Residual
from vqtool.quantizers.soft import Soft
from vqtool.quantizers.vq import VQ, Decay, First, Revive, Size, Weights
from vqtool.quantizers.waterfill import Depth, Floor, StartTokens, Step, Waterfill

START = {"start": "kmeans"}
Compared = Annotated[int, Gt(1), Doc("dimensions in which codes are compared")]
Projected = Annotated[int, Gt(0), Doc("dimensions in which codes are compared")]
Relative = Annotated[float, Gt(0), Doc("of the distribution, relative to the codes' own spread")]
AVERAGE = {"decay": 0.99, "revive_below": 0.1, **START}


def preset(
    base: type, options: Mapping[str, Any], types: Mapping[str, Any] | None = None, **fixed: Any
) -> Callable[..., None]:
    """A constructor that takes some `options` of `base`, with these defaults, and sets `fixed` ones.

    A fixed (class, options) stands for a component that is made with such options of its own. `types` are those of
    options that are narrower, or mean something else, than in the base.
    """
    nested = {name: value for name, value in fixed.items() if isinstance(value, tuple)}
    hints: dict[str, Any] = {"dim": int, "layout": Layout, "weights": Weights}
    defaults: dict[str, Any] = {}
    for cls, some in ((base, options), *nested.values()):
        every = typing.get_type_hints(cls.__init__, include_extras=True)
        hints |= {name: every[name] for name in some}
        defaults |= some
    hints |= types or {}

    def init(self: Any, dim: int, layout: Layout = "BTD", weights: Weights = None, **given: Any) -> None:
        if unknown := given.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} has no option `{min(unknown)}`")
        given = defaults | given
        parts = {name: partial(cls, **{n: given[n] for n in some}) for name, (cls, some) in nested.items()}
        base.__init__(self, dim, layout, weights, **fixed | parts, **{n: given[n] for n in options})  # type: ignore[misc]

    *wiring, _ = inspect.signature(init).parameters.values()
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name]) for name in defaults]
    init.__signature__ = inspect.Signature([*wiring, *named])  # type: ignore[attr-defined]
    init.__annotations__ = hints
    return init


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


# kind: soft-ema
class SoftEMA(Soft):
    """One codebook that follows the mean of its inputs, and the distribution over codes that each input stands for.

    `soft` with codes by moving average.
    """

    terms = frozenset({"commitment", "confidence", "diversity"})
    knobs = frozenset({"temperature"})
    __init__ = preset(
        Soft, {"codebook_size": 256, "temperature": 0.05, **AVERAGE}, {"temperature": Relative}, codes="ema"
    )


# kind: residual-ema
class ResidualEMA(Residual):
    """Levels of codebooks, each of which quantizes what the ones before left over; codes by moving average.

    `residual` of `vq`.
    """

    __init__ = preset(Residual, {"levels": 4, "level_dropout": 0.0},
                      of=(VQ, {"codebook_size": 512, "code_dim": 0, **AVERAGE}))  # fmt: skip


# kind: product-ema
class ProductEMA(Grouped):
    """Groups of features, each with a codebook of its own that follows by moving average.

    Product quantization: `grouped` of `vq`.
    """

    terms = frozenset({"commitment"})
    __init__ = preset(Grouped, {"groups": 2}, of=(VQ, {"codebook_size": 320, **AVERAGE}))


# kind: product-gumbel
class ProductGumbel(Gumbel):
    """Groups of codes chosen by logits with Gumbel noise, as in wav2vec 2.0.

    `gumbel` with two groups by default.
    """

    __init__ = preset(
        Gumbel, {"codebook_size": 320, "groups": 2, "temperature": 2.0, "logits": "linear", "spread": 4.0}
    )


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

    __init__ = preset(VQ, {"codebook_size": 8192, "code_dim": 16}, {"code_dim": Projected}, codes="frozen",
                      metric="cosine", project="random")  # fmt: skip
