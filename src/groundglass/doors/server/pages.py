"""The HTML routes: the page, its parts, the answer without JavaScript, and the reference of the API."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, Response

from groundglass.doors.server.api import card_of, is_study
from groundglass.doors.server.asked import only
from groundglass.doors.server.guard import Answer, exchange_of, same_token
from groundglass.doors.server.help import COLUMNS, KEYS, TOPICS
from groundglass.doors.server.language import DEFAULT, NAMES, Language, chosen, file_of
from groundglass.doors.server.outcome import Judge, Outcome
from groundglass.doors.server.plain_words import worth
from groundglass.doors.server.problem import TITLES, Problem, problem_of
from groundglass.doors.server.service import Service
from groundglass.doors.server.shown import scan_of
from groundglass.doors.server.upload import FIELD, Upload, full_disk
from groundglass.doors.server.view import legend_png, picture
from groundglass.doors.server.watch import Watch
from groundglass.errors import GroundglassError
from groundglass.report.words import RESEARCH_USE_ONLY, percent

# name -> what it is called on the page, and the file that is sent
SAMPLES = {
    "ground-glass": ("Ground-glass opacities", "ground-glass.png"),
    "consolidation": ("Consolidation", "consolidation.png"),
    "healthy": ("Healthy lungs", "healthy.png"),
    "series": ("A series of 12 slices (DICOM)", "series.zip"),
    "photo": ("A photograph (is refused)", "photo.png"),
}
_TYPES = {".png": "image/png", ".zip": "application/zip"}


class Samples:
    """Draws all samples when the first one is asked for, and keeps them in memory: less than 2 MB."""

    def __init__(self) -> None:
        self._drawn: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> tuple[bytes, str]:
        """The bytes of a sample and their media type. Raises Problem: 404, and 507 if there is no room to draw."""
        if name not in SAMPLES:
            raise Problem(404, "no_sample", ", ".join(SAMPLES), "another", "choose one", about="a sample")
        file = SAMPLES[name][1]
        async with self._lock:
            if not self._drawn:
                self._drawn = await asyncio.to_thread(_draw)
        return self._drawn[file], _TYPES[Path(file).suffix]


def _draw() -> dict[str, bytes]:
    from groundglass.phantom.files import write_examples

    with full_disk(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_examples(folder)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((folder / "volume").iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
        return {"series.zip": packed.getvalue(), **{p.name: p.read_bytes() for p in folder.glob("*.png")}}


_TYPES_OF_STATIC = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


def _static() -> dict[str, bytes]:
    """The parts of the page by name: what lies in `static/`, the legend of heat, and the messages of each language."""
    folder = files(__package__).joinpath("static")
    parts = {part.name: part.read_bytes() for part in folder.iterdir() if Path(part.name).suffix in _TYPES_OF_STATIC}
    parts["heat.png"] = legend_png()
    return parts | {f"{code}.json": file_of(code) for code in NAMES if code != DEFAULT}


# The answer without JavaScript holds its pictures, so nothing has to be held for them; it runs no script at all.
_ANSWER_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_PICTURES = 20


def router(service: Service, app: FastAPI) -> APIRouter:
    """All HTML routes of one service; `app` is what the reference describes."""
    routes = APIRouter(include_in_schema=False)
    shown = _renderer(service)
    _add_page(routes, service, shown)
    _add_parts(routes)
    if service.settings.local:

        @routes.get("/docs")
        async def docs(request: Request) -> Response:
            only(request, "lang")
            base = str(request.base_url).rstrip("/")
            return HTMLResponse(shown("docs.html", request, api=app.openapi(), titles=TITLES, base=base))

    return routes


def _renderer(service: Service) -> Callable[..., str]:
    """What makes HTML of a template, in the language that a request asks for."""
    pages = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )

    def shown(name: str, request: Request, **values: Any) -> str:
        to = _language(request)
        return pages.get_template(name).render(
            use=RESEARCH_USE_ONLY,
            version=version("groundglass"),
            lang=to,
            say=to.say,
            percent=lambda p: percent(p, to.say),
            languages=NAMES,
            here=f"?lang={request.query_params['lang']}" if request.query_params.get("lang") in NAMES else "",
            samples=SAMPLES,
            keys=KEYS,
            token_needed=service.settings.token is not None,
            docs=service.settings.local,
            files=service.settings.bounds.files,
            **values,
        )

    return shown


def _language(request: Request) -> Language:
    return chosen(request.query_params.get("lang"), request.headers.get("accept-language", ""))


def _add_page(routes: APIRouter, service: Service, shown: Callable[..., str]) -> None:
    samples = Samples()

    def refused(problem: Problem, request: Request) -> Response:
        problem.headers["Content-Security-Policy"] = _ANSWER_POLICY
        title = _language(request).say(TITLES[problem.status])
        return Answer(problem, shown("problem.html", request, problem=problem, title=title))

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        model = _model(service, _language(request))
        return HTMLResponse(shown("index.html", request, model=model, columns=COLUMNS, open=False))

    @routes.get("/help")
    async def help_page(request: Request) -> Response:
        only(request, "lang")
        model = _model(service, _language(request))
        return HTMLResponse(shown("help.html", request, model=model, topics=TOPICS, open=True))

    @routes.post("/")
    async def answer(request: Request) -> Response:
        to = _language(request)
        try:
            judge = service.judge_at(None)
            async with service.folder() as folder:
                upload = await _upload(service, request, folder, samples)
                with service.place():
                    outcomes = await _judged(service, request, upload, judge)
                scans = await asyncio.to_thread(lambda: [_scan(o, number, to) for number, o in enumerate(outcomes)])
        except Problem as problem:
            return refused(problem, request)
        except GroundglassError as error:
            return refused(problem_of(error), request)
        count = len(scans)
        title = to.say("1 result") if count == 1 else to.say("{count} results", count=count)
        date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
        values = {"scans": scans, "model": _model(service, to), "title": title, "date": date, "open": False}
        text = shown("answer.html", request, **values)
        return HTMLResponse(text, headers={"Content-Security-Policy": _ANSWER_POLICY})

    @routes.get("/samples/{name}")
    async def sample(name: str) -> Response:
        content, media_type = await samples.get(name)
        return Response(content, media_type=media_type)


def _add_parts(routes: APIRouter) -> None:
    static = _static()

    @routes.get("/static/{name}")
    async def part(name: str) -> Response:
        if name not in static:
            raise Problem(404, "not_found", "a part of the page", "another name", "reload the page")
        return Response(static[name], media_type=_TYPES_OF_STATIC[Path(name).suffix])


def _template(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _model(service: Service, to: Language) -> dict[str, Any] | None:
    """What the page says of the model; None while it is being loaded."""
    if service.judge is None:
        return None
    card: dict[str, Any] = card_of(service)["models"][0]
    return card | {"worth": worth(dataclasses.asdict(service.model.operating_point), to)}


async def _upload(service: Service, request: Request, folder: Path, samples: Samples) -> Upload:
    """The files of the form, or the sample that it names. Raises Problem (401) for a wrong token, before any file."""
    limits, bounds, token = service.settings.limits, service.settings.bounds, service.settings.token

    def admit(fields: Mapping[str, str]) -> None:
        if token is not None and not same_token(fields.get("token", ""), token):
            raise Problem(401, "token", "the token of this service", "none or another", "ask who runs it")

    upload = await service.receive(
        request,
        folder,
        files=bounds.files,
        file_bytes=limits.study_bytes,
        fields=("token", "sample", "as_scan"),
        admit=admit,
    )
    name = upload.fields.get("sample")
    if name is not None:
        content, _ = await samples.get(name)
        path = folder / "sample"
        with full_disk():
            path.write_bytes(content)
        return Upload((path,), upload.fields, len(content))
    chosen = tuple(path for path in upload.files if path.stat().st_size > 0)
    if not chosen:
        raise Problem(422, "field", f"a file in the field {FIELD}", "none", "choose one and send again")
    if len(chosen) < len(upload.files):
        for path in set(upload.files) - set(chosen):
            path.unlink()
    return Upload(chosen, upload.fields, upload.size)


async def _judged(service: Service, request: Request, upload: Upload, judge: Judge) -> list[Outcome]:
    outcomes: list[Outcome] = []
    watch = Watch()
    name = exchange_of(request.scope).id

    def on_result(outcome: Outcome) -> None:
        service.note(outcome, f"{name}-{len(outcomes) + 1}")
        outcomes.append(outcome)

    def work(decoder: Any) -> None:
        judge.all(upload.files, decoder, watch, as_scan="as_scan" in upload.fields, look=True, on_result=on_result)

    study = len(upload.files) > 1 or is_study(upload.files[0])
    await service.run(request, work, watch, study=study)
    return outcomes


def _scan(outcome: Outcome, number: int, to: Language) -> dict[str, Any]:
    """A result for the template, with its picture inside."""
    shown = scan_of(outcome, to)
    image = None
    if outcome.view is not None and number < _PICTURES:
        image = "data:image/png;base64," + base64.b64encode(picture(outcome.view)).decode("ascii")
    return shown | {"picture": image}
