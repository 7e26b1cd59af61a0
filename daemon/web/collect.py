"""Collection: all ways in which events come in over HTTP."""

from __future__ import annotations

from aiohttp import web

from daemon.web import bulk, collect_json, pixel, segment


def routes() -> list[web.RouteDef]:
    """Gives the routes of all of them."""
    return [route for module in (collect_json, bulk, pixel, segment) for route in module.routes()]
