"""What the pure core costs an event, stage by stage: `python tests/bench/bench_core.py [events]`.

The benchmarks' purchases over 20,000 customers, all profiles in memory, keys known: the steady state of ingest. Times
are CPU times: what else the machine does counts little.
"""

from __future__ import annotations

import gc
import sys
import time
from datetime import timedelta
from itertools import count

import orjson

from streams.audience import AudienceSet
from streams.identity import resolve
from streams.mapping import Mapper
from streams.merge import microseconds
from streams.profile import load, new
from streams.ql.compiler import compile_filter
from streams.ql.parser import parse_filters, parse_queries
from streams.schema import build_schema

from workload import AUDIENCES, QUERY, START, lines  # isort: skip  (beside this file)

START_US = microseconds(START)


def main(events: int = 100_000, customers: int = 20_000) -> None:
    queries = parse_queries(QUERY)
    schema = build_schema(queries)
    mapper = Mapper(schema, queries)
    filters = dict(enumerate(parse_filters(";\n".join(AUDIENCES)), 1))
    named = {each.alias: each.where for each in filters.values()}
    audiences = AudienceSet(
        {
            number: compile_filter(each.where, kinds=schema.kinds, includes=named.get)
            for number, each in filters.items()
        },
        schema,
    )
    bodies = [(START_US + place, body) for place, body in enumerate(lines(events, customers))]
    owners: dict = {}
    ids = count(1)

    def create():
        return new(next(ids), START_US)

    spent = dict.fromkeys(["loads", "map", "resolve", "apply", "touched", "evaluate", "earliest", "dump"], 0.0)
    clock = time.process_time  # others on the machine do not count
    gc.freeze()
    gc.set_threshold(10_000, 10, 1_000)  # as the daemon has it
    now = START + timedelta(days=300)
    matches = 0
    for round_number in range(2):  # the first fills, the second is the steady state
        gc.collect()
        spent = dict.fromkeys(spent, 0.0)
        slice_size = 500
        for start in range(0, events, slice_size):
            batch = bodies[start : start + slice_size]
            t0 = clock()
            parsed = [orjson.loads(body) for _, body in batch]
            t1 = clock()
            mapped = [mapper.map("orders", body, us, None, us) for (us, _), body in zip(batch, parsed, strict=True)]
            t2 = clock()
            resolved = []
            for each in mapped:
                resolution = resolve(schema, each[0], owners.get, create)
                for key in resolution.attach:
                    owners[key] = resolution.profile
                resolved.append(resolution)
            t3 = clock()
            masks = [
                each.profile.apply(
                    schema, each, event_us=us, event_id=None, stream="orders", received_us=us,
                    position=("realtime", start + place),
                )
                for place, ((us, _), each) in enumerate(zip(batch, resolved, strict=True))
            ]  # fmt: skip
            t4 = clock()
            touched = [audiences.touched(mask) for mask in masks]
            t5 = clock()
            for numbers, each in zip(touched, resolved, strict=True):
                matches += audiences.matched(numbers, each.profile, now).bit_count()
            t6 = clock()
            for numbers, each in zip(touched, resolved, strict=True):
                audiences.earliest(numbers, each.profile, now)
            t7 = clock()
            dumps = [each.profile.dump() for each in resolved]
            t8 = clock()
            for name, took in zip(
                spent, (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4, t6 - t5, t7 - t6, t8 - t7), strict=True
            ):
                spent[name] += took
        print(f"round {round_number}:", "  ".join(f"{name} {took / events * 1e6:.2f}" for name, took in spent.items()))
    core = sum(spent[name] for name in ("map", "resolve", "apply", "touched", "dump"))
    print(f"core {core / events * 1e6:.2f} µs an event; {matches} memberships seen")
    print(f"a body has {len(dumps[-1])} bytes: {dumps[-1]}")
    t0 = clock()
    for each in resolved:
        load(schema, each.profile.id, dumps[-1])
    print(f"load {(clock() - t0) / len(resolved) * 1e6:.2f} µs (loads alone ", end="")
    t0 = clock()
    for _ in resolved:
        orjson.loads(dumps[-1])
    print(f"{(clock() - t0) / len(resolved) * 1e6:.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
