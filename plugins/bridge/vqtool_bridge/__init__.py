"""The quantizers of vector-quantize-pytorch as `vqp-*`; this file imports neither torch nor that library."""

from vqtool.catalog import Component, hookimpl

KINDS = {
    "vqp-vq": ("Plain", "VectorQuantize: one codebook that follows by moving average inside of forward."),
    "vqp-residual": ("Residual", "ResidualVQ: levels of codebooks that follow by moving average inside of forward."),
    "vqp-fsq": ("Finite", "FSQ: each of a few features rounded to a fixed number of steps."),
    "vqp-lfq": ("LookupFree", "LFQ: the signs of a few features, with an entropy term."),
    "vqp-sim": ("Sim", "SimVQ: a frozen codebook behind a trained linear map."),
    "vqp-residual-fsq": ("ResidualFinite", "ResidualFSQ: FSQ over and over on what is left."),
    "vqp-residual-sim": ("ResidualSim", "ResidualSimVQ: levels of SimVQ."),
}


@hookimpl
def vqtool_components() -> list[Component]:
    """One quantizer for each class of the library."""
    return [Component("quantizer", kind, f"vqtool_bridge.kinds:{name}", text) for kind, (name, text) in KINDS.items()]
