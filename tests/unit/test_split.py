"""Undoing a stitch: what each half gets, and that they stay apart."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import stitches
from streams.fragments import CONFLICTS, EVENTS
from streams.identity import resolve
from streams.mapping import Mapped
from streams.profile import Profile, load, new
from streams.profile_view import output
from streams.schema import Field, schema_of
from streams.split import SplitError, split

SCHEMA = schema_of(
    [
        Field("user_id", "string", "latest", identity=True, single=True, rank=0),
        Field("emails", "[]string", "merge", identity=True, rank=1),
        Field("cookies", "[]string", "latest", identity=True, rank=2),
        Field("spent", "number", "sum"),
        Field("events", "int", "count"),
        Field("name", "string", "latest"),
        Field("first", "string", "oldest"),
        Field("pages", "map[string]int", "sum"),
        Field("tags", "ts[]string", "merge", capacity=3),
    ]
)
U, V, E, K = ("user_id", "u"), ("user_id", "v"), ("emails", "a@x"), ("cookies", "k")


class Graph:
    """What ingest keeps."""

    def __init__(self):
        self.owners: dict = {}
        self.profiles: dict[int, Profile] = {}
        self.ids = count(1)
        self.place = count(1)

    def take(self, keys, us=1, stream="web", at=None, **values):
        at = us if at is None else at
        listed = {name: [text for field, text in keys if field == name] for name in ("emails", "cookies")}
        contributions = [*values.items(), *((name, texts) for name, texts in listed.items() if texts)]
        resolution = resolve(
            SCHEMA,
            Mapped(tuple(keys), contributions),
            lambda key: self.profiles[self.owners[key]] if key in self.owners else None,
            lambda: new(next(self.ids), at),
            at_us=at,
        )
        profile = resolution.profile
        profile.apply(
            SCHEMA, resolution, event_us=us, event_id="", stream=stream, received_us=at,
            position=("realtime", next(self.place)),
        )  # fmt: skip
        for absorbed in resolution.absorb:
            del self.profiles[absorbed.id]
        self.keep(profile)
        return resolution

    def keep(self, profile):
        self.owners |= dict.fromkeys(profile.all_keys(), profile.id)
        self.profiles[profile.id] = profile

    def split(self, number, keys, at_us=1000, *, apart=True):
        halves = split(SCHEMA, self.profiles[number], keys, next(self.ids), at_us, apart=apart)
        self.keep(halves.kept)
        self.keep(halves.made)
        return halves


def test_each_half_gets_its_own_values_and_history_back():
    graph = Graph()
    graph.take([K], 10, "app", spent=1.0, name="somebody")
    graph.take([U], 20, "shop", spent=2.0, name="Ann")
    graph.take([U, K], 30, "web", spent=4.0)
    graph.take([K], 40, "app", spent=8.0)

    halves = graph.split(1, [K])

    kept, made = (output(each, SCHEMA) for each in halves[:2])
    assert (kept["_id"], kept["user_id"], kept["spent"], kept["name"]) == ("1", "u", 6.0, "Ann")
    assert (kept["_num_events"], kept["_streamnames"], kept["_uid"]) == (2, ["shop", "web"], "u")
    assert (made["_id"], made["cookies"], made["spent"], made["name"]) == ("3", ["k"], 9.0, "somebody")
    assert (made["_num_events"], made["_streamnames"], made["_uid"]) == (2, ["app"], "k")
    assert (made["_created"], made["_modified"]) == ("1970-01-01T00:00:00.000010Z", "1970-01-01T00:00:00.000040Z")
    assert "cookies" not in kept
    assert kept["_split"] == made["_split"] == "1970-01-01T00:00:00.001000Z"
    assert halves.notes == []


def test_a_key_that_came_only_beside_a_stronger_one_takes_no_values_and_the_notes_say_so():
    graph = Graph()
    graph.take([U, E], 10, spent=1.0)

    halves = graph.split(1, [E])

    assert halves.kept.values == {"user_id": "u", "spent": 1.0}
    assert halves.made.values == {"emails": ["a@x"]}
    assert halves.made.meta == [1000, 1000, 0, 0, []]
    assert len(halves.notes) == 1
    assert "emails=a@x came only beside stronger keys" in halves.notes[0]


def test_the_home_fragment_may_be_what_goes():
    graph = Graph()
    graph.take([U, K], 10, spent=1.0)
    graph.take([K], 20, spent=2.0)

    halves = graph.split(1, [U])

    assert (halves.kept.home, halves.kept.values) == (K, {"cookies": ["k"], "spent": 2.0})
    assert (halves.made.home, halves.made.values) == (U, {"user_id": "u", "spent": 1.0})


def test_the_halves_stay_apart_until_one_of_them_is_told_otherwise():
    graph = Graph()
    graph.take([K], spent=1.0)
    graph.take([U, K])
    graph.split(1, [K])

    refused = graph.take([U, K], 2000, spent=5.0)

    assert [(each.key, each.reason) for each in refused.refused] == [(K, "split")]
    assert graph.owners[U] != graph.owners[K]
    assert graph.profiles[graph.owners[U]].meta[CONFLICTS] == 1
    assert stitches.forget_split(graph.profiles[graph.owners[K]])
    graph.take([U, K], 3000)
    assert graph.owners[U] == graph.owners[K]
    assert graph.profiles[graph.owners[U]].values["spent"] == 6.0


def test_they_stay_apart_also_by_keys_that_came_later():
    graph = Graph()
    graph.take([U, K])
    graph.split(1, [K])
    graph.take([U, E])

    refused = graph.take([E, K])

    assert [(each.key, each.reason) for each in refused.refused] == [(K, "split")]


def test_they_stay_apart_also_by_keys_that_the_other_half_got_later():
    graph = Graph()
    graph.take([U, K])
    graph.split(1, [K])
    graph.take([("cookies", "later"), K])

    refused = graph.take([U, ("cookies", "later")])

    assert [(each.key, each.reason) for each in refused.refused] == [(("cookies", "later"), "split")]


def test_what_is_counted_of_a_key_goes_with_it():
    graph = Graph()
    profile = graph.take([U, K]).profile
    profile.remember(
        {"w": [["user_id", "u", "user_id", 5], ["cookies", "k", "user_id", 6]], "t": {"cookies": {"k": 7}}}
    )

    kept, made, _ = graph.split(1, [K], apart=False)

    assert kept.memory == {"w": [["user_id", "u", "user_id", 5]], "o": [1000]}
    assert made.memory == {"w": [["cookies", "k", "user_id", 6]], "t": {"cookies": {"k": 7}}, "o": [1000]}


def test_a_split_that_shall_not_last_is_stitched_by_the_next_event():
    graph = Graph()
    graph.take([U, K])
    graph.split(1, [K], apart=False)
    graph.take([U, K])

    assert graph.owners[U] == graph.owners[K]
    assert "_split" not in output(graph.profiles[1], SCHEMA)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], "name at least one key"),
        ([U, K], "at least one key must stay"),
        ([V], "user_id=v is no key of this profile; it has user_id=u, cookies=k"),
    ],
)
def test_what_cannot_be_split_is_refused_and_said(keys, told):
    graph = Graph()
    graph.take([U, K])

    with pytest.raises(SplitError, match=told):
        graph.split(1, keys)


values = st.fixed_dictionaries(
    {"events": st.just(1)},
    optional={
        "spent": st.integers(0, 4).map(float), "name": st.sampled_from("ABC"), "first": st.sampled_from("ABC"),
        "pages": st.sampled_from("xy").map(lambda page: {page: 1}), "tags": st.sampled_from("pqrst").map(lambda t: [t]),
    },
)  # fmt: skip
histories = st.lists(
    st.tuples(st.sampled_from([[U], [K], [E], [U, K], [U, E], [U, E, K], [E, K]]), st.integers(1, 9),
              st.sampled_from(["web", "app"]), values),
    min_size=1, max_size=14,
)  # fmt: skip


def without(keys, gone):
    return [key for key in keys if key not in gone]


@settings(max_examples=200, deadline=None)
@given(histories, st.sampled_from([[U], [K], [E], [U, E], [K, E], [U, K]]))
def test_a_split_gives_what_each_side_would_be_had_it_never_been_stitched(history, going):
    # Each event belongs to the strongest key in it: the sides alone are the history with each event's other keys off.
    graph = Graph()
    sides = Graph(), Graph()
    for at, (keys, us, stream, contributed) in enumerate(history):
        graph.take(keys, us, stream, at, **contributed)
        side = keys[0] in going
        own = [key for key in keys if (key in going) == side]
        sides[side].take(own, us, stream, at, **contributed)
    whole = [each for each in graph.profiles.values() if any(key in each.all_keys() for key in going)]
    if len(graph.profiles) != 1 or any(len(side.profiles) != 1 for side in sides):
        return
    if set(going) - set(whole[0].all_keys()) or not set(whole[0].all_keys()) - set(going):
        return

    halves = graph.split(whole[0].id, going)

    ignored = {"_id", "_num_conflicts", "_split", "_uid", "_num_aliases", "user_id", "emails", "cookies"}
    for half, side in zip(halves[:2], sides, strict=True):
        alone = next(iter(side.profiles.values()))
        shown, expected = (output(each, SCHEMA) for each in (half, alone))
        assert {name: value for name, value in shown.items() if name not in ignored} == {
            name: value for name, value in expected.items() if name not in ignored
        }
        assert half.keys.get("user_id") == alone.keys.get("user_id")
    loaded = [load(SCHEMA, each.id, each.dump()) for each in halves[:2]]
    assert [each.dump() for each in loaded] == [each.dump() for each in halves[:2]]


@settings(max_examples=200, deadline=None)
@given(histories, st.sampled_from([[U], [K], [E], [U, E], [K, E], [U, K]]))
def test_halves_that_are_stitched_again_are_the_profile_of_before(history, going):
    graph = Graph()
    for keys, us, stream, contributed in history:
        graph.take(keys, us, stream, **contributed)
    whole = graph.profiles[min(graph.profiles)]
    moving = [key for key in going if key in whole.all_keys()]
    if not moving or len(moving) == whole.key_count():
        return
    before = output(whole, SCHEMA)

    halves = graph.split(whole.id, moving, apart=False)
    assert sum(each.meta[EVENTS] for each in halves[:2]) == before["_num_events"]
    assert not set(halves.kept.all_keys()) & set(halves.made.all_keys())
    graph.take([next(key for key in (U, E, K) if key in halves.kept.all_keys()), moving[0]], 1)

    again = output(graph.profiles[graph.owners[moving[0]]], SCHEMA)
    ignored = {"_num_events", "_created", "_modified", "_num_streams", "_streamnames", "_num_days", "_uid", "_split"}
    ignored |= {"cookies", "emails", "_id"}  # the stitching event says something about these; the older one survives
    for name in before.keys() - ignored:
        assert again.get(name) == before[name], name
