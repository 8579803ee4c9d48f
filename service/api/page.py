"""The page at `/`: one file, nothing loaded from elsewhere."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> HTMLResponse:
    """Return the playground: choose a user, see the list, post an event, see it change."""
    return HTMLResponse(page_text(), headers={"Content-Security-Policy": page_policy()})


@cache
def page_text() -> str:
    """Return the page, read once."""
    return files("service.api").joinpath("page.html").read_text("utf-8")


@cache
def page_policy() -> str:
    """Return what the page may do: its own style and script by their hashes, calls to us only."""
    return (
        f"default-src 'none'; style-src {_hash_of('style')}; script-src {_hash_of('script')}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_of(tag: str) -> str:
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page_text(), re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
