"""lora-search in a process of its own: what loads torch or reads the data is not done in the server."""

from __future__ import annotations

import asyncio
import sys

from lora_search.errors import StudyError

_SECONDS = 300
_START = "import os; os.nice(10); from lora_search.cli import main; main()"


async def lora_search(*arguments: str) -> bytes:
    """Run a command, nicely.

    Args:
        arguments: of ``lora-search``.

    Returns:
        what it printed.

    Raises:
        StudyError: it refused, with what it said; or it took more than five minutes.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _START, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        printed, said = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError as error:
        raise StudyError(f"lora-search {arguments[0]}: took more than {_SECONDS} seconds") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise StudyError(lines[-1] if lines else f"lora-search {arguments[0]}: failed")
    return printed
