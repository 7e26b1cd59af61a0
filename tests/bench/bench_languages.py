"""The languages beside code written by hand: `python bench_languages.py [audiences|mapping|wide …] [--quick]`.

Everything in memory, the same data for both sides, checked once to give the same results. CPU times: what else the
machine does counts little.

audiences: the 20 of the workload on a profile, against a plain walk over the same trees, and against Python written
by hand. mapping: an event through 25 columns, against Python written by hand. wide: events that touch 5 audiences of
500, against having only these 5.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from time import process_time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import workload
from figures import Figure, alternate
from treewalk import Walker

from streams.audience import AudienceSet
from streams.identity import Limits, resolve
from streams.mapping import Mapper
from streams.merge import microseconds
from streams.profile import Profile, new
from streams.ql.compiler import compile_filter
from streams.ql.nodes import Filter
from streams.ql.parser import parse_filters, parse_queries
from streams.schema import Schema, build_schema

NOW = workload.START + timedelta(days=300)
PROFILES = 2_000

COLUMNS = """
SELECT
    customer_id                                      KIND string,
    email(email)                  AS email           KIND string,
    country                                          KIND string,
    tolower(city)                 AS city            KIND string,
    address.zip                   AS zip             KIND string,
    phone                                            KIND string,
    toint(age)                    AS age             KIND int,
    tobool(newsletter)            AS newsletter      KIND bool,
    todate(born)                  AS born            KIND date,
    coupon                        IF dollars > 50    KIND string,
    "big" IF dollars > 100 ELSE "small" AS basket    KIND string,
    discount                                         KIND number MERGEOP max,
    session                                          KIND string MERGEOP oldest,
    plan                                             KIND string,
    host(referrer)                AS referrer        KIND string,
    qs(referrer, "utm_source")    AS source          KIND string,
    split(labels, ",")            AS labels          KIND []string,
    hourofday()                   AS hour            KIND int,
    sum(dollars)                  AS spent           KIND number,
    sum(cds)                      AS cds             KIND int,
    count(dollars)                AS orders          KIND int,
    max(todate(at))               AS last_purchase   KIND date,
    min(todate(at))               AS first_purchase  KIND date,
    valuect(genre)                AS genres          KIND map[string]int,
    set(channel)                  AS channels        KIND []string
FROM orders INTO user BY customer_id OR email ALIAS bench
"""


def purchases(number: int) -> list[dict[str, Any]]:
    """Gives the workload's events with more to say."""
    made = []
    for place, event in enumerate(workload.events(number, 20_000)):
        source = ("mail", "ads", "shop")[place % 3]
        made.append(
            orjson.loads(
                orjson.dumps(
                    event
                    | {
                        "city": ("Berlin", "Paris", "Roma")[place % 3],
                        "address": {"zip": f"{10_000 + place % 90_000}", "street": "Long Road 1"},
                        "age": str(20 + place % 60),
                        "newsletter": ("true", "false")[place % 2],
                        "born": f"{1950 + place % 50}-0{1 + place % 9}-11",
                        "coupon": f"C{place % 100}",
                        "discount": place % 30 / 2,
                        "session": f"s{place // 7}",
                        "plan": ("free", "pro")[place % 2],
                        "referrer": f"https://www.Example.com/Shop?utm_source={source}&page={place}",
                        "labels": "new,winter,sale",
                    }
                )
            )
        )
    return made


# --- audiences


def schema_and_profiles() -> tuple[Schema, list[Profile]]:
    """Gives profiles of ten purchases each."""
    queries = parse_queries(workload.QUERY)
    schema = build_schema(queries)
    mapper = Mapper(schema, queries)
    owners: dict[Any, Profile] = {}
    ids = count(1)
    for place, event in enumerate(workload.events(PROFILES * 10, PROFILES)):
        at_us = microseconds(workload.START) + place * 1_296_000_000
        mapped = mapper.map("orders", event, at_us, None, at_us)[0]
        found = resolve(schema, mapped, owners.get, lambda at_us=at_us: new(next(ids), at_us), limits=Limits())
        owners.update(dict.fromkeys(found.attach, found.profile))
        found.profile.apply(
            schema, found, event_us=at_us, event_id=None, stream="orders", received_us=at_us, position=("bulk", place)
        )
    return schema, list({profile.id: profile for profile in owners.values()}.values())


def filters(texts: tuple[str, ...]) -> dict[int, Filter]:
    return dict(enumerate(parse_filters(";\n".join(texts)), 1))


def audience_set(schema: Schema, found: dict[int, Filter]) -> AudienceSet:
    named = {each.alias: each.where for each in found.values()}
    compiled = {
        number: compile_filter(each.where, kinds=schema.kinds, includes=named.get) for number, each in found.items()
    }
    return AudienceSet(compiled, schema)


