"""Figures of the real process: latency to the receiver, isolation, start, idling, memory.

`python bench_daemon.py [latency|import|hanging|start|idle|memory|timers …] [--quick]`
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import orjson
import state
import workload
from figures import Figure, quantile
from load import steady
from running import Daemon, daemon, script

TOGGLE_QUERY = """
SELECT customer_id KIND string, number KIND int, active KIND int
FROM toggles INTO user BY customer_id ALIAS toggles
"""
TOGGLE = (TOGGLE_QUERY,)
TOGGLED = ("FILTER active = 1 FROM user ALIAS toggled",)
CUSTOMERS = 500


def toggle(number: int) -> bytes:
    """Gives an event that moves its customer in or out, with its sequence number."""
    event = {"customer_id": f"t{number % CUSTOMERS}", "number": number, "active": (number // CUSTOMERS + 1) % 2}
    return orjson.dumps(event)


def latency(*, quick: bool) -> Figure:
    """p99 from the planned moment of a POST to the receiver's request, at 500 events a second."""
    times, duration = (3, 4.0) if quick else (5, 30.0)
    figure = Figure("p99 from POST to the receiver's request, 500 events/s", "ms", "most", 10.0)
    with (
        tempfile.TemporaryDirectory() as folder,
        script("receiver.py") as (_, target),
        daemon(Path(folder) / "d") as ours,
    ):
        ours.define(TOGGLE, TOGGLED)
        job = {"label": "bench", "config": {"audiences": ["toggled"], "url": target, "batch_size": 1}}
        ours.call("POST", "/v2/job/webhook_triggers", orjson.dumps(job))
        with script("relay.py", target, f"{folder}/relay.log") as (_, relay):
            for _ in range(times):
                figure.floor.append(1000 * _latency(relay, target, duration, ""))
                # Each round begins where the last ended: every event must move its customer again.
                figure.ours.append(
                    1000 * _latency(f"{ours.address}/collect/json/toggles", target, duration, ours.token)
                )
    return figure


def _latency(url: str, target: str, duration_s: float, token: str) -> float:
    count = int(500 * duration_s)
    assert count % (2 * CUSTOMERS) == 0, "a round must leave every customer as it found it"
    urllib.request.urlopen(f"{target}times").read()
    load = asyncio.run(steady(url, toggle, rate=500, duration_s=duration_s, token=token))
    assert not load.refused
    arrived: dict[int, float] = {}
    for _ in range(200):
        arrived |= {int(key): at for key, at in orjson.loads(urllib.request.urlopen(f"{target}times").read()).items()}
        if len(arrived) >= count:
            break
        time.sleep(0.05)
    missing = count - len(arrived)
    assert not missing, f"{missing} of {count} never arrived"
    return quantile([at - load.planned[number] for number, at in arrived.items()], 0.99)


def imports(*, quick: bool) -> Figure:
    """p99 of collection beside a bulk import, against the same without it."""
    rows, times = (100_000, 3) if quick else (1_000_000, 5)
    figure = Figure(f"collection p99 while {rows:,} rows are imported", "ms", "most", 3.0)
    body = b"\n".join(workload.lines(rows, 50_000))
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "d") as ours:
        ours.define((workload.QUERY, *TOGGLE), workload.AUDIENCES)
        url = f"{ours.address}/collect/json/toggles"
        for _ in range(times):
            load = asyncio.run(steady(url, toggle, rate=200, duration_s=10, token=ours.token))
            assert not load.refused
            figure.floor.append(1000 * quantile(load.latency_s, 0.99))
            figure.ours.append(1000 * _while_importing(ours, url, body))
    return figure


def _while_importing(ours: Daemon, url: str, body: bytes) -> float:
    async def both() -> float:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            ours.call("POST", "/collect/bulk/orders", body)
            ours.settle()
            loop.call_soon_threadsafe(stop.set)

        thread = threading.Thread(target=work)
        thread.start()
        load = await steady(url, toggle, rate=200, duration_s=600, token=ours.token, stop=stop)
        thread.join()
        assert not load.refused
        return quantile(load.latency_s, 0.99)

    return asyncio.run(both())


def hanging(*, quick: bool) -> Figure:
    """Ingest beside 2,000 single deliveries, with one of two destinations hanging, against without that one."""
    events, times = (40_000, 3) if quick else (200_000, 5)
    figure = Figure("ingest beside 2,000 deliveries, one of two destinations hanging", "events/s", "least", 0.97)
    lines = workload.lines(events, 20_000)
    for _ in range(times):
        figure.floor.append(_beside(lines, hang=False))
        figure.ours.append(_beside(lines, hang=True))
    return figure


