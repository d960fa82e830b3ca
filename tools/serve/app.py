"""The web page, its JSON API, and their server."""

import logging
import mimetypes
import secrets
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Annotated

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.index.rows import Where
from tools.serve import schema
from tools.serve.jobs import BusyError, MissingError, Service, Upload
from utils.errors import UserError

STATIC = Path(__file__).resolve().parent / "static"
UPLOADS = "/api/uploads"
UPLOAD_BYTES, BODY_BYTES = 32 * 2**20, 64 * 2**10
"""Most bytes of an upload's body, and of any other."""
GRACE = 3
"""Seconds that requests have to end after Ctrl-C: a browser may keep a paused video's open for hours."""
STATUS = {UserError: 400, MissingError: 404, BusyError: 503}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
JPEG = {200: {"content": {"image/jpeg": {}}}}
KEEP = {"Cache-Control": "private, max-age=600"}
FILE = {"schema": {"type": "string", "format": "binary"}}
UPLOAD_BODY = {"requestBody": {"required": True, "content": {"image/*": FILE}}}


def server_of(service: Service, password: str | None, host: str) -> uvicorn.Server:
    """A server of the page, to be run with a socket that listens at `host`; for `password` see `create_app`."""
    # Starlette before 1.7 takes "[" for the name of http://[::1]:8000; no site's name begins with it.
    hosts = ["localhost", "127.0.0.1", "[::1]", "[", host] if password is None else ["*"]
    app = create_app(service, password, hosts)
    return _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE))


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End; requests that are cancelled after GRACE are no errors, and not logged."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def create_app(service: Service, password: str | None = None, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The page at /, its API below /api, described by /api/openapi.json.

    Args:
        password: without it /api is refused; None for no password.
        hosts: names by which the page may be called, so that no other site's name leads here; "*" for any.
    """
    app = FastAPI(
        title="Person search", docs_url=None, redoc_url=None, openapi_url=None,
        dependencies=[Depends(refuse_other_sites)],
    )  # fmt: skip
    app.add_middleware(_BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    for error, status in STATUS.items():
        app.add_exception_handler(error, _answer(status))

    @app.middleware("http")
    async def with_headers(request: Request, call_next):
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    door = _Door(password)
    checks = [Depends(door.check)]
    app.post("/api/login", status_code=204, summary="Exchange the password for a cookie")(door.login)
    app.get("/api/openapi.json", include_in_schema=False, dependencies=checks)(app.openapi)
    for router in (_index_routes(service), _search_routes(service)):
        app.include_router(router, prefix="/api", dependencies=checks)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def refuse_other_sites(request: Request) -> None:
    """Refuse what another site's page makes a browser ask; uploads need no consent of ours (CORS) otherwise."""
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise HTTPException(403, "another site asks for this")


class _BodyLimit:
    """Refuses requests of too many bytes while they are read, which may be before anything else is checked."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = UPLOAD_BYTES if scope.get("path") == UPLOADS else BODY_BYTES
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"at most {limit:,} bytes are taken")
            return message

        await self._app(scope, counted, send)


class _Door:
    """Lets in who shows the password as `Authorization: Bearer PASSWORD`, or the cookie that `login` gave for it."""

    def __init__(self, password: str | None):
        self._password, self._session = password, secrets.token_urlsafe(32)

    def check(self, request: Request) -> None:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not (self._is_password(shown) or _same(request.cookies.get(_cookie(request), ""), self._session)):
            raise HTTPException(401, "the password is missing")

    def login(self, given: schema.Password, request: Request, response: Response) -> None:
        if not self._is_password(given.password):
            raise HTTPException(401, "this is not the password")
        response.set_cookie(_cookie(request), self._session, httponly=True, samesite="strict")

    def _is_password(self, given: str) -> bool:
        return self._password is None or _same(given, self._password)


def _cookie(request: Request) -> str:
    """The name of the page's cookie: browsers give the cookies of one port to the others of a machine."""
    return f"person_search_{request.url.port}"


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode(), secret.encode())


def _answer(status: int):
    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return answer


