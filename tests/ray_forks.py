"""Ray's workers at the price of a fork: a fresh interpreter spends eight seconds of a core on importing what is here.

Ray starts a worker by a command. In place of Python the command names a script that asks a fork of the tests, made
before Ray was here, for a fork of its own, and lasts as long as that one does. The first worker is a fresh interpreter
all the same, to see that nothing lacks, and so is whatever else Ray starts.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.processes import Fork

# Run without `site` and what it would import; `-I` keeps the environment of the tests out of it.
SCRIPT = """#!{python} -IS
import sys
from os import O_CREAT, O_EXCL, environ, execv, getcwd, open
words = sys.argv[1:]
try:
    fresh = not any(word.endswith("default_worker.py") for word in words) or open("{folder}/first", O_CREAT | O_EXCL)
except FileExistsError:
    fresh = False
if fresh:
    execv("{python}", ["{python}", *words])
import json
import socket
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect("{folder}/asked")
    socket.send_fds(asked, [b"fork"], [1, 2])
    asked.sendall(json.dumps([words, dict(environ), getcwd()]).encode())
    asked.shutdown(socket.SHUT_WR)
    asked.recv(1)  # nothing, once the worker has ended
"""


@contextmanager
def forks() -> Iterator[str]:
    """What to name as Python where Ray starts, whose workers are forks of this process until the end."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, socket.socket(socket.AF_UNIX) as listening:
        python = Path(folder, "python")
        python.write_text(SCRIPT.format(python=sys.executable, folder=folder))
        python.chmod(0o700)
        listening.bind(f"{folder}/asked")
        listening.listen(16)
        server = Fork(lambda: _serve(listening), {})
        try:
            yield str(python)
        finally:
            server.send_signal(signal.SIGTERM)
            os.waitpid(server.pid, 0)


def _serve(listening: socket.socket) -> None:
    """Fork for everyone who asks, and wait for those that have ended; the others are ended with this process."""
    running: set[int] = set()

    def reap(*_: Any) -> None:
        for pid in list(running):
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                running.remove(pid)

    def end(*_: Any) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(0)

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, end)
    while True:
        asked, _ = listening.accept()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
        with asked:
            pid = os.fork()
            if pid == 0:
                listening.close()
                os._exit(_work(asked))
            running.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM))


def _work(asked: socket.socket) -> int:
    """Be the worker, with its words, environment and output; `asked` is closed by its end."""
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _, fds, _, _ = socket.recv_fds(asked, 4, 2)
    for fd, to in zip(fds, (1, 2), strict=True):
        os.dup2(fd, to)
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
    words, environment, folder = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    warnings.simplefilter("ignore")
    sys.argv = next(words[place:] for place, word in enumerate(words) if word.endswith(".py"))
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0
