"""The API against its own description: schemathesis asks all that `/openapi.json` allows and forbids; none is a 500."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

SCHEMATHESIS = Path(sys.executable).with_name("st")


@pytest.mark.timeout(300)
async def test_no_request_that_the_description_allows_or_forbids_ends_in_a_500(tmp_path, start_cohortd):
    async with start_cohortd(tmp_path / "data") as cohortd:
        daemon = cohortd.client
        query = "SELECT uid KIND string, visits KIND int FROM default INTO user BY uid ALIAS people"
        await daemon.call("POST", "/api/query", data=query, ok=True)
        await daemon.call("POST", "/api/segment", data="FILTER visits > 0 ALIAS active", ok=True)
        await daemon.post("/collect/json/default", [{"uid": "ann", "visits": 1}], ok=True)
        config = {"audiences": ["active"], "folder": str(tmp_path / "out")}
        await daemon.post("/v2/job/files_export_triggers", {"config": config}, ok=True)
        process = await asyncio.create_subprocess_exec(
            str(SCHEMATHESIS),
            "run",
            f"{cohortd.address}/openapi.json",
            *("--checks", "not_a_server_error"),
            *("--header", f"Authorization: {cohortd.token}"),
            *("--phases", "coverage,fuzzing,stateful"),
            *("--max-examples", "6", "--seed", "4711", "--workers", "2", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        alive = (await daemon.get("/ready")).status
        failed = [line for line in cohortd.log if line.get("level") in ("error", "critical")]

    # The tool's own exceptions make its exit status 1 too, once in a few runs; all of its cases must have passed then.
    told = re.search(r"(\d+) generated, (\d+) passed$", output.decode(), re.MULTILINE)
    assert (200, []) == (alive, failed), output.decode()
    assert process.returncode == 0 or b"Runtime Error: 1" in output, output.decode()
    assert told is not None, output.decode()
    assert int(told[1]) == int(told[2]) > 2000, output.decode()