def _beside(lines: list[bytes], *, hang: bool) -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        script("receiver.py") as (_, good),
        script("receiver.py", "hang") as (_, bad),
        daemon(Path(folder) / "d") as ours,
    ):
        ours.define((workload.QUERY, *TOGGLE), (*workload.AUDIENCES, *TOGGLED))
        for target in (good, bad) if hang else (good,):
            config = {"audiences": ["toggled"], "url": target, "batch_size": 1}
            ours.call("POST", "/v2/job/webhook_triggers", orjson.dumps({"label": target, "config": config}))
        moves = b"\n".join(orjson.dumps({"customer_id": f"t{n}", "number": n, "active": 1}) for n in range(2000))
        body = b"\n".join(lines)
        ours.call("POST", "/collect/bulk/orders", b"\n".join(lines[:5000]))
        ours.settle()
        started = time.perf_counter()
        ours.call("POST", "/collect/json/toggles", moves)
        ours.call("POST", "/collect/bulk/orders", body)
        ours.settle()
        taken = time.perf_counter() - started
        for _ in range(1200):
            if int(urllib.request.urlopen(f"{good}count").read()) >= 2000:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the good destination did not get its 2,000")
        return (len(lines) + 2000) / taken


def start(*, quick: bool) -> Figure:
    """Start to ready with a backlog and as many profiles, against the start with an empty state."""
    count, times = (100_000, 3) if quick else (1_000_000, 5)
    figure = Figure(f"start to ready with a backlog of {count:,} events and {count:,} profiles", "s", "most", 3.0)
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        for each in (full, empty):
            with daemon(each) as ours:
                ours.define((workload.QUERY,), workload.AUDIENCES)
        state.fill(full, count=count, backlog=count)
        for _ in range(times):
            for path, into in ((empty, figure.floor), (full, figure.ours)):
                with daemon(path) as ours:
                    into.append(ours.start_s)
    return figure


def idle(*, quick: bool) -> Figure:
    """CPU of an idle daemon with many profiles and timers pending."""
    count, timers, seconds = (100_000, 10_000, 10) if quick else (1_000_000, 100_000, 30)
    figure = Figure(f"idle, {count:,} profiles, {timers:,} timers pending", "of a core", "most", 0.01)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d"
        with daemon(path) as ours:
            ours.define((workload.QUERY,), ())
        state.fill(path, count=count, timers=timers)
        with daemon(path) as ours:
            time.sleep(3)
            for _ in range(3 if quick else 5):
                before = ours.cpu_s()
                time.sleep(seconds)
                figure.ours.append((ours.cpu_s() - before) / seconds)
    return figure


def memory(*, quick: bool) -> list[Figure]:
    """Resident memory after many events over many profiles."""
    step, steps, customers = (20_000, 5, 20_000) if quick else (100_000, 10, 200_000)
    growth = Figure(f"memory after {step * steps:,} events, against after {step:,}", "MB", "most", 1.2)
    limit = Figure(f"memory after {step * steps:,} events over {customers:,} profiles", "MB", "most", 250)
    lines = workload.lines(step * steps, customers)
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder) / "d") as ours:
        ours.define((workload.QUERY,), workload.AUDIENCES)
        for number in range(steps):
            ours.call("POST", "/collect/bulk/orders", b"\n".join(lines[number * step : (number + 1) * step]))
            ours.settle()
            if number == 0:
                growth.floor.append(ours.memory_bytes() / 1e6)
        growth.ours.append(ours.memory_bytes() / 1e6)
        limit.ours = list(growth.ours)
    return [growth, limit]


def timers(*, quick: bool) -> list[Figure]:
    """Collection while timers fire that are due evenly over an hour, against the same without them."""
    # As many a second in both; the first profiles of an hour stand for the rest.
    count, over_s, seconds, times = (100_000, 360.0, 10, 3) if quick else (1_000_000, 3600.0, 30, 5)
    beside = Figure(f"collection p99 beside {count:,} timers due over {over_s:,.0f} s", "ms", "most", 1.5)
    late = Figure(f"of {count:,} timers due over {over_s:,.0f} s, how late the last is", "s", "most", 2.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d"
        with daemon(path) as ours:
            ours.define((workload.QUERY, *TOGGLE), workload.AUDIENCES)
        state.fill(path, count=count)
        for _ in range(times):
            for after_s, into in ((1e6, beside.floor), (4.0, beside.ours)):
                state.set_timers(path, count=count, after_s=after_s, over_s=over_s)
                with daemon(path) as ours:
                    time.sleep(5)
                    url = f"{ours.address}/collect/json/toggles"
                    load = asyncio.run(steady(url, toggle, rate=200, duration_s=seconds, token=ours.token))
                    assert not load.refused
                    into.append(1000 * quantile(load.latency_s, 0.99))
                    if into is beside.ours:
                        late.ours.append(state.lateness_s(path))
    return [beside, late]


ALL = {
    "latency": latency,
    "import": imports,
    "hanging": hanging,
    "start": start,
    "idle": idle,
    "memory": memory,
    "timers": timers,
}


def main() -> None:
    quick = "--quick" in sys.argv
    wanted = [name for name in sys.argv[1:] if not name.startswith("-")] or list(ALL)
    for name in wanted:
        found = ALL[name](quick=quick)
        for figure in found if isinstance(found, list) else [found]:
            print(figure.show(), flush=True)
            if "--json" in sys.argv:
                print(figure.facts().decode(), flush=True)


if __name__ == "__main__":
    main()
