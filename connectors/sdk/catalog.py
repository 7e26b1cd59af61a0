"""What this installation can connect to, found by scanning the folder: a provider is a module with `PROVIDER`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectors.sdk.declare import JobType, Provider


@dataclass(frozen=True, slots=True)
class Catalog:
    """The providers by slug, the job types by slug, and which provider each job type is of.

    `missing` names the modules that could not be loaded because a library is not installed, with its name.
    """

    providers: Mapping[str, Provider]
    job_types: Mapping[str, JobType[Any]]
    provider_of: Mapping[str, str]
    missing: Mapping[str, str]


def catalog() -> Catalog:
    """Scans `connectors`. Raises ValueError where two providers or two job types have the same slug."""
    package = importlib.import_module("connectors")
    found: list[Provider] = []
    missing: dict[str, str] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if module.name == "sdk":
            continue
        try:
            declared = importlib.import_module(f"connectors.{module.name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] in {"connectors", "streams", "daemon"}:
                raise
            missing[module.name] = error.name
            continue
        found.append(declared.PROVIDER)
    return assemble(found, missing)


def assemble(providers: list[Provider], missing: Mapping[str, str] | None = None) -> Catalog:
    """Gives the catalog of these providers."""
    by_slug: dict[str, Provider] = {}
    job_types: dict[str, JobType[Any]] = {}
    provider_of: dict[str, str] = {}
    for provider in sorted(providers, key=lambda each: each.slug):
        if provider.slug in by_slug:
            raise ValueError(f"two providers have the slug {provider.slug!r}")
        by_slug[provider.slug] = provider
        methods = [each.slug for each in provider.auths]
        if len(set(methods)) < len(methods) or "check" in methods:  # /v2/auth/{id}/check
            raise ValueError(
                f"provider {provider.slug!r} has two authorization methods of one slug, or one named check"
            )
        for job_type in provider.jobs:
            if job_type.slug in job_types:
                both = f"{provider_of[job_type.slug]!r} and {provider.slug!r}"
                raise ValueError(f"providers {both} both have a job type {job_type.slug!r}")
            job_types[job_type.slug] = job_type
            provider_of[job_type.slug] = provider.slug
    return Catalog(by_slug, job_types, provider_of, dict(missing or {}))
