"""The application: routes, and how errors are answered, around a `Platform`.

A part of the interface is a module with a `router`, named in ROUTERS. That of the resources is the
first one, since it has most of what is asked, and finds out soonest whether it is meant.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ovncp import __version__
from ovncp.api import (
    attempts,
    bulk,
    cluster,
    docs,
    events,
    health,
    login,
    metrics,
    problem,
    resources,
    tenants,
    topology,
    trace,
    trail,
    users,
)
from ovncp.api.bodies import BoundedBodies
from ovncp.api.observed import Observed
from ovncp.api.openapi import Description
from ovncp.api.platform import Platform
from ovncp.api.problem import NotAllowed
from ovncp.api.request_id import RequestIds
from ovncp.api.security_headers import SecurityHeaders
from ovncp.api.sight import Marks
from ovncp.cluster import background

ROUTERS = (
    resources.router,
    docs.router,
    health.router,
    metrics.router,
    bulk.router,
    topology.router,
    trace.router,
    events.router,
    login.router,
    users.router,
    tenants.router,
    trail.router,
    cluster.router,
)


def make(platform: Platform) -> FastAPI:
    """The application of a node, which starts and ends with it."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        await platform.start()
        warming = asyncio.create_task(topology.warm(platform))
        yield
        await background.end([warming])
        await platform.close()

    app = FastAPI(
        title="ovncp",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=living,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.platform = platform
    app.state.readiness = health.Readiness(platform)
    app.add_exception_handler(NotAllowed, attempts.on_not_allowed)
    for known in problem.KNOWN:
        app.add_exception_handler(known, problem.on_known)
    app.add_exception_handler(HTTPException, problem.on_http)
    app.add_exception_handler(RequestValidationError, problem.on_invalid)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BoundedBodies)
    app.add_middleware(Marks, sight=platform.sight)
    app.add_middleware(Observed, requests=platform.requests, spans=platform.spans)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestIds)
    app.openapi = Description(app, platform)  # type: ignore[method-assign]
    return app
