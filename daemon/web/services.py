"""What handlers work with: the open parts of the daemon, found in the application under `SERVICES`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from aiohttp import web

from daemon.bus.bus import Bus
from daemon.ingest.pipeline import Pipeline
from daemon.jobs.authorizations import Authorizations
from daemon.jobs.data import JobData
from daemon.jobs.jobs import Jobs
from daemon.jobs.journal import Journal
from daemon.settings import Settings
from daemon.store.collector import Collector
from daemon.store.database import Database
from daemon.store.tokens import Tokens


@dataclass(slots=True, kw_only=True)
class Services:
    """The parts of a running daemon. All of them live longer than the web server.

    `ready` and `stopping` are set once each, by `daemon.app`: from `stopping` on, nothing new is taken in.
    """

    settings: Settings
    events: Database
    state: Database
    tokens: Tokens
    collector: Collector
    pipeline: Pipeline
    bus: Bus
    jobs: Jobs
    authorizations: Authorizations
    journal: Journal
    job_data: JobData
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    #: Name of the control socket, as a connection over it has it for its own.
    control_path: str = ""
    ready: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


SERVICES = web.AppKey("SERVICES", Services)