def by_hand(now: datetime) -> Callable[[dict[str, Any]], int]:
    """The conditions of the workload, as one would write them."""
    now = now.replace(microsecond=0)
    days7, days30 = now - timedelta(days=7), now - timedelta(days=30)
    days60, days90, days365 = now - timedelta(days=60), now - timedelta(days=90), now - timedelta(days=365)

    def members(values: dict[str, Any]) -> int:
        get = values.get
        spent, orders = get("spent"), get("orders")
        last, first = get("last_purchase"), get("first_purchase")
        country, channels, genres = get("country"), get("channels") or (), get("genres") or {}
        if last is not None:
            last = last.replace(microsecond=0)
        if first is not None:
            first = first.replace(microsecond=0)
        big = spent is not None and spent >= 100
        verdicts = (
            big,
            spent is not None and spent >= 1000,
            spent is not None and 50 < spent < 500,
            orders is not None and orders >= 2,
            orders is not None and orders >= 10,
            orders is not None and orders >= 5 and spent is not None and spent >= 300,
            get("cds") is not None and get("cds") > 20,
            last is not None and last > days30,
            last is not None and last > days7,
            last is not None and last > days90 and orders is not None and orders >= 3,
            last is not None and last < days60 and spent is not None and spent > 200,
            first is not None and first > days365,
            country == "DE",
            country in {"FR", "ES", "IT"},
            country == "US" and ((spent is not None and spent > 500) or (orders is not None and orders > 5)),
            "app" in channels or "store" in channels,
            "web" in channels and "store" not in channels,
            genres.get("rock") is not None and genres["rock"] >= 3,
            genres.get("jazz") is not None
            and genres["jazz"] >= 1
            and genres.get("rock") is not None
            and genres["rock"] >= 1,
            get("email") is not None and not spent_at_least_1000(spent),
        )
        found = 0
        for number, verdict in enumerate(verdicts, 1):
            if verdict:
                found |= 1 << number
        return found

    def spent_at_least_1000(spent: Any) -> bool:
        return spent is not None and spent >= 1000

    return members


def walked(found: dict[int, Filter]) -> Callable[[dict[str, Any]], int]:
    """The same trees, walked node by node."""
    named = {each.alias: each.where for each in found.values()}
    trees = [(1 << number, each.where) for number, each in found.items()]

    def members(values: dict[str, Any]) -> int:
        walker = Walker(values, NOW, named, not_reads=False)
        return sum(bit for bit, tree in trees if walker.value(tree) is True)

    return members


