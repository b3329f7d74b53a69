"""`/`: one page to ask a question and post a correction by hand. Plain files, nothing from other servers, nothing inline."""

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
    """What the page does."""
    return _file("page.js", "text/javascript; charset=utf-8")


@router.get("/page.css")
def style() -> Response:
    """How the page looks."""
    return _file("page.css", "text/css; charset=utf-8")


@router.get("/page.svg")
def icon() -> Response:
    """The mark in the browser's tab."""
    return _file("page.svg", "image/svg+xml")


@router.get("/docs")
def docs() -> Response:
    """The API's description as it is: an interactive rendering would load scripts from other servers."""
    return RedirectResponse("/openapi.json", status_code=307)


def _file(name: str, media_type: str) -> Response:
    return Response((FOLDER / name).read_bytes(), headers=HEADERS, media_type=media_type)
