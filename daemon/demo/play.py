"""What the demo does, in order: apply the definitions, import the log, send purchases live, see all delivered."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
from rich.console import Console

from daemon import clock
from daemon.demo import purchases, stage
from daemon.demo.purchases import Purchase
from daemon.demo.show import View
from daemon.demo.stage import Stage, StageError
from daemon.demo.watch import STREAM, Snapshot, Watch

#: Purchases that are sent live, a second.
LIVE_RATE = 4
LOOK_S = 0.25
SETTLE_S = 120.0


@dataclass
class Play:
    """A demo under way."""

    scene: Stage
    definitions: Path
    view: View
    seen: Snapshot = field(default_factory=Snapshot)
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, imported: Sequence[Purchase], live: Sequence[Purchase]) -> list[str]:
        """Plays everything; gives what did not come out as it should, nothing when all did."""
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.TaskGroup() as tasks:
                    looking = tasks.create_task(self._look(Watch(self.scene, session)))
                    await self._acts(session, imported, live)
                    looking.cancel()
            except* aiohttp.ClientError as group:
                raise StageError(
                    f"no answer any more: {group.exceptions[0]}; see {self.scene.folder}/daemon.log"
                ) from group
        return self._findings(len(imported) + len(live))

    async def _acts(
        self, session: aiohttp.ClientSession, imported: Sequence[Purchase], live: Sequence[Purchase]
    ) -> None:
        self.view.step("Applying a folder of definitions: queries, audiences, jobs")
        await self._cohortd("apply", str(self.definitions))
        self.view.step(f"Importing {len(imported):,} purchases, moved in time to end today")
        await self._import(imported)
        await self._settled(f"Taking in {len(imported):,} purchases, telling webhook and files")
        self.view.step(f"Sending {len(live)} purchases one by one; watch who comes and leaves by time alone")
        await self._live(session, live)
        await self._settled("Waiting for what is on its way")

    async def _look(self, watch: Watch) -> None:
        while True:
            self.seen = await watch.look()
            self.view.update(self.seen)
            self.looked.set()
            self.looked = asyncio.Event()
            await asyncio.sleep(LOOK_S)

    async def _import(self, rows: Sequence[Purchase]) -> None:
        file = self.scene.folder / "purchases.csv"
        await asyncio.to_thread(lambda: purchases.write(file, purchases.moved(rows, clock.now())))
        await self._cohortd("import", str(file), "--stream", STREAM, "--timestamp-field", "purchased_at", "--json")

    async def _live(self, session: aiohttp.ClientSession, rows: Sequence[Purchase]) -> None:
        url = f"{self.scene.address}/collect/json/{STREAM}"
        headers = {"Authorization": self.scene.token, "Content-Type": "application/json"}
        for each in rows:
            event = {
                "customer_id": each.customer_id,
                "purchased_at": clock.now().isoformat(),
                "cds": int(each.cds),
                "dollars": float(each.dollars),
            }
            async with session.post(url, data=orjson.dumps(event), headers=headers) as response:
                response.raise_for_status()
            await asyncio.sleep(1 / LIVE_RATE)

    async def _settled(self, step: str) -> None:
        """Waits until two looks in a row find nothing left to do, or gives up; the findings tell then."""
        self.view.step(step)
        settled = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self.looked.wait()  # this one may have begun before
                while settled < 2:
                    await self.looked.wait()
                    settled = settled + 1 if self.seen.settled else 0

    async def _cohortd(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *stage.program(),
            *arguments,
            "--data-dir",
            str(self.scene.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self.scene.environment,
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            raise
        if process.returncode:
            raise StageError(f"cohortd {arguments[0]}: {said.decode('utf-8', 'replace').strip()}")

    def _findings(self, sent: int) -> list[str]:
        seen = self.seen
        of = {each.slug: each for each in seen.audiences}
        wrong = []
        if seen.events != sent or seen.waiting:
            wrong.append(f"{sent:,} purchases were sent, {seen.events - seen.waiting:,} taken in")
        if seen.undelivered:
            wrong.append(f"{seen.undelivered:,} triggers were not delivered within {SETTLE_S:.0f} s")
        if not seen.webhook_triggers or seen.forged:
            wrong.append(f"the webhook has {seen.webhook_triggers:,} triggers, {seen.forged:,} with a wrong signature")
        if not seen.lines:
            wrong.append("no file was written")
        wrong += [
            f"{slug}: its receiver counts {of[slug].enters - of[slug].exits:,} members, the daemon {of[slug].size:,}"
            for slug in of
            if slug not in {"just_bought", "follow_up"} and of[slug].enters - of[slug].exits != of[slug].size
        ]
        if not any(of[slug].exits for slug in ("just_bought", "follow_up") if slug in of):
            wrong.append("nobody left an audience by time")
        return wrong


def play(
    folder: Path, data: Path, definitions: Path, *, live_seconds: float, console: Console
) -> tuple[Stage, list[str]]:
    """Sets the demo up and plays it. Raises StageError; what was started is ended then."""
    rows = purchases.read(data)
    count = min(len(rows), max(1, int(live_seconds * LIVE_RATE)))
    view = View(console)
    view.step("Starting a webhook receiver and a daemon")
    scene = stage.begin(folder)
    try:
        with view.shown():
            findings = asyncio.run(Play(scene, definitions, view).run(rows[:-count], rows[-count:]))
    except BaseException:
        stage.end(folder)
        raise
    return scene, findings
