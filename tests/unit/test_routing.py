"""Which stream an event goes to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from streams.ql.errors import QueryError
from streams.routing import build_routes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Rule:
    id: int
    expression: str
    output: str
    priority: int = 0
    input: str = "web"
    active: bool = True


def route(rules, data, stream="web"):
    return build_routes(rules).route(stream, data, NOW)


def test_the_rule_of_the_highest_priority_that_holds_decides():
    rules = [
        Rule(1, "true", "all"),
        Rule(2, 'plan == "pro"', "pro", priority=5),
        Rule(3, 'plan == "pro"', "late", priority=1),
    ]

    assert route(rules, {"plan": "pro"}) == "pro"
    assert route(rules, {"plan": "free"}) == "all"
    assert route(rules, {}) == "all"


def test_among_equals_the_newest_is_tried_first():
    assert route([Rule(1, "true", "old"), Rule(2, "true", "new")], {}) == "new"


def test_inactive_rules_and_those_of_other_streams_do_nothing():
    rules = [Rule(1, "true", "x", active=False), Rule(2, "true", "y", input="other")]

    assert route(rules, {}) == "web"
    assert not build_routes(rules).touches("web")
    assert build_routes(rules).touches("other")


def test_the_output_is_not_routed_again():
    assert route([Rule(1, "true", "b", input="web"), Rule(2, "true", "c", input="b")], {}) == "b"


def test_an_expression_that_cannot_be_evaluated_does_not_hold():
    assert route([Rule(1, "amount > 5", "big")], {"amount": "many"}) == "web"
    assert route([Rule(1, "amount > 5", "big")], {"amount": 6}) == "big"


def test_a_rule_that_is_no_expression_is_refused_or_left_out():
    told = []
    rules = [Rule(1, "((", "x"), Rule(2, "true", "y")]

    assert build_routes(rules, lambda rule, _: told.append(rule.id)).route("web", {}, NOW) == "y"
    assert told == [1]
    with pytest.raises(QueryError):
        build_routes(rules)
