"""The API, one module a resource: each gives its routes, and wraps its handlers in `daemon.web.envelope.endpoint`."""

from __future__ import annotations

import importlib
import pkgutil

from aiohttp import web


def routes() -> list[web.RouteDef]:
    """Gives the routes of all modules of this package, so that a new one needs no line elsewhere."""
    found: list[web.RouteDef] = []
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        resource = importlib.import_module(module.name)
        if hasattr(resource, "routes"):
            found += resource.routes()
    return found
