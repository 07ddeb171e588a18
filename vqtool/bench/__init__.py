"""Speed and memory of quantizers beside what users would otherwise take, measured in one process, in turns."""
