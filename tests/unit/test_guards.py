"""Merge guards: values that identify nobody, and how often a key may be stitched."""

from __future__ import annotations

from itertools import count

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.fragments import CONFLICTS
from streams.guards import Guards, Limits, StitchGuard, ValueGuard, unusable
from streams.identity import resolve
from streams.mapping import Mapped, Mapper
from streams.profile import Profile, load, new
from streams.ql.parser import parse_query
from streams.schema import Field, build_schema, schema_of
from streams.stitches import MOST_REFUSALS, mark

HOUR = 3_600_000_000
DAY = 24 * HOUR
SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("emails", "[]string", "merge", identity=True, rank=1, capacity=4),
        Field("cookie", "string", "latest", identity=True, single=True, rank=2),
    ]
)
LOOSE = schema_of(
    [
        Field("emails", "[]string", "merge", identity=True, rank=0, capacity=4),
        Field("cookies", "[]string", "merge", identity=True, rank=1),
    ]
)


class Graph:
    """What ingest keeps; with `reload` each profile is loaded anew for each event, as after a restart."""

    def __init__(self, schema=LOOSE, *, guards=None, limits=None, reload=False):
        self.schema = schema
        self.limits = limits or Limits()
        self.windows = (guards or Guards()).windows(schema, self.limits)
        self.reload = reload
        self.owners: dict = {}
        self.profiles: dict[int, Profile] = {}
        self.ids = count(1)
        self.place = count(1)

    def take(self, *keys, at=0):
        if self.reload:
            self.profiles = {number: load(self.schema, number, each.dump()) for number, each in self.profiles.items()}
        values = [(name, [text for field, text in keys if field == name]) for name, _ in keys]
        values = [(name, texts) for name, texts in dict(values).items() if name not in self.schema.singles]
        resolution = resolve(
            self.schema,
            Mapped(keys, values),
            lambda key: self.profiles[self.owners[key]] if key in self.owners else None,
            lambda: new(next(self.ids), at),
            limits=self.limits,
            windows=self.windows,
            at_us=at,
        )
        profile = resolution.profile
        profile.apply(
            self.schema, resolution, event_us=at, event_id=None, stream="web", received_us=at,
            position=("realtime", next(self.place)),
        )  # fmt: skip
        for absorbed in resolution.absorb:
            del self.profiles[absorbed.id]
        self.owners |= dict.fromkeys(profile.all_keys(), profile.id)
        for key in profile.dropped:
            del self.owners[key]
        profile.dropped.clear()
        self.profiles[profile.id] = profile
        return resolution

    def dumps(self):
        return {number: each.dump() for number, each in sorted(self.profiles.items())}


def mapper(guards, *, by="user_id", kinds=""):
    query = parse_query(f"SELECT user_id, email, set(cookie) AS cookies{kinds} FROM web INTO user BY {by} ALIAS web")
    return Mapper(build_schema([query]), [query], guards)


# --- values


NOTHING = ["null", " NULL ", "None", "undefined", "Undefined\n", "0", "000-000", "00000000-0000-0000-0000-000000000000"]


NOTHING += ["00:00:00:00:00:00", "{00000000-0000-0000-0000-000000000000}", "0.0.0", "__", "\u00a0null\u2003"]


@pytest.mark.parametrize("value", [*NOTHING, "-", "n/a", "[object Object]", "NaN", "(not set)", "false", 0, 0.0, False])
def test_a_value_that_identifies_nobody_is_no_key_and_the_rest_of_the_event_goes_on(value):
    found = mapper(Guards(), by="user_id OR email").map("web", {"user_id": value, "email": "a@x.com"}, 1)

    assert [each.keys for each in found] == [(("email", "a@x.com"),)]
    assert [refusal.reason for refusal in found[0].refused] == ["blocked"]


@pytest.mark.parametrize("value", ["", "   ", None, [], {}])
def test_nothing_is_no_key_and_not_counted(value):
    found = mapper(Guards(), by="user_id OR email").map("web", {"user_id": value, "email": "a@x.com"}, 1)

    assert [(each.keys, each.refused) for each in found] == [((("email", "a@x.com"),), ())]


@pytest.mark.parametrize("value", ["nullable", "007", "_0a", "{1}", "::1", "0a", "none@none.com", "1", "-5x"])
def test_what_only_looks_alike_is_a_key(value):
    assert mapper(Guards()).map("web", {"user_id": value}, 1)[0].keys == (("user_id", value),)


