"""Run the application: in the foreground until Ctrl-C or SIGTERM, or in a thread beside the cells of a notebook.

Both shut down gracefully: no new connection is taken, and requests in flight are answered first.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI


def run_server(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, answer what is in flight, and return; a second Ctrl-C does not wait.

    Args:
        app: the application.
        host: to listen at.
        port: to listen at; 0 for a free one.
        ready: called with the server's address once it listens.

    Raises:
        ValueError: if nothing can listen there.
    """
    listener = _listener(host, port)

    def ignored(number: int, frame: FrameType | None) -> None:
        """uvicorn ends its loop at the signal, and raises it once more when all is answered."""

    before = {number: signal.signal(number, ignored) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ready(_address(listener, host))
        _server(app).run([listener])
    finally:
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def background_server(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve in a thread for as long as the context lasts; its value is the server's address."""
    listener = _listener(host, port)
    server = _server(app)
    thread = threading.Thread(target=server.run, args=([listener],), name="http server", daemon=True)
    thread.start()
    try:
        yield _address(listener, host)  # it listens: a request that comes before the loop runs waits in the socket
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _server(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, TypeError) as error:
        raise ValueError(f"host={host} port={port}: cannot listen there ({error}); give another port") from error


def _address(listener: socket.socket, host: str) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
