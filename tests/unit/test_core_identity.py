"""Identity: which profile an event belongs to, and what stitching may and may not do."""

from __future__ import annotations

from itertools import count

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.fragments import CONFLICTS, EVENTS
from streams.guards import Limits
from streams.identity import resolve
from streams.mapping import Mapped, Refusal
from streams.profile import Profile, load, new
from streams.profile_view import output
from streams.rebuilding import to_resolve, with_generations
from streams.schema import Field, schema_of

SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("email", "string", "latest", identity=True, single=True, rank=1),
        Field("cookies", "[]string", "merge", identity=True, rank=2),
        Field("spent", "number", "sum"),
        Field("name", "string", "latest"),
        Field("first", "string", "oldest"),
        Field("pages", "map[string]int", "sum"),
        Field("seen", "map[string]string", "merge"),
        Field("tags", "ts[]string", "merge", capacity=3),
        Field("events", "int", "count"),
    ]
)


class Graph:
    """What ingest keeps: owners of keys, and profiles by id. `reload` loads each profile anew for each event."""

    def __init__(self, schema=SCHEMA, *, limits=None, reload=False):
        self.schema = schema
        self.limits = limits or Limits()
        self.reload = reload
        self.owners: dict = {}
        self.profiles: dict[int, Profile] = {}
        self.ids = count(1)
        self.place = count(1)

    def take(self, mapped, us, event_id=""):
        if self.reload:
            self.profiles = {number: load(self.schema, number, each.dump()) for number, each in self.profiles.items()}
        resolution = resolve(
            self.schema,
            mapped,
            lambda key: self.profiles[self.owners[key]] if key in self.owners else None,
            lambda: new(next(self.ids), us),
            limits=self.limits,
        )
        profile = resolution.profile
        resolution.profile.apply(
            self.schema, resolution, event_us=us, event_id=event_id, stream="web", received_us=us,
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


def mapped(*, user_id=None, email=None, cookies=(), **values):
    keys = [("user_id", user_id)] if user_id else []
    keys += [("email", email)] if email else []
    keys += [("cookies", each) for each in cookies]
    contributions = [*values.items()]
    if cookies:
        contributions.append(("cookies", list(cookies)))
    return Mapped(tuple(keys), contributions)


events = st.builds(
    lambda user_id, email, cookies, spent, name, page, tag, us, event_id: (
        mapped(
            user_id=user_id,
            email=email,
            cookies=cookies,
            spent=spent,
            name=name,
            first=name,
            pages={page: 1},
            seen={page: name},
            tags=[tag],
            events=1,
        ),
        us,
        event_id,
    ),
    user_id=st.sampled_from([None, None, "u1", "u2", "u3"]),
    email=st.sampled_from([None, "a@x.com", "b@x.com", "c@x.com"]),
    cookies=st.lists(st.sampled_from(["k1", "k2", "k3"]), max_size=2, unique=True).map(tuple),
    spent=st.integers(0, 4).map(float),
    name=st.sampled_from("ABC"),
    page=st.sampled_from("xy"),
    tag=st.sampled_from("pqrs"),
    us=st.integers(1, 5),
    event_id=st.sampled_from(["", "i", "j"]),
).filter(lambda event: event[0].keys)
histories = st.lists(events, min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(histories)
def test_no_profile_ever_has_two_values_of_a_single_valued_identity(history):
    graph = Graph()
    for event in history:
        graph.take(*event)

        for profile in graph.profiles.values():
            assert len(profile.keys.get("user_id", ())) <= 1
            assert len(profile.keys.get("email", ())) <= 1
            for name in ("user_id", "email"):
                assert profile.keys.get(name, [None])[0] == profile.values.get(name)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_a_replay_in_the_same_order_gives_the_same_graph_also_from_stored_profiles(history):
    one, again, stored = Graph(), Graph(), Graph(reload=True)
    for event in history:
        for graph in (one, again, stored):
            graph.take(*event)

    assert one.dumps() == again.dumps()
    assert one.dumps() == stored.dumps()
    assert one.owners == stored.owners


@settings(max_examples=100, deadline=None)
@given(histories)
def test_a_loaded_profile_is_the_dumped_one(history):
    graph = Graph()
    for event in history:
        graph.take(*event)

    for profile in graph.profiles.values():
        loaded = load(SCHEMA, profile.id, profile.dump())
        assert loaded.dump() == profile.dump()
        assert loaded.values == profile.values
        assert output(loaded, SCHEMA) == output(profile, SCHEMA)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_every_event_is_in_one_profile_and_every_key_leads_to_it(history):
    graph = Graph()
    for event in history:
        graph.take(*event)

    assert sum(each.meta[EVENTS] for each in graph.profiles.values()) == len(history)
    assert sum(each.values["events"] for each in graph.profiles.values()) == len(history)
    assert sorted(graph.owners) == sorted(key for each in graph.profiles.values() for key in each.all_keys())


@settings(max_examples=100, deadline=None)
@given(histories)
def test_the_parts_of_a_profile_together_are_the_profile(history):
    graph = Graph()
    for event in history:
        graph.take(*event)

    for profile in graph.profiles.values():
        if profile.parts is None:
            continue
        united: dict = {}
        for fields, _meta in orjson.loads(orjson.dumps(list(profile.parts.values()))):
            for key, state in fields.items():
                united[key] = SCHEMA.by_key[key].combine(united[key], state) if key in united else state
        shown = {SCHEMA.by_key[key].name: SCHEMA.by_key[key].render(state) for key, state in united.items()}
        expected = {name: value for name, value in profile.values.items() if name not in {"user_id", "email"}}
        assert {name: value for name, value in shown.items() if name in expected} == expected
        assert sum(meta[EVENTS] for _, meta in profile.parts.values()) == profile.meta[EVENTS]


@settings(max_examples=100, deadline=None)
@given(history=st.lists(events, min_size=1, max_size=8), data=st.data())
def test_stitching_commutes_with_merging(history, data):
    # All events of one person: the same profile, whether the link comes first or last.
    alone = [
        (each._replace(keys=(("cookies", f"k{place % 3}"),)), us, name)
        for place, (each, us, name) in enumerate(history)
    ]
    link = (mapped(user_id="u1", cookies=("k0", "k1", "k2")), 3, "")
    first, last = Graph(), Graph()
    for event in [link, *alone]:
        first.take(*event)
    for event in [*data.draw(st.permutations(alone)), link]:
        last.take(*event)

    (one,), (other,) = first.profiles.values(), last.profiles.values()
    assert one.values == other.values


def test_a_new_key_beside_a_known_one_is_attached():
    graph = Graph()
    graph.take(mapped(email="a@x.com", spent=1.0), 1)
    resolution = graph.take(mapped(user_id="u1", email="a@x.com", spent=2.0), 2)

    assert resolution.attach == (("user_id", "u1"),)
    assert graph.profiles[1].values == {"email": "a@x.com", "user_id": "u1", "spent": 3.0}


def test_the_older_profile_survives_a_stitch():
    graph = Graph()
    graph.take(mapped(cookies=("k1",), spent=1.0), 1)
    graph.take(mapped(user_id="u1", spent=2.0), 2)
    resolution = graph.take(mapped(user_id="u1", cookies=("k1",), spent=4.0), 3)

    assert [each.id for each in resolution.absorb] == [2]
    assert list(graph.profiles) == [1]
    assert graph.profiles[1].values == {"cookies": ["k1"], "user_id": "u1", "spent": 7.0}
    assert graph.profiles[1].meta[EVENTS] == 3


def test_a_stitch_to_a_second_value_is_refused_and_the_higher_ranked_key_gets_the_event():
    graph = Graph()
    graph.take(mapped(user_id="u1", email="a@x.com", spent=1.0), 1)
    graph.take(mapped(user_id="u2", email="b@x.com", spent=1.0), 2)
    resolution = graph.take(mapped(user_id="u2", email="a@x.com", spent=8.0), 3)

    assert resolution.refused == (Refusal(("email", "a@x.com"), "conflict"),)
    assert graph.profiles[1].values["spent"] == 1.0
    assert graph.profiles[2].values == {"user_id": "u2", "email": "b@x.com", "spent": 9.0}
    assert graph.profiles[2].meta[CONFLICTS] == 1


def test_a_refused_key_s_own_contribution_is_dropped():
    graph = Graph()
    graph.take(mapped(user_id="u1", cookies=("k1",)), 1)
    graph.take(mapped(user_id="u2", cookies=("k1", "k2")), 2)

    assert graph.profiles[2].values["cookies"] == ["k2"]
    assert graph.profiles[1].values["cookies"] == ["k1"]


def test_a_shared_key_cannot_unite_a_user_base():
    graph = Graph(limits=Limits(keys=5))
    for number in range(20):
        graph.take(mapped(cookies=("shared", f"c{number}")), number + 1)

    assert max(each.key_count() for each in graph.profiles.values()) <= 5
    # The first key is never refused: what comes with the shared one alone still has a home.
    assert graph.take(mapped(cookies=("shared",)), 99).profile.id == 1


def test_what_each_home_fragment_gave_is_kept_apart_once_there_are_two():
    graph = Graph()
    graph.take(mapped(cookies=("k1",), spent=1.0), 1)
    assert graph.profiles[1].parts is None

    graph.take(mapped(user_id="u1", cookies=("k1",), spent=2.0), 2)
    graph.take(mapped(user_id="u1", spent=4.0), 3)

    spent = {home: part[0][SCHEMA.slots["spent"].key] for home, part in graph.profiles[1].parts.items()}
    assert spent == {("cookies", "k1"): 1.0, ("user_id", "u1"): 6.0}


def test_a_link_names_both_keys_and_the_event_that_made_it():
    graph = Graph()
    graph.take(mapped(user_id="u1", spent=1.0), 1)
    graph.take(mapped(user_id="u1", email="a@x.com"), 2)
    graph.take(mapped(user_id="u1", email="a@x.com"), 3)

    assert graph.profiles[1].edges == [["user_id", "u1", "email", "a@x.com", "realtime", 2]]


def test_an_event_by_two_queries_counts_once():
    graph = Graph()
    graph.place = iter([7, 7, 8])
    for us in (1, 1, 2):
        graph.take(mapped(user_id="u1", spent=1.0), us)

    assert graph.profiles[1].meta[EVENTS] == 2


def test_an_event_that_stitches_by_its_second_query_counts_once():
    graph = Graph()
    graph.take(mapped(cookies=("k1",)), 1)
    graph.place = iter([2, 3, 3])
    for each in (mapped(user_id="u1"), mapped(user_id="u1"), mapped(user_id="u1", cookies=("k1",))):
        graph.take(each, 2)

    assert graph.profiles[1].meta[EVENTS] == 3


@pytest.mark.parametrize("operator", ["latest", "oldest"])
def test_what_is_attached_stands_above_columns_outside_of_by(operator):
    schema = schema_of(
        [
            Field("user_id", "string", "latest", identity=True, single=True, rank=0),
            Field("email", "string", operator, identity=True, single=True, rank=1),
        ]
    )
    graph = Graph(schema)
    for us in (5, 1, 9):
        graph.take(mapped(user_id="u1")._replace(values=[("email", f"{us}@x.com")]), us)
        if us == 1:
            graph.take(mapped(user_id="u1", email="a@x.com"), 5)

    assert graph.profiles[1].values["email"] == "a@x.com"


@pytest.mark.parametrize("capacity", [1, 2])
def test_a_capacity_of_an_identity_gives_up_the_oldest_key(capacity):
    schema = schema_of(
        [
            Field("user_id", "string", "latest", identity=True, single=True, rank=0),
            Field("cookies", "[]string", "merge", identity=True, rank=1, capacity=capacity),
        ]
    )
    graph = Graph(schema)
    for number in range(1, 5):
        graph.take(mapped(user_id="u1", cookies=(f"k{number}",)), number)

    kept = [f"k{number}" for number in range(5 - capacity, 5)]
    assert graph.profiles[1].values["cookies"] == kept
    assert sorted(graph.owners) == [("cookies", each) for each in kept] + [("user_id", "u1")]


def test_a_changed_kind_begins_the_field_anew_and_keeps_the_rest():
    graph = Graph()
    graph.take(mapped(user_id="u1", name="A", spent=1.0), 1)
    other = schema_of([Field("user_id", "string", "latest", True, True, 0), Field("name", "[]string", "merge")])

    loaded = load(other, 1, graph.profiles[1].dump())

    assert loaded.values == {"user_id": "u1"}
    assert load(SCHEMA, 1, loaded.dump()).values == graph.profiles[1].values


def test_text_that_is_no_utf_8_does_not_stop_storing():
    profile = new(1, 0)
    profile.fields["x"] = "bad \ud800"

    assert orjson.loads(profile.dump())["f"]["x"] == "bad ?"


def test_a_stitch_unites_what_is_made_unseen_too():
    graph = Graph(with_generations(SCHEMA, {"spent": (0, 7)}))

    graph.take(Mapped((("user_id", "a"),), [("spent", 5.0)]), 1)
    graph.take(Mapped((("email", "b"),), [("spent", 7.0)]), 2)
    graph.take(Mapped((("user_id", "a"), ("email", "b")), [("spent", 1.0)]), 3)

    (profile,) = graph.profiles.values()
    assert {"spent:nn": 13.0, "spent:nn@7": 13.0} == {key: profile.fields[key] for key in ("spent:nn", "spent:nn@7")}
    assert 13.0 == sum(part[0]["spent:nn@7"] for part in profile.parts.values())


OWNED = {("user_id", "a"): 1, ("email", "old"): 1}


@pytest.mark.parametrize(
    ("keys", "known", "taken"),
    [
        # Known keys are not resolved again: the strongest that has an owner stands for the event.
        (["user_id a", "email old"], ["user_id a", "email old"], (["user_id a"], False)),
        (["user_id gone", "email old"], ["user_id gone", "email old"], (["email old"], False)),
        (["user_id gone"], ["user_id gone"], (None, False)),
        # New ones are, with it.
        (["user_id a", "email new"], ["user_id a"], (["user_id a", "email new"], True)),
        (["user_id new", "email old"], ["email old"], (["user_id new", "email old"], True)),
        (["user_id new"], [], (["user_id new"], True)),
        (["user_id a", "email old", "cookies c"], ["user_id a", "email old"], (["user_id a", "cookies c"], True)),
    ],
)
def test_of_past_events_only_new_keys_are_resolved(keys, known, taken):
    def key(text):
        return tuple(text.split())

    schema = with_generations(SCHEMA, {"spent": (0, 7)})
    values = [("cookies", ["c", "d"]), ("spent", 1.0), ("name", "x")]

    part, resolving = to_resolve(schema, Mapped(tuple(map(key, keys)), values), [*map(key, known)], OWNED.get)

    assert taken == (None if part is None else [" ".join(each) for each in part.keys], resolving)
    if part is not None:
        cookies = [("cookies", ["c"])] if "cookies c" in keys else []
        assert [*cookies, ("spent", 1.0)] == part.values
