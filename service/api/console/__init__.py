"""`/`: a page to ask questions and post edits by hand. Plain files without inline code, and nothing from other servers."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

FOLDER = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
router = APIRouter(include_in_schema=False)


@router.get("/")
def page() -> Response:
    """The page."""
    return _file("index.html", "text/html; charset=utf-8")


@router.get("/page.js")
def script() -> Response:
    """The script of the page."""
    return _file("page.js", "text/javascript; charset=utf-8")


@router.get("/page.css")
def style() -> Response:
    """The style of the page."""
    return _file("page.css", "text/css; charset=utf-8")


@router.get("/page.svg")
def icon() -> Response:
    """The icon in the browser's tab."""
    return _file("page.svg", "image/svg+xml")


@router.get("/docs")
def docs() -> Response:
    """Redirects to the OpenAPI document: an interactive rendering would load scripts from other servers."""
    return RedirectResponse("/openapi.json", status_code=307)


def _file(name: str, media_type: str) -> Response:
    return Response((FOLDER / name).read_bytes(), headers=HEADERS, media_type=media_type)
