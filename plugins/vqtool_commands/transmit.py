"""The signature of `vqtool transmit`: each of a user's inputs over the link that a model was trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import vqtool.shared_options as opt
from vqtool.command import command

EXAMPLES = """\
vqtool transmit runs/link-1 picture.png --snr 6
vqtool transmit runs/link-1 pictures/ --snr 6 --channel rayleigh \\
                            --out result.csv --symbols sent.npy
vqtool transmit runs/link-1 pictures/ --snr 6 --doubt 1
vqtool transmit runs/pictures-1 pictures/ --snr 6 --out received"""


@command("vqtool_semcom.transmit:run", opt.machine, examples=EXAMPLES)
def transmit(
    *,
    checkpoint: opt.Checkpoint,
    input_file: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A picture, a file of sentences or an array, or a folder.")
    ],
    out_file: Annotated[
        Path | None,
        opt.written(
            "--out",
            metavar="OUT",
            help="FILE.csv for the table; or a new folder, FILE.png or FILE.npz for the pictures that arrive. "
            "By default the table is shown.",
        ),
    ] = None,
    snr: Annotated[
        float | None, typer.Option("--snr", metavar="DB", help="Es/N0 in dB; by default the recipe's channel.snr_db.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="KIND", help="Another channel, such as rayleigh or ofdm.")
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="Send expectations instead of bits and constellation points.")
    ] = False,
    doubt: Annotated[
        float | None,
        typer.Option(
            "--doubt",
            metavar="BITS",
            min=0,
            help="Send the levels of the quantizer one after the other, the next only where the entropy of the "
            "classes is above this.",
        ),
    ] = None,
    bits_file: Annotated[
        Path | None, opt.written("--bits", metavar="FILE", help="Write the bits: .txt, a line an input, or .npy.")
    ] = None,
    symbols_file: Annotated[
        Path | None,
        opt.written(
            "--symbols",
            metavar="FILE",
            help="Write the complex baseband as sent: .npy, or .cf32 (raw); .npz also as received.",
        ),
    ] = None,
    overrides: opt.Overrides,
    seed: opt.NoiseSeed = 0,
    force: opt.Force = False,
) -> None:
    """Send pictures or sentences over a noisy link, and show what its receiver takes them for, or gets.

    What is sent is what would be deployed: bits of hard codes on constellation points. The table has a row for each
    input: its label and the probability of it, or the PSNR of the picture that arrives; the bits and symbols it took,
    and how many of the bits arrived wrong.

    With --doubt, an input takes as many levels of its codes as the receiver needs to be sure of it. The receiver's
    asking for more is taken to be free, and each level to meet the same fading as those before.
    """
