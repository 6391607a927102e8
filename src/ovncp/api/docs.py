"""The description of the interface, and pages of it: Swagger UI, all of it from this node."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
)

from ovncp.api.platform import Platform
from ovncp.api.problem import Problem

router = APIRouter(include_in_schema=False)

_FILES = Path(fastapi_offline.__file__).parent / "static"
_NAMES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_START = "start.js"
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>ovncp</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="pages"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/{_START}"></script>
</body>
</html>
"""
_SCRIPT = """
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#pages",
  deepLinking: true,
  docExpansion: "none",
  validatorUrl: null
});
"""


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """The description, once the schemas are here of which it is made. Raises SessionLost."""
    platform: Platform = request.app.state.platform
    for replica in platform.replicas.values():
        await replica.filled()
    return JSONResponse(request.app.openapi())


@router.get("/")
async def start() -> Response:
    """Where who knows nothing yet is sent."""
    return RedirectResponse("docs", 302)


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return HTMLResponse(_PAGE)


@router.get("/docs/{name}")
async def file(request: Request, name: str) -> Response:
    """What the page consists of."""
    if name == _START:
        return Response(_SCRIPT, media_type="text/javascript")
    if name not in _NAMES:
        raise Problem("not-found", f"there is nothing at {request.url.path}")
    return FileResponse(_FILES / name)
