"""Optuna's migrations, read once: it runs every script it could migrate a database with to find the newest, twice for
each study it opens, which takes longer than all else a tiny study does. They are the same for all studies.
"""

from functools import cache

from alembic.script import base


def read_once() -> None:
    """From now on, in this process."""
    base.util.load_python_file = cache(base.util.load_python_file)
