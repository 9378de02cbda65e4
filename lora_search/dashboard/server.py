"""``lora-search dashboard``: the application behind a server of its own, and what to open."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from lora_search.dashboard.app import create_app
from lora_search.dashboard.following import following
from lora_search.dashboard.guard import is_loopback
from lora_search.dashboard.shelf import Shelf
from lora_search.errors import InputError
from lora_search.store.address import address_in, authentication
from lora_search.store.files import STUDY_FILE


def serve(
    results: Path, host: str = "127.0.0.1", port: int = 8787, *, control: bool = False, optuna: bool = False
) -> None:
    """Serve until interrupted.

    Args:
        results: a folder of studies, or one study's.
        host: the address to listen at; any but the loopback's needs a token, which is printed.
        port: 0 for any free one.
        control: whether runs can be stopped and resumed from the page; needs a token too.
        optuna: whether to start optuna-dashboard beside it, on the next port.

    Raises:
        InputError: no such folder, the address cannot be had, or optuna-dashboard is not installed.
    """
    if not results.is_dir():
        raise InputError.about("RESULTS", "must be a folder", got=results)
    token = None if is_loopback(host) and not control else secrets.token_urlsafe(24)
    shelf = Shelf(results)
    app = create_app(shelf, host=host, token=token, control=control)
    with _listening(host, port) as listener, _beside(shelf, listener.getsockname()[1] + 1, wanted=optuna) as other:
        if not control:  # a run that is resumed from the page would inherit it
            with contextlib.suppress(OSError):
                os.nice(10)  # whoever looks should not slow down what trains
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}/{f'?token={token}' if token else ''}"
        gc.freeze()  # to look through all that was imported takes a third of the time of reading a large study
        threading.Thread(target=shelf.prepare, daemon=True).start()
        print(f"{results}: {address}\n{other}Ctrl-C ends it; studies go on.", flush=True)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(settings)
        # what is cut off at the end - pages that follow, a computation for one of them - is no error
        logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
        with following(shelf):
            server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    with contextlib.ExitStack() as undo:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            found = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen()  # from here on whoever opens the printed address waits and is not refused
        except OSError as error:
            raise InputError(
                f"--host, --port: must be an address of this machine that is free, got {host}:{port}"
            ) from error
        undo.pop_all()
    return found


@contextlib.contextmanager
def _beside(shelf: Shelf, port: int, *, wanted: bool) -> Iterator[str]:
    """optuna-dashboard on the newest study, for as long as the block runs; gives the line that says so."""
    if not wanted:
        yield ""
        return
    program = shutil.which("optuna-dashboard")
    if program is None:
        raise InputError.about(
            "--optuna", "needs optuna-dashboard, which is not installed", hint="(pip install optuna-dashboard)"
        )
    newest = shelf.newest()
    if newest is None:
        raise InputError.about("--optuna", "needs a study", got=f"none in {shelf.results}")
    folder = shelf.folders()[newest]
    address = address_in(folder)
    file = f"sqlite:///file:{(folder / STUDY_FILE).resolve()}?mode=ro&uri=true"
    storage = file if address is None else address.for_optuna()
    environment = {**os.environ, "PGREQUIREAUTH": authentication()}
    process = subprocess.Popen([program, storage, "--host", "127.0.0.1", "--port", str(port)], env=environment)
    try:
        yield f"{newest} in optuna-dashboard: http://127.0.0.1:{port}/\n"
    finally:
        process.terminate()
        process.wait(10)
