"""`python -m vqtool`, which is also what `torchrun -m vqtool` starts."""

from vqtool.cli import main

main()
