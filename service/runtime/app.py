"""The HTTP application: the routes in front of the parts of a server."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from fastapi import FastAPI

from service import __version__
from service.api import console, openapi, problems
from service.api.middleware import RequestMiddleware
from service.api.openai_api.envelope import to_response
from service.api.routes import admin, aliases, edits, evaluations, generate, health, jobs, openai, versions
from service.api.state import ServerState
from service.runtime.assembly import open_server
from service.settings import Settings
from service.telemetry.log import configure_logging

ROUTERS = (
    *(edits.router, generate.router, versions.router, aliases.router, admin.router, jobs.router, evaluations.router),
    *(openai.router, health.router, console.router),
)


def create_app(settings: Settings, server: ServerState | None = None) -> FastAPI:
    """The HTTP application of `server`; without one, the application opens the parts at its start and closes them at its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            if server is None:
                configure_logging(settings.log_level)
            app.state.server = server or stack.enter_context(open_server(settings))
            try:
                yield
            finally:
                app.state.server.draining.set()

    app = FastAPI(
        title="Errata",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app, ROUTERS, to_response)
    openapi.describe(app)
    app.add_middleware(RequestMiddleware, settings=settings)
    return app