def _index_routes(service: Service) -> APIRouter:
    """What is in the index."""
    api = APIRouter()

    @api.get("/index", summary="What there is to search")
    def index() -> schema.Index:
        sources = service.index.sources()
        return schema.Index(
            people=service.index.num_people(),
            files=len(sources),
            cameras=sorted({source.camera for source in sources} - {""}),
            thresholds=service.thresholds and schema.Thresholds(**service.thresholds._asdict()),
            upload_bytes=UPLOAD_BYTES,
        )

    @api.get("/files", summary="Pictures and videos whose path holds a text")
    def files(
        text: str = "", offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=500)] = 60
    ) -> schema.Files:
        fitting = [each for each in service.index.sources() if text.lower() in each.path.lower()]
        chosen = fitting[offset : offset + limit]
        return schema.Files(total=len(fitting), files=[schema.File.of(source) for source in chosen])

    @api.get("/files/{file}", summary="A picture or video, and its frames that show people")
    def file(file: schema.Number) -> schema.FileDetails:
        source = service.source(file)
        frames = [
            schema.Frame(image=str(image), position=position)
            for image, position in service.index.images_of(source).items()
        ]
        return schema.FileDetails(**schema.File.of(source).model_dump(), frames=frames)

    @api.get("/files/{file}/video", summary="A video, also by parts (Range)", response_class=FileResponse)
    def video(file: schema.Number) -> FileResponse:
        path = service.video(file)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return FileResponse(path, media_type=kind, filename=path.name, content_disposition_type="inline")

    @api.get("/images/{image}", summary="The people of a picture or frame")
    def scene(image: schema.Number) -> schema.Scene:
        people = service.people(image)
        return schema.Scene(
            image=str(image),
            file=schema.File.of(people[0].source),
            position=people[0].position,
            time=schema.iso(people[0].time),
            people=[schema.Person(person=str(hit.id), box=hit.box, score=hit.score) for hit in people],
        )

    @api.get("/images/{image}/picture", summary="A picture or frame", response_class=Response, responses=JPEG)
    def picture(image: schema.Number) -> Response:
        return Response(service.scene(image), media_type="image/jpeg", headers=KEEP)

    @api.get("/people/{person}/crop", summary="A small picture of a person", response_class=Response, responses=JPEG)
    def crop(person: schema.Number) -> Response:
        return Response(service.crop(person), media_type="image/jpeg", headers=KEEP)

    return api


def _search_routes(service: Service) -> APIRouter:
    """Pictures of users, and searches."""
    api = APIRouter()

    @api.post("/uploads", summary="Find the people in a picture: the body is the file", openapi_extra=UPLOAD_BODY)
    async def upload(request: Request, name: Annotated[str, Query(max_length=255)] = "") -> schema.Upload:
        return _described(await service.receive(name, request.stream()))

    @api.get("/uploads/{upload}", summary="The people of an uploaded picture")
    def uploaded(upload: str) -> schema.Upload:
        return _described(service.upload(upload))

    @api.get("/uploads/{upload}/picture", summary="An uploaded picture", response_class=Response, responses=JPEG)
    def uploaded_picture(upload: str) -> Response:
        return Response(service.upload_picture(upload), media_type="image/jpeg", headers=KEEP)

    @api.post("/searches", summary="Find a person")
    async def search(asked: schema.Asked) -> schema.Results:
        if asked.upload is not None:
            query = await service.query_of_upload(asked.upload, asked.box)
        else:
            query = await run_in_threadpool(service.query_of_index, asked.image, asked.person)
        times = tuple(moment and moment.timestamp() for moment in (asked.earliest, asked.latest))
        where = Where(asked.camera, times)
        found = await run_in_threadpool(service.search, query, asked.top, where, asked.cbgm)
        return schema.Results(results=[schema.Result.of(each) for each in found])

    return api


def _described(upload: Upload) -> schema.Upload:
    both = zip(upload.boxes.tolist(), upload.scores.tolist(), strict=True)
    people = [schema.Person(box=box, score=score) for box, score in both]
    return schema.Upload(upload=upload.id, name=upload.name, people=people)
