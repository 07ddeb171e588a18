"""Runs commands in processes forked from one that has loaded torch already, which takes seconds: see `run.py`.

A request on stdin, a socket, is a JSON document (arguments, folder, environment) with the descriptors of the
command's stdout and stderr. It is answered by the exit code, negative for a signal.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Any

import numpy as np
import pydantic
import safetensors.torch
import torch

from vqtool.commands import check, encode, evaluate, show, train

LOADED = (np, pydantic, safetensors.torch, torch, check, encode, evaluate, show, train)
SECONDS = 300


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Answer requests until there are no more; in the process of a command, what it was asked."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, 2**20, 2)
        if not text:
            return None
        child = os.fork()
        if child == 0:
            connection.detach()
            for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
                os.dup2(descriptor, number)
                os.close(descriptor)
            request: dict[str, Any] = json.loads(text)
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def run(request: dict[str, Any]) -> None:
    """Be a process that was just started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(SECONDS)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["vqtool", *request["arguments"]]
    from vqtool.cli import main  # which reads the environment

    main()


if __name__ == "__main__":
    del sys.path[0]  # this folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # so that no process copies what it only reads
    if (asked := serve(socket.socket(fileno=0))) is not None:
        run(asked)
