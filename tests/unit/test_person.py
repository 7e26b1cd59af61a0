"""What an event has to do with a person, and what is left of it without them."""

from __future__ import annotations

import pytest

from streams.mapping import Mapper
from streams.person import Eye, Texts, cut, names, share, without_keys
from streams.ql.parser import parse_query
from streams.schema import build_schema

WEB = "SELECT user_id, email(email) AS email, plan, set(email) AS emails KIND []string FROM web INTO user"
BOTH = (
    f"{WEB} BY user_id OR email ALIAS web",
    "SELECT friend AS user_id, count(friend) AS invited FROM web INTO user BY user_id ALIAS friends",
)


def mapper(*texts):
    trees = [parse_query(text) for text in texts]
    return Mapper(build_schema(trees), trees)


def eye(*texts, now=()):
    return Eye(mapper(*texts), mapper(*now) if now else None)


def see(which, body):
    return which.see("web", body, 0, None, 0)


def theirs(*keys):
    return frozenset(keys).__contains__


def test_an_event_belongs_to_the_owner_of_its_first_key():
    mapped = see(eye(*BOTH), {"user_id": "ann", "email": "bob@example.com", "friend": "cid"}).then

    ann = share(mapped, theirs(("user_id", "ann")))
    bob = share(mapped, theirs(("email", "bob@example.com")))
    cid = share(mapped, theirs(("user_id", "cid")))

    assert [len(ann.own), len(ann.others)] == [1, 1]
    assert [len(bob.own), len(bob.others)] == [0, 2]
    assert [len(cid.own), len(cid.others)] == [1, 1]
    assert names(bob.others, theirs(("email", "bob@example.com")))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"note": " Ann@Example.com "}, True),
        ({"deep": [{"note": "ann@example.com"}]}, True),
        ({"note": "mail ann@example.com"}, False),
        ({"amount": 41}, False),
        ({"user_id": 41}, True),
        ({"USER_ID": ["7", "41"]}, True),
        ({"phone": 491701234567}, True),
        ({"phone": True, "email": None, "x": 4.1}, False),
    ],
)
def test_text_names_a_person_where_it_is_distinct_or_stands_in_the_identitys_field(body, expected):
    texts = Texts([("user_id", "41"), ("email", "ann@example.com"), ("phone_number", "491701234567")])

    assert texts.within(body) is expected


def test_a_piece_of_text_is_searched_for_distinct_values_only():
    texts = Texts([("user_id", "41"), ("email", "ann@example.com")])

    assert texts.within_text('{"email": "Ann@example.com", ')
    assert not texts.within_text('{"user_id": 41')


def test_of_an_event_of_others_only_the_values_go_that_are_the_persons_keys():
    plain = eye("SELECT user_id, email(email) AS email, plan FROM web INTO user BY user_id OR email ALIAS web")
    body = {"user_id": "ann", "email": "bob@example.com", "plan": "x", "unmapped": 1}

    left = cut(body, lambda each: see(plain, each), theirs(("email", "bob@example.com")))

    assert left == {"user_id": "ann", "plan": "x", "unmapped": 1}


def test_what_a_value_of_others_is_made_of_stays():
    both = eye(f"{WEB} BY user_id OR email ALIAS web")
    body = {"user_id": "ann", "email": "bob@example.com"}

    assert cut(body, lambda each: see(both, each), theirs(("email", "bob@example.com"))) == {
        "user_id": "ann", "email": "bob@example.com",
    }  # fmt: skip


def test_of_an_event_of_two_only_what_the_others_part_is_made_of_stays():
    body = {"user_id": "ann", "email": "ann@example.com", "plan": "x", "name": {"first": "Ann"}, "friend": "bob"}

    left = cut(body, lambda each: see(eye(*BOTH), each), theirs(("user_id", "ann"), ("email", "ann@example.com")))

    assert left == {"friend": "bob"}


def test_a_weaker_key_of_others_does_not_become_the_home_of_what_is_left():
    body = {"user_id": "ann", "email": "bob@example.com", "friend": "cid"}
    is_ann = theirs(("user_id", "ann"))

    left = cut(body, lambda each: see(eye(*BOTH), each), is_ann)

    assert left == {"friend": "cid"}


def test_queries_of_now_count_as_well():
    changed = eye(BOTH[0], now=("SELECT name AS user_id, plan FROM web INTO user BY user_id ALIAS web",))

    stand = see(changed, {"user_id": "ann", "name": "bob"})

    assert share(stand.then, theirs(("user_id", "bob"))).own == ()
    assert len(share(stand.now, theirs(("user_id", "bob"))).own) == 1


def test_without_a_key_its_text_is_not_among_the_values():
    (mapped,) = see(
        eye("SELECT user_id, set(email) AS emails KIND []string FROM web INTO user BY user_id OR emails ALIAS web"),
        {"user_id": "ann", "email": ["a@example.com", "b@example.com"]},
    ).then

    left = without_keys(mapped, {("emails", "b@example.com")})

    assert left.keys == (("user_id", "ann"), ("emails", "a@example.com"))
    assert left.values == [("emails", ["a@example.com"])]
