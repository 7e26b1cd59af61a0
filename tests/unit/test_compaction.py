"""Compaction: which keys a profile gives up, and what stays."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.compaction import Compaction
from streams.fragments import EVENTS
from streams.guards import Guards, Limits, StitchGuard
from streams.identity import resolve
from streams.mapping import Mapped
from streams.profile import Profile, load, new
from streams.schema import Field, schema_of

DAY = 86_400_000_000
SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("emails", "[]string", "merge", identity=True, rank=1),
        Field("cookies", "[]string", "merge", identity=True, rank=2),
        Field("spent", "number", "sum"),
    ]
)


class Graph:
    """What ingest keeps; with `reload` each profile is loaded anew for each event."""

    def __init__(self, *, reload=False, **limits):
        self.limits = Limits(**limits)
        self.compaction = Compaction(SCHEMA, self.limits) if self.limits.compacting else None
        self.reload = reload
        self.owners: dict = {}
        self.profiles: dict[int, Profile] = {}
        self.ids = count(1)
        self.place = count(1)

    def take(self, *keys, day=0, spent=1.0):
        at = day * DAY
        if self.reload:
            self.profiles = {number: load(SCHEMA, number, each.dump()) for number, each in self.profiles.items()}
        values = [(name, [text for field, text in keys if field == name]) for name in ("emails", "cookies")]
        resolution = resolve(
            SCHEMA,
            Mapped(keys, [*((name, texts) for name, texts in values if texts), ("spent", spent)]),
            lambda key: self.profiles[self.owners[key]] if key in self.owners else None,
            lambda: new(next(self.ids), at),
            limits=self.limits,
        )
        profile = resolution.profile
        profile.apply(
            SCHEMA, resolution, event_us=at, event_id=None, stream="web", received_us=at,
            position=("realtime", next(self.place)),
        )  # fmt: skip
        if self.compaction is not None:
            gone = self.compaction.after_event(profile, resolution.keys, at)
            assert gone == len(profile.dropped)
        for absorbed in resolution.absorb:
            del self.profiles[absorbed.id]
        self.owners |= dict.fromkeys(profile.all_keys(), profile.id)
        for key in profile.dropped:
            del self.owners[key]
        profile.dropped.clear()
        self.profiles[profile.id] = profile
        return profile

    def dumps(self):
        return {number: each.dump() for number, each in sorted(self.profiles.items())}


def ann(*cookies):
    return ("user_id", "ann"), *(("cookies", each) for each in cookies)


def test_the_newest_keys_stay_and_the_values_of_all():
    graph = Graph(compact_keys=3)
    for day, cookie in enumerate("abcde"):
        graph.take(*ann(cookie), day=day)

    profile = graph.profiles[1]
    assert profile.keys == {"user_id": ["ann"], "cookies": ["d", "e"]}
    assert profile.values == {"user_id": "ann", "spent": 5.0, "cookies": list("abcde")}
    assert profile.memory["c"] == [3, 4 * DAY]
    assert profile.edges == [["user_id", "ann", "cookies", each, "realtime", at] for each, at in (("d", 4), ("e", 5))]
    assert ("cookies", "a") not in graph.owners


def test_a_key_that_is_named_again_counts_as_new():
    graph = Graph(compact_keys=3)
    graph.take(*ann("a"), day=1)
    graph.take(*ann("b"), day=2)
    graph.take(*ann("a"), day=3)
    graph.take(*ann("c"), day=4)

    assert graph.profiles[1].keys["cookies"] == ["a", "c"]


def test_keys_go_when_no_event_named_them_for_so_many_days():
    graph = Graph(compact_us=14 * DAY)
    graph.take(*ann("old"), day=0)
    graph.take(*ann("used"), day=1)
    graph.take(*ann("used"), day=14)
    assert graph.profiles[1].keys["cookies"] == ["old", "used"]

    graph.take(("user_id", "ann"), day=15)

    assert graph.profiles[1].keys["cookies"] == ["used"]


def test_keys_from_before_compaction_began_count_as_named_when_it_began():
    graph = Graph()
    graph.take(*ann("a"), day=0)
    graph.compaction = Compaction(SCHEMA, Limits(compact_us=14 * DAY, since_us=100 * DAY))

    graph.take(("user_id", "ann"), day=114)
    assert graph.profiles[1].keys["cookies"] == ["a"]
    graph.take(("user_id", "ann"), day=115)
    assert "cookies" not in graph.profiles[1].keys


def test_what_says_who_somebody_is_never_goes():
    graph = Graph(compact_keys=1, compact_us=DAY)
    graph.take(*ann("a"), day=0)
    graph.take(*(("emails", each) for each in ("a@x", "b@x", "c@x")), ("cookies", "k"), day=0)
    graph.take(("cookies", "m"), ("cookies", "n"), day=0)
    for day in (50, 51):
        graph.take(("user_id", "ann"), day=day)
        graph.take(("emails", "a@x"), day=day)
        graph.take(("cookies", "n"), day=day)

    assert [each.keys for each in graph.profiles.values()] == [
        {"user_id": ["ann"]}, {"emails": ["a@x", "b@x", "c@x"]}, {"cookies": ["n"]},
    ]  # fmt: skip


def test_what_a_key_gave_goes_to_the_home_fragment_and_stays_in_the_profile():
    graph = Graph(compact_keys=2)
    graph.take(("cookies", "a"), day=0, spent=1.0)
    graph.take(*ann("a"), day=1, spent=2.0)
    graph.take(("cookies", "a"), day=2, spent=4.0)
    graph.take(*ann("b"), day=3, spent=8.0)

    profile = graph.profiles[1]
    assert profile.home == ("user_id", "ann")
    assert profile.parts is None
    assert profile.values["spent"] == 15.0
    assert profile.meta[EVENTS] == 4


@pytest.mark.parametrize("limits", [Limits(), Limits(stitches=9, window_us=DAY, compact_us=DAY)])
def test_a_capacity_gives_keys_up_in_the_same_way(limits):
    # A profile must not grow with every address that ever came: in links, in parts, or in what is counted.
    schema = schema_of(
        [
            Field("emails", "[]string", "merge", identity=True, rank=0, capacity=2),
            Field("cookie", "string", "latest", identity=True, single=True, rank=1),
            Field("spent", "number", "sum"),
        ]
    )
    owners: dict = {}
    sizes = []
    for place in range(60):
        keys = (("emails", f"e{place:02}"), ("cookie", "k"))
        if place % 2:
            keys = keys[1:]
        emails = [("emails", [f"e{place:02}"])] if len(keys) == 2 else []
        rules = [StitchGuard("emails", "cookie", 9, DAY), StitchGuard("cookie", None, 0, 0)]
        windows = Guards(stitches=rules).windows(schema, limits)
        resolution = resolve(
            schema, Mapped(keys, [*emails, ("spent", 1.0)]), owners.get, lambda: new(1, 0), windows=windows
        )
        profile = resolution.profile
        profile.apply(
            schema, resolution, event_us=place, event_id=None, stream="w", received_us=0, position=("realtime", place)
        )
        if limits.compacting:
            Compaction(schema, limits).after_event(profile, resolution.keys, 0)
        owners = dict.fromkeys(profile.all_keys(), profile)
        profile.dropped.clear()
        sizes.append(len(profile.dump()))

    assert profile.keys == {"emails": ["e56", "e58"], "cookie": ["k"]}
    assert profile.values["spent"] == 60.0
    assert sizes[-1] <= sizes[9] + 20


events = st.tuples(
    st.lists(
        st.one_of(
            st.tuples(st.just("user_id"), st.sampled_from("uv")), st.tuples(st.just("emails"), st.sampled_from("ab")),
            st.tuples(st.just("cookies"), st.sampled_from("klmn")),
        ), min_size=1, max_size=3, unique_by=lambda key: key if key[0] != "user_id" else key[0],
    ).map(lambda keys: sorted(keys, key=lambda key: ["user_id", "emails", "cookies"].index(key[0]))),
    st.integers(0, 4),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(events, min_size=1, max_size=25), st.sampled_from([0, 1, 2, 4]), st.sampled_from([0, 1, 3]))
def test_compaction_comes_out_the_same_in_a_replay_and_loses_no_event(history, keys, days):
    limits = {"compact_keys": keys, "compact_us": days * DAY}
    one, stored = Graph(**limits), Graph(reload=True, **limits)
    day = 0
    for named, later in history:
        day += later
        one.take(*named, day=day)
        stored.take(*named, day=day)

    assert one.dumps() == stored.dumps()
    assert sum(each.meta[EVENTS] for each in one.profiles.values()) == len(history)
    assert sum(each.values["spent"] for each in one.profiles.values()) == len(history)
    for each in one.profiles.values():
        assert each.home in each.all_keys()
        assert set(each.parts or ()) <= set(each.all_keys())
        if each.parts:
            assert sum(meta[EVENTS] for _, meta in each.parts.values()) == each.meta[EVENTS]


@pytest.mark.parametrize("limits", [{}, {"compact_keys": 5}])
def test_a_profile_of_few_keys_is_left_alone(limits):
    graph = Graph(**limits)
    profile = graph.take(*ann("a", "b"))

    assert graph.take(*ann("a", "b"), day=100).all_keys() == [*ann("a", "b")]
    assert profile.dropped == []