def test_a_key_of_256_bytes_is_taken_and_a_longer_one_is_not():
    one = mapper(Guards(), by="user_id OR email")

    kept = one.map("web", {"user_id": "ü" * 128, "email": "e"}, 1)
    gone = one.map("web", {"user_id": "ü" * 129, "email": "e"}, 1)

    assert kept[0].keys[0] == ("user_id", "ü" * 128)
    assert gone[0].keys == (("email", "e"),)
    assert gone[0].refused[0].reason == "too_long"


@pytest.mark.parametrize(
    ("guard", "refused"),
    [
        (ValueGuard(None, " None@None "), {"user_id", "email", "cookies"}),
        (ValueGuard("email", "none@none"), {"email"}),
        (ValueGuard("EMAIL", "none@none"), {"email"}),
        (ValueGuard("cookies", "none@none"), {"cookies"}),
        (ValueGuard(None, "NONE@*", glob=True), {"user_id", "email", "cookies"}),
        (ValueGuard("user_id", "n?ne@none", glob=True), {"user_id"}),
        (ValueGuard(None, "none@*"), set()),
        (ValueGuard(None, "none@non", glob=True), set()),
    ],
)
def test_users_add_texts_and_globs_for_one_identity_or_all(guard, refused):
    event = {"user_id": "none@none", "email": "None@None", "cookie": [" NONE@none"]}
    found = mapper(Guards([guard]), by="user_id OR email OR cookies", kinds=" KIND []string").map("web", event, 1)

    keys = {name for each in found for name, _ in each.keys}
    assert keys == {"user_id", "email", "cookies"} - refused
    if found:
        assert {refusal.key[0] for refusal in found[0].refused} == refused


def test_an_event_without_any_usable_key_is_counted():
    one = mapper(Guards([ValueGuard(None, "x")]), by="user_id OR email")

    found = [one.map("web", {"user_id": "x", "email": "0"}, 1) for _ in range(3)]

    assert found == [[], [], []]
    assert dict(one.lost) == {("user_id", "blocked"): 3, ("email", "blocked"): 3}


@given(st.text(max_size=300).filter(str.strip))
def test_a_guard_with_a_glob_judges_like_the_built_in_test_otherwise(text):
    judged = Guards([ValueGuard(None, "no such\x00*", glob=True)]).unusable("user_id")

    assert judged(text.strip()) == unusable(text.strip())


# --- windows


def test_by_default_a_key_leads_to_its_own_and_stronger_identities_within_the_limit_alone():
    windows = Guards().windows(SCHEMA, Limits(stitches=3, window_us=DAY))

    assert windows == dict.fromkeys(
        [
            ("user_id", "user_id"), ("emails", "user_id"), ("emails", "emails"), ("cookie", "user_id"),
            ("cookie", "emails"), ("cookie", "cookie"),
        ],
        (3, DAY),
    )  # fmt: skip


def test_the_limit_of_two_fields_goes_before_that_of_one_and_that_before_the_default():
    guards = Guards(
        stitches=[
            StitchGuard("COOKIE", None, 2, HOUR),
            StitchGuard("cookie", "Emails", 1, DAY),
            StitchGuard("emails", None, 0, 0),
            StitchGuard("user_id", "cookie", 9, DAY),
        ]
    )

    assert guards.windows(SCHEMA, Limits(stitches=3, window_us=DAY)) == {
        ("user_id", "user_id"): (3, DAY),
        ("user_id", "cookie"): (9, DAY),
        ("cookie", "user_id"): (2, HOUR),
        ("cookie", "cookie"): (2, HOUR),
        ("cookie", "emails"): (1, DAY),
    }


@pytest.mark.parametrize("reload", [False, True])
def test_one_shared_cookie_does_not_merge_a_user_base(reload):
    # With a capacity the addresses push each other out, so the number of keys alone would never stop it.
    graph = Graph(limits=Limits(stitches=10, window_us=DAY), reload=reload)
    people = 2000 if not reload else 100
    for each in range(people):
        graph.take(("emails", f"e{each}@x.com"), ("cookies", "shared"), at=each)

    shared = graph.profiles[graph.owners["cookies", "shared"]]
    assert len(graph.profiles) == people - 10
    assert shared.meta[2] == 11
    refused = [each for each in graph.profiles.values() if each.meta[CONFLICTS]]
    assert len(refused) == people - 11
    assert refused[0].memory["r"] == {
        "n": {"window": 1},
        "l": [["window", "cookies", mark(("cookies", "shared")), "realtime", 12, 11, 1]],
    }


