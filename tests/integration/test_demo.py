"""`cohortd demo` as `make demo` runs it, with a tenth of the customers."""

from __future__ import annotations

import asyncio
import csv
import re
import sys
from pathlib import Path

import aiohttp
import pytest

COHORTD = Path(sys.executable).with_name("cohortd")
DATA = Path(__file__).parents[1] / "data" / "cdnow.csv"


async def run(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        COHORTD, "demo", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
def tenth(tmp_path: Path) -> Path:
    path = tmp_path / "tenth.csv"
    with DATA.open(newline="") as whole, path.open("w", newline="") as part:
        rows = csv.reader(whole)
        writer = csv.writer(part)
        writer.writerow(next(rows))
        writer.writerows(row for row in rows if row[0].endswith("7"))
    return path


@pytest.mark.timeout(300)
async def test_the_demo_delivers_everything_and_leaves_a_daemon_that_can_be_used_and_ended(tmp_path: Path, tenth: Path):
    folder = tmp_path / "demo"
    where = ("--data-dir", str(folder))
    try:
        status, said = await run(*where, "--data", str(tenth), "--live-seconds", "15")
        assert status == 0, said
        address = re.search(r"address +(\S+)", said)
        token = re.search(r"token +(\S+)", said)
        assert address, said
        assert token, said

        again, refused = await run(*where)
        async with (
            aiohttp.ClientSession(headers={"Authorization": token[1]}) as session,
            session.get(f"{address[1]}/api/segment") as response,
        ):
            sizes = {each["slug"]: each["size"] for each in (await response.json())["data"]}
    finally:
        ended = await run(*where, "--stop")

    assert again == 1
    assert "a demo runs in" in refused
    assert sizes["one_timers"] > 1_000
    assert sizes["regulars"] > sizes["champions"] > 0
    assert ended == (0, "ended\n")
    assert await run(*where, "--stop") == (0, "no demo runs\n")
    assert '"daemon_failed"' not in (folder / "daemon.log").read_text()