def audiences(*, quick: bool) -> list[Figure]:
    """The 20 audiences on a profile."""
    schema, profiles = schema_and_profiles()
    found = filters(workload.AUDIENCES)
    compiled = audience_set(schema, found)
    numbers = tuple(found)
    hand, walk = by_hand(NOW), walked(found)
    for _ in range(2):  # combinations that come again become one function
        for profile in profiles:
            assert compiled.matched(numbers, profile, NOW) == hand(profile.values) == walk(profile.values)
    rounds = 5 if quick else 20

    def ours() -> float:
        began = process_time()
        for _ in range(rounds):
            for profile in profiles:
                compiled.matched(numbers, profile, NOW)
        return (process_time() - began) / (rounds * len(profiles)) * 1e6

    def other(members: Callable[[dict[str, Any]], int], times: int) -> Callable[[], float]:
        def measured() -> float:
            began = process_time()
            for _ in range(times):
                for profile in profiles:
                    members(profile.values)
            return (process_time() - began) / (times * len(profiles)) * 1e6

        return measured

    against_walk = Figure("20 audiences on a profile, how many times as fast as a tree walk", "µs", "least", 3.0)
    against_hand = Figure("20 audiences on a profile, against Python by hand", "µs", "most", 3.0)
    alternate(against_hand, ours, other(hand, rounds), 5)
    alternate(against_walk, ours, other(walk, max(1, rounds // 10)), 5)
    # "How many times as fast" is the floor's time by ours.
    against_walk.ours, against_walk.floor = (
        [1e6 / each for each in against_walk.ours],
        [1e6 / each for each in against_walk.floor],
    )
    against_walk.unit = "profiles/s"
    return [against_walk, against_hand]


# --- mapping


def _whole(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def mapped_by_hand(event: dict[str, Any], at: datetime) -> tuple[list[tuple[str, str]], list[tuple[str, Any]]] | None:
    """The 25 columns, as one would write them: the keys, and what there is of each other field."""
    keys: list[tuple[str, str]] = []
    out: list[tuple[str, Any]] = []
    add = out.append
    get = event.get
    customer = get("customer_id")
    if customer:
        keys.append(("customer_id", str(customer)))
    email = get("email")
    if isinstance(email, str) and email.count("@") == 1:
        keys.append(("email", email.strip().lower()))
    if not keys:
        return None
    for name in ("country", "phone", "session", "plan"):
        value = get(name)
        if value:
            add((name, str(value)))
    city = get("city")
    if city:
        add(("city", city.lower()))
    address = get("address")
    if isinstance(address, dict) and address.get("zip"):
        add(("zip", str(address["zip"])))
    age = _whole(get("age"))
    if age is not None:
        add(("age", age))
    newsletter = get("newsletter")
    if newsletter in {"true", "false"}:
        add(("newsletter", newsletter == "true"))
    born = get("born")
    if born:
        add(("born", datetime.fromisoformat(born).replace(tzinfo=UTC)))
    dollars = get("dollars")
    if dollars is not None:
        coupon = get("coupon")
        if coupon and dollars > 50:
            add(("coupon", coupon))
        add(("spent", float(dollars)))
        add(("orders", 1))
    add(("basket", "big" if dollars is not None and dollars > 100 else "small"))
    discount = get("discount")
    if discount is not None:
        add(("discount", float(discount)))
    referrer = get("referrer")
    if referrer:
        lowered = urlsplit(referrer.lower())
        add(("referrer", lowered.netloc))
        source = dict(parse_qsl(lowered.query)).get("utm_source")
        if source:
            add(("source", source))
    labels = get("labels")
    if labels:
        add(("labels", labels.split(",")))
    add(("hour", at.hour))
    cds = get("cds")
    if cds is not None:
        add(("cds", int(cds)))
    bought = get("at")
    if bought:
        moment = datetime.fromisoformat(bought)
        add(("last_purchase", moment))
        add(("first_purchase", moment))
    genre = get("genre")
    if genre:
        add(("genres", {genre: 1}))
    channel = get("channel")
    if channel:
        add(("channels", [channel]))
    return keys, out


def mapping(*, quick: bool) -> Figure:
    """An event through a query of 25 columns."""
    queries = parse_queries(COLUMNS)
    assert len(queries[0].columns) == 25
    mapper = Mapper(build_schema(queries), queries)
    events = purchases(2_000 if quick else 20_000)
    start_us = microseconds(workload.START)
    for place, event in enumerate(events):
        at_us = start_us + place
        (mapped,) = mapper.map("orders", event, at_us, None, at_us)
        by_hand_too = mapped_by_hand(event, workload.START)
        assert by_hand_too is not None
        assert list(mapped.keys) == by_hand_too[0]
        assert dict(mapped.values) == dict(by_hand_too[1]), (dict(mapped.values), dict(by_hand_too[1]))

    def ours() -> float:
        began = process_time()
        for place, event in enumerate(events):
            mapper.map("orders", event, start_us + place, None, start_us + place)
        return (process_time() - began) / len(events) * 1e6

    def hand() -> float:
        began = process_time()
        for place, event in enumerate(events):
            at = workload.START + timedelta(microseconds=place)
            mapped_by_hand(event, at)
        return (process_time() - began) / len(events) * 1e6

    return alternate(Figure("an event through 25 columns, against Python by hand", "µs", "most", 4.0), ours, hand, 5)


# --- many audiences


def wide(*, quick: bool) -> Figure:
    """What an event costs when it touches 5 audiences of 500: what is touched, who matches, when time alone moves."""
    others = "".join(f", f{number} KIND int" for number in range(99))
    query = workload.QUERY.replace("FROM orders", f"{others}\nFROM orders")
    queries = parse_queries(query)
    schema = build_schema(queries)
    mapper = Mapper(schema, queries)
    touched = tuple(f"FILTER {workload.CONDITIONS[place]} ALIAS t{place}" for place in (0, 3, 7, 12, 15))
    untouched = tuple(
        f"FILTER AND ( f{number % 99} > {number}, f{(number + 1) % 99} < 7 ) ALIAS u{number}" for number in range(495)
    )
    few = audience_set(schema, filters(touched))
    many = audience_set(schema, filters(untouched[:250] + touched + untouched[250:]))
    events = list(workload.events(10_000 if quick else 50_000, PROFILES))
    start_us = microseconds(workload.START)

    def run(audiences: AudienceSet) -> Callable[[], float]:
        owners: dict[Any, Profile] = {}
        ids = count(1)

        def measured() -> float:
            matched = 0
            began = process_time()
            for place, event in enumerate(events):
                at_us = start_us + place
                (mapped,) = mapper.map("orders", event, at_us, None, at_us)
                found = resolve(schema, mapped, owners.get, lambda at_us=at_us: new(next(ids), at_us), limits=Limits())
                for key in found.attach:
                    owners[key] = found.profile
                changed = found.profile.apply(
                    schema,
                    found,
                    event_us=at_us,
                    event_id=None,
                    stream="orders",
                    received_us=at_us,
                    position=("bulk", place),
                )
                numbers = audiences.touched(changed)
                matched += audiences.matched(numbers, found.profile, NOW).bit_count()
                audiences.earliest(numbers, found.profile, NOW)
            took = process_time() - began
            assert matched
            return took / len(events) * 1e6

        measured()  # makes the profiles
        return measured

    figure = Figure("an event that touches 5 audiences of 500, against only these 5", "µs", "most", 1.3)
    return alternate(figure, run(many), run(few), 5)


ALL: dict[str, Callable[..., Figure | list[Figure]]] = {"audiences": audiences, "mapping": mapping, "wide": wide}


def main() -> int:
    quick = "--quick" in sys.argv
    met = True
    for name in [name for name in sys.argv[1:] if not name.startswith("-")] or list(ALL):
        found = ALL[name](quick=quick)
        for figure in found if isinstance(found, list) else [found]:
            print(figure.show(), flush=True)
            met = met and figure.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
