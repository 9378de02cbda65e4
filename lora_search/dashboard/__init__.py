"""The results of studies in a browser, while they run: the report's own page, followed live.

::

    from lora_search.dashboard import create_app

    app = create_app("results")  # an ASGI application: uvicorn, hypercorn, or mounted in another

It only looks. It reads ``study.db`` through SQLite's own read-only connections, one per read, and only when the file
has changed; margin and confidence are judged anew by the package's own rules, once for each state of a study. What the
page can start (an export) runs in a process of its own, so that this one never loads torch.
"""

from lora_search.dashboard.app import create_app
from lora_search.dashboard.server import serve

__all__ = ["create_app", "serve"]