def test_one_shared_address_in_everybodys_list_does_not_become_everybodys_home():
    graph = Graph(limits=Limits(stitches=10, window_us=DAY))
    for each in range(2000):
        graph.take(("emails", "none@none"), ("emails", f"e{each}@x.com"), at=each)

    largest = max(each.meta[2] for each in graph.profiles.values())
    assert len(graph.profiles) == 1990
    assert largest == 11


def test_a_known_person_may_collect_weaker_keys_as_fast_as_they_come():
    graph = Graph(limits=Limits(stitches=2, window_us=DAY))
    for each in range(40):
        graph.take(("emails", "ann@x.com"), ("cookies", f"k{each}"), at=each)

    assert len(graph.profiles) == 1
    assert len(graph.profiles[1].keys["cookies"]) == 40


def test_the_window_moves_on():
    graph = Graph(limits=Limits(stitches=2, window_us=DAY))
    for each, at in enumerate([0, HOUR, 2 * HOUR, DAY + HOUR - 1, DAY + HOUR]):
        graph.take(("emails", f"e{each}"), ("cookies", "k"), at=at)

    # The first event makes the profile and counts nothing; the second and third count, at 1 h and 2 h.
    assert [graph.owners["emails", f"e{each}"] == 1 for each in range(5)] == [True, True, True, False, True]


def test_a_limit_counts_stitches_and_not_the_events_of_people_who_are_stitched():
    graph = Graph(limits=Limits(stitches=1, window_us=DAY))
    for _ in range(3):
        graph.take(("emails", "a"), ("cookies", "k"))
        graph.take(("emails", "b"), ("cookies", "k"))

    assert graph.owners == dict.fromkeys([("emails", "a"), ("emails", "b"), ("cookies", "k")], 1)


KEYS = st.one_of(
    st.tuples(st.just("emails"), st.sampled_from("abcdef")), st.tuples(st.just("cookies"), st.sampled_from("klm"))
)
HISTORIES = st.lists(
    st.tuples(st.lists(KEYS, min_size=1, max_size=3, unique=True).map(lambda keys: sorted(keys, reverse=True)),
              st.integers(0, 5)), min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(HISTORIES)
def test_the_counters_survive_a_restart_and_are_exact_under_replay(history):
    limits = Limits(keys=5, stitches=2, window_us=3 * HOUR)
    one, again, stored = Graph(limits=limits), Graph(limits=limits), Graph(limits=limits, reload=True)
    hours = 0
    for keys, later in history:
        hours += later
        for graph in (one, again, stored):
            graph.take(*keys, at=hours * HOUR)

    assert one.dumps() == again.dumps() == stored.dumps()


@settings(max_examples=100, deadline=None)
@given(HISTORIES)
def test_no_key_is_ever_stitched_more_often_than_its_window_allows(history):
    graph = Graph(limits=Limits(keys=50, stitches=2, window_us=3 * HOUR))
    made: dict = {}
    hours = 0
    for keys, later in history:
        hours += later
        known = set(graph.owners)
        resolution = graph.take(*keys, at=hours * HOUR)
        joins = resolution.joins.each if resolution.joins else ()
        for join in joins:
            made.setdefault(join, []).append(hours)
            assert known & set(resolution.keys)

        for hours_of in made.values():
            assert all(sum(at - 3 < each <= at for each in hours_of) <= 2 for at in hours_of)


# --- what is remembered


def test_refusals_are_counted_all_and_remembered_up_to_a_bound():
    graph = Graph(SCHEMA)
    for each in range(2 * MOST_REFUSALS):
        graph.take(("user_id", f"u{each}"), ("cookie", f"c{each}"))
    for each in range(1, 2 * MOST_REFUSALS):
        graph.take(("user_id", "u0"), ("cookie", f"c{each}"), at=each)
        graph.take(("user_id", "u0"), ("cookie", f"c{each}"), at=each)

    remembered = graph.profiles[1].memory["r"]
    assert remembered["n"] == {"conflict": 2 * (2 * MOST_REFUSALS - 1)}
    assert graph.profiles[1].meta[CONFLICTS] == 2 * (2 * MOST_REFUSALS - 1)
    assert len(remembered["l"]) == MOST_REFUSALS
    assert remembered["l"][-1][-1] == 2


def test_no_key_of_somebody_else_is_readable_in_a_body():
    graph = Graph(SCHEMA)
    graph.take(("user_id", "u1"), ("cookie", "somebody"))
    graph.take(("user_id", "u2"), ("cookie", "somebody"))

    assert "somebody" not in graph.profiles[2].dump()
    assert orjson.loads(graph.profiles[2].dump())["s"]["r"]["n"] == {"conflict": 1}
