"""Routes: the list of studies, a study's page and what it asks for, a comparison, and files to take away."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from shlex import join
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lora_search.dashboard.comparing import comparison_payload
from lora_search.dashboard.control import Control
from lora_search.dashboard.downloads import Exports, zipped
from lora_search.dashboard.events import shelf_events, study_events
from lora_search.dashboard.guard import Access, Guard
from lora_search.dashboard.shelf import Shelf, Snapshot
from lora_search.dashboard.texts import Texts
from lora_search.errors import InputError, StudyError
from lora_search.plots.importance import importance_data
from lora_search.plots.predicted import predictions_view
from lora_search.plots.web import (
    importance_view,
    inline_json,
    page_script,
    page_style,
    render_page,
    study_context,
)
from lora_search.spec.suggestions import one_of

_RECIPES = ("trl", "axolotl", "llamafactory")
_COMPRESSED_FROM = 2_000
_MOST_COMPARED = 8
_MOST_EXAMPLES = 200


def create_app(
    results_dir: str | Path | Shelf, *, host: str = "127.0.0.1", token: str | None = None, control: bool = False
) -> Starlette:
    """The dashboard as an ASGI application.

    Args:
        results_dir: a folder of studies, or one study's own; or what keeps them.
        host: the address it is served at, whose name a request may ask for beside the loopback's.
        token: what a browser must bring once, as ``?token=``; None needs none, for the loopback address only.
        control: whether runs can be stopped and resumed; give a token then.
    """
    pages = _Pages(results_dir if isinstance(results_dir, Shelf) else Shelf(Path(results_dir)), control=control)
    routes = [
        Route("/", pages.studies),
        Route("/events", pages.studies_events),
        Route("/compare", pages.compare),
        Route("/compare.json", pages.compare_data),
        Route("/static/page.js", pages.script),
        Route("/static/page.css", pages.style),
        Route("/studies/{name}", pages.study),
        Route("/studies/{name}/data.json", pages.data),
        Route("/studies/{name}/judged.json", pages.judged),
        Route("/studies/{name}/importance.json", pages.importance),
        Route("/studies/{name}/rates.json", pages.rates),
        Route("/studies/{name}/predictions.json", pages.predictions),
        Route("/studies/{name}/examples.json", pages.examples),
        Route("/studies/{name}/events", pages.events),
        Route("/studies/{name}/trials/{trial:int}/adapter_config.json", pages.adapter_config),
        Route("/studies/{name}/trials/{trial:int}/adapter.zip", pages.adapter_zip),
    ]
    if control:
        routes += [
            Route("/studies/{name}/stop", pages.stop, methods=["POST"]),
            Route("/studies/{name}/resume", pages.resume, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, access=Access(host, token))],
        exception_handlers={InputError: _refused},
    )


def _refused(_: Request, error: Exception) -> Response:
    """What the user can mend, in the words of the error; and nothing else of it."""
    mistakes = error.mistakes if isinstance(error, InputError) else ()
    return PlainTextResponse("\n".join(mistakes) + "\n", 404 if "must be a study of" in "".join(mistakes) else 409)


class _Pages:
    """The answers. What takes time is computed in threads, so that events go on meanwhile."""

    def __init__(self, shelf: Shelf, *, control: bool) -> None:
        self.shelf = shelf
        self.secret = secrets.token_urlsafe(18) if control else None
        self.control = Control()
        self.exports = Exports()
        self.texts = Texts()
        self.version = hashlib.blake2s((page_script() + page_style()).encode(), digest_size=6).hexdigest()
        self._importance: dict[str, tuple[str, dict[str, Any]]] = {}
        self._busy = asyncio.Lock()
        self._bodies: dict[str, tuple[str, bytes]] = {}

    # -- pages -----------------------------------------------------------------------------------------------------

    async def studies(self, request: Request) -> Response:
        rows = await asyncio.to_thread(self.shelf.rows)
        return _html(
            request,
            render_page(
                "studies",
                rows=rows,
                rows_data=inline_json(rows),
                results=str(self.shelf.results),
                command=join(
                    ["lora-search", "run", "experiments/quickstart.toml", "--results", str(self.shelf.results)]
                ),
                **self._frame(request),
            ),
        )

    async def study(self, request: Request) -> Response:
        name, found = await self._snapshot(request)

        def page() -> str:
            verdict = found.verdict()
            judged = found.payload()["judged"]
            return render_page(
                "study",
                **study_context(found.tables, verdict),
                **self._frame(request),
                name=name,
                html=judged["html"],
                importance_caption=None,
                fallback="<p>This page needs scripts; report.html does not.</p>",
                control=self.secret,
            )

        return _html(request, await asyncio.to_thread(page))

    async def compare(self, request: Request) -> Response:
        names = request.query_params.getlist("study")[:_MOST_COMPARED]
        return _html(request, render_page("compare", names=names, **self._frame(request)))

    async def script(self, request: Request) -> Response:
        return _asset(request, page_script(), "text/javascript")

    async def style(self, request: Request) -> Response:
        return _asset(request, page_style(), "text/css")

    # -- data ------------------------------------------------------------------------------------------------------

    async def data(self, request: Request) -> Response:
        name, found = await self._snapshot(request)
        links = {"links": f"{request.scope.get('root_path', '')}/studies/{quote(name)}"}

        def body() -> bytes:
            kept = self._bodies.get(name)
            if kept is None or kept[0] != found.look.token:
                kept = (found.look.token, _json(found.payload() | links))
                self._bodies[name] = kept
            return kept[1]

        asked = found.tables.experiment.verdict
        ahead = BackgroundTask(found.judge_ahead, asked.margin, asked.confidence)
        return _compressed(request, await asyncio.to_thread(body), "application/json", ahead=ahead)

    async def judged(self, request: Request) -> Response:
        _, found = await self._snapshot(request)
        margin, confidence = (_number(request, name) for name in ("margin", "confidence"))
        view = await asyncio.to_thread(found.judged, margin, confidence)
        ahead = BackgroundTask(found.judge_ahead, margin, confidence)
        return _compressed(request, _json(view), "application/json", ahead=ahead)

    async def importance(self, request: Request) -> Response:
        name, found = await self._snapshot(request)

        def compute() -> dict[str, Any]:
            return importance_view(importance_data(found.tables.trials, found.tables.cells, found.verdict()))

        async with self._busy:  # seconds of both cores: one at a time, and once for each state of a study
            kept = self._importance.get(name)
            if kept is None or kept[0] != found.look.token:
                kept = (found.look.token, await asyncio.to_thread(compute))
                self._importance[name] = kept
        return _compressed(request, _json(kept[1]), "application/json")

    async def rates(self, request: Request) -> Response:
        _, found = await self._snapshot(request)
        async with self._busy:  # as importance, seconds for a study of a hundred adapters
            view = await asyncio.to_thread(found.rates)
        return _compressed(request, _json({"rates": view}), "application/json")

    async def predictions(self, request: Request) -> Response:
        _, found = await self._snapshot(request)
        asked = request.query_params.get("trials", "")
        trials = [int(part) for part in asked.split(",")[:4] if part.isdecimal()]
        view = await asyncio.to_thread(predictions_view, found.tables, trials)
        return _compressed(request, _json(view), "application/json")

    async def examples(self, request: Request) -> Response:
        """Texts of examples by number, those that are asked for; or why there are none, which is nobody's error."""
        _, found = await self._snapshot(request)
        try:
            texts = await self.texts.of(found.tables.folder, found.look.database)
        except StudyError as error:
            return Response(_json({"texts": {}, "problem": "; ".join(error.mistakes)}), media_type="application/json")
        asked = request.query_params.get("numbers", "").split(",")[:_MOST_EXAMPLES]
        numbers = [int(part) for part in asked if part.isdecimal() and int(part) < len(texts)]
        view = {"texts": {str(number): texts[number] for number in numbers}, "problem": None}
        return _compressed(request, _json(view), "application/json")

    async def compare_data(self, request: Request) -> Response:
        names = request.query_params.getlist("study")[:_MOST_COMPARED]

        def compute() -> dict[str, Any]:
            return comparison_payload({name: self.shelf.snapshot(name) for name in names})

        return _compressed(request, _json(await asyncio.to_thread(compute)), "application/json")

    # -- events ----------------------------------------------------------------------------------------------------

    async def studies_events(self, request: Request) -> Response:
        return _stream(shelf_events(self.shelf))

    async def events(self, request: Request) -> Response:
        folder, name = self._folder(request), str(request.path_params["name"])
        return _stream(study_events(folder, lambda: self.shelf.seconds(name)))

    # -- to take away ----------------------------------------------------------------------------------------------

    async def adapter_config(self, request: Request) -> Response:
        files = await self._exported(request, None)
        return Response(
            files["adapter_config.json"], media_type="application/json", headers=_attached("adapter_config.json")
        )

    async def adapter_zip(self, request: Request) -> Response:
        recipe = request.query_params.get("recipe")
        if recipe is not None and recipe not in _RECIPES:
            raise InputError.about("recipe", one_of(_RECIPES))
        files = await self._exported(request, recipe)
        name = f"trial-{request.path_params['trial']}{f'-{recipe}' if recipe else ''}"
        return Response(zipped(files, name), media_type="application/zip", headers=_attached(f"{name}.zip"))

    async def _exported(self, request: Request, recipe: str | None) -> dict[str, bytes]:
        _, found = await self._snapshot(request)
        trial = int(request.path_params["trial"])
        if trial not in set(found.tables.trials["trial"]):
            raise InputError.about("trial", "must be a trial of the study", got=trial)
        return await self.exports.files(found.tables.folder, found.look.token, trial, recipe)

    # -- control ---------------------------------------------------------------------------------------------------

    async def stop(self, request: Request) -> Response:
        return await self._controlled(request, self.control.stop)

    async def resume(self, request: Request) -> Response:
        return await self._controlled(request, self.control.resume)

    async def _controlled(self, request: Request, action: Callable[[Path], str]) -> Response:
        brought = request.headers.get("x-control", "")
        if self.secret is None or not secrets.compare_digest(brought.encode(), self.secret.encode()):
            return PlainTextResponse("Only the page itself may ask for this.\n", 403)
        words = await asyncio.to_thread(action, self._folder(request))
        return Response(_json({"words": words}), media_type="application/json")

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _frame(self, request: Request) -> dict[str, Any]:
        """What every page needs to find its script and style."""
        return {"inline": False, "root": request.scope.get("root_path", ""), "version": self.version}

    def _folder(self, request: Request) -> Path:
        folder = self.shelf.folder(request.path_params["name"])
        if folder is None:
            raise InputError.about("study", "must be a study of this folder")
        return folder

    async def _snapshot(self, request: Request) -> tuple[str, Snapshot]:
        name = str(request.path_params["name"])
        return name, await asyncio.to_thread(self.shelf.snapshot, name)


def _number(request: Request, name: str) -> float:
    text = request.query_params.get(name, "")
    try:
        return float(text)
    except ValueError as error:
        raise InputError.about(name, "must be a number", got=repr(text[:40])) from error


def _json(value: Mapping[str, Any] | None) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _html(request: Request, text: str) -> Response:
    return _compressed(request, text.encode(), "text/html")


def _compressed(
    request: Request,
    body: bytes,
    kind: str,
    headers: Mapping[str, str] | None = None,
    ahead: BackgroundTask | None = None,
) -> Response:
    """An answer, with what is to be computed once it is sent, for the next question."""
    found = dict(headers or {})
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body, found["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        found["Vary"] = "Accept-Encoding"
    return Response(body, media_type=kind, headers=found, background=ahead)


def _asset(request: Request, text: str, kind: str) -> Response:
    """Kept by the browser: its address changes with its content."""
    return _compressed(request, text.encode(), kind, {"Cache-Control": "public, max-age=31536000, immutable"})


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
