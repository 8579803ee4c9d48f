"""The playground at `/`: a few static files, nothing loaded from elsewhere."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

INDEX = "index.html"
TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# What the page may do: its own files and calls to us; no inline style or script, no form, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page and the headers of its answer."""

    content: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, content: bytes) -> "_File":
        """Return a file as it is sent.

        It may be kept, and is asked for again each time, which costs no more than an empty answer:
        after an update nobody has half of the old page and half of the new one.
        """
        headers = {
            "Content-Type": TYPES[name.rpartition(".")[2]],
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
        }
        return cls(content, headers)


@router.get("/")
async def page(request: Request) -> Response:
    """Return the playground: choose a user, see the list, post an event, see it change."""
    return _answer(request, INDEX)


@router.get("/playground/{name}")
async def page_file(request: Request, name: str) -> Response:
    """Return a style, script or picture of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise HTTPException(404)
    if _has(request.headers.get("if-none-match", ""), file.headers["ETag"]):
        kept = {key: value for key, value in file.headers.items() if key != "Content-Type"}
        return Response(status_code=304, headers=kept)
    return Response(file.content, headers=file.headers)


def _has(if_none_match: str, etag: str) -> bool:
    """Tell whether a browser has an answer with this tag; a proxy may have weakened it."""
    known = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in known or "*" in known


@cache
def page_files() -> dict[str, _File]:
    """Return the files of the page by name, read once; a name that is not here is no path."""
    folder = files("service.api").joinpath("playground")
    return {
        one.name: _File.of(one.name, one.read_bytes())
        for one in folder.iterdir()
        if one.name.rpartition(".")[2] in TYPES
    }
