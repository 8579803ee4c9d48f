"""The page at `/`: one file, nothing loaded from elsewhere."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

# The page is its own style and script; it may talk to this service and to nobody else.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def page() -> HTMLResponse:
    """Return the playground: choose a user, see the list, post an event, see it change."""
    return HTMLResponse(page_text(), headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@cache
def page_text() -> str:
    """Return the page, read once."""
    return files("service.api").joinpath("page.html").read_text("utf-8")
