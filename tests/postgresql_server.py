"""A PostgreSQL server of the tests' own: in memory, on loopback, with a password; killed and started at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

USER, PASSWORD, DATABASE = "lora", "geheim-4711", "studies"
_SECONDS = 30


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs; None where it is not installed."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres", path=(folder := Path(found).resolve().parent)):
        return folder
    # Debian keeps them off the path, a folder for each version
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else None


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql): no study is kept in it"
    if os.getuid() == 0 and _other_user() is None:
        return "PostgreSQL refuses the administrator, and there is no user postgres: no study is kept in it"
    return None


def _other_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


class Server:
    """One server, on a free port of this machine.

    Attributes:
        storage: its database, as ``--storage`` takes it.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._programs = programs()
        other = _other_user() if os.getuid() == 0 else None
        self._user = {} if other is None else {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if other is not None:
            for path in (self._folder, password):
                os.chown(path, other.pw_uid, other.pw_gid)
        self._data = self._folder / "data"
        options = ["--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--no-instructions"]
        self._call("initdb", f"--pgdata={self._data}", f"--username={USER}", "--locale=C", *options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.storage = f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"create database {DATABASE}")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **self._user)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "shared_buffers": "16MB", "max_connections": 30, "autovacuum": "off",
        }  # fmt: skip
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, **self._user
            )
        until = time.monotonic() + _SECONDS
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def connect(self, database: str = DATABASE) -> psycopg.Connection:
        """As whoever looks into it with a tool of his own."""
        address = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": database}
        return psycopg.connect(**address, autocommit=True)

    def empty(self) -> None:
        """Forget all studies; of a server that a test left dead, a living one first."""
        if self._process is None:
            self.start()
        with self.connect() as connection:
            query = "select nspname from pg_namespace where nspname like '%lora~_search%' escape '~'"
            for (schema,) in connection.execute(query).fetchall():
                connection.execute(f'drop schema "{schema}" cascade')

    def kill(self) -> None:
        """End it as a power cut would, but for what the system had not written yet."""
        self._end(signal.SIGQUIT)  # which PostgreSQL answers without closing anything, for it and all its processes

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_SECONDS)
            self._process = None

    def close(self) -> None:
        """End it, and take away what it kept."""
        self._end(signal.SIGINT)
        shutil.rmtree(self._folder)
