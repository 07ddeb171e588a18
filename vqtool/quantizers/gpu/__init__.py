"""Kernels for GPUs behind one switch: `switch.usable` says where they run; elsewhere everything is plain PyTorch."""
