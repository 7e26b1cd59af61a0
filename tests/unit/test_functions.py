"""The functions of the languages: their examples, their arity, and that they never raise."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ql.compiler import compile_expression
from streams.ql.functions import FUNCTIONS
from streams.ql.functions.__main__ import reference, written
from streams.ql.functions.registry import EXAMPLE_NOW, Example, Function
from streams.ql.functions.text import pattern_error
from streams.ql.kinds import kind_named
from streams.ql.missing import MISSING
from streams.ql.parser import parse_expression
from streams.ql.siphash import siphash

ALL = sorted({function.name: function for function in FUNCTIONS.values()}.values(), key=lambda each: each.name)
EXAMPLES = [
    pytest.param(function, example, id=f"{function.name}-{number}")
    for function in ALL
    for number, example in enumerate(function.examples)
]
#: Cases are not values: `ifcase` is evaluated by the compiler.
WRITTEN = [each for each in EXAMPLES if each.values[0].name != "ifcase"]

#: The names that the public code registers, and those that only the documentation has (FACTS 2.3).
PROMISED = """
    sqrt pow count avg sum gt ge ne le lt eq not exists any all map todate totimestamp todatein now yy yymm mm
    monthofyear dayofweek hourofday hourofweek seconds maptime extract strftime unixtrunc tostring tobool toint
    tonumber unsign contains tolower string.index string.lowercase string.uppercase string.titlecase string.split
    string.strip string.substr split strip replace join hassuffix hasprefix len array.index array.slice oneof match
    mapkeys mapvalues mapinvert filter filtermatch email emaildomain emailname domain domains host hosts path qs2 qs
    qsl urlmain urlminusqs urldecode url.matchqs useragent.map useragent uuid hash hash.sip hash.md5 hash.sha1
    hash.sha256 hash.sha512 encoding.b64encode encoding.b64decode json.jmespath cast char_length ipfilter
    if ifcase regex.match valuect set min max totimeset phone.e164 epochms timebucket geodistance timewindow
""".split()  # noqa: SIM905  (ninety names read better as text)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["now-3d", "2014-04-07", "a@b.com", "http://a.co/b?c=d", "10:30", "%", "*", "[", "1e999", "\x00"])
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(("function", "example"), EXAMPLES)
def test_an_example_gives_what_it_says(function: Function, example):
    given_value = function.call(example.args, now=EXAMPLE_NOW, event=example.event)

    assert (example.gives, type(example.gives)) == (given_value, type(given_value))


def test_every_function_of_the_facts_is_there():
    assert set(PROMISED) - set(FUNCTIONS) == set()


def test_every_function_is_documented_and_has_examples():
    lacking = [function.name for function in ALL if not function.doc.endswith(".") or not function.examples]

    assert lacking == []


def test_what_functions_return_are_kinds():
    unknown = {function.returns for function in ALL if function.returns and kind_named(function.returns) is None}

    assert unknown == set()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("eq", 2, 2),
        ("not", 1, 1),
        ("any", 1, None),
        ("oneof", 2, None),
        ("now", 0, 0),
        ("uuid", 0, 0),
        ("yy", 0, 1),
        ("todate", 1, 2),
        ("todatein", 2, 2),
        ("unixtrunc", 1, 2),
        ("strftime", 2, 2),
        ("match", 1, None),
        ("mapkeys", 1, None),
        ("mapvalues", 1, 1),
        ("maptime", 1, 2),
        ("map", 2, 2),
        ("array.slice", 2, 3),
        ("string.substr", 2, 3),
        ("replace", 2, 3),
        ("join", 2, None),
        ("filter", 2, None),
        ("filtermatch", 2, None),
        ("hosts", 1, None),
        ("domains", 1, None),
        ("url.matchqs", 1, None),
        ("sum", 1, None),
        ("avg", 1, None),
        ("count", 1, 1),
        ("cast", 2, 2),
        ("ipfilter", 2, 2),
        ("json.jmespath", 2, 2),
    ],
)
def test_arity_is_that_of_the_table(name: str, least: int, most: int | None):
    function = FUNCTIONS[name]

    assert (least, most) == (function.min_args, function.max_args)
    assert function.arity_error(least) is None
    if least:
        assert name.split(".", maxsplit=1)[0] in (function.arity_error(least - 1) or "")
    if most is not None:
        assert function.arity_error(most + 1) is not None


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("todatein", [None, "PDT"]),
        ("todatein", ["now-3days", "America/Los_Angeles"]),
        ("todatein", [None, "../../etc/passwd"]),
        ("regex.match", [None, "n["]),
        ("regex.match", [None, ""]),
        ("regex.match", [None, "(?=a)"]),
        ("url.matchqs", [None, "good", "[*"]),
        ("json.jmespath", [None, "[?b].tags | [0 "]),
        ("json.jmespath", [None, ""]),
        ("json.jmespath", [None, 1]),
        ("json.jmespath", [None, "[" * 3_000]),
    ],
)
def test_a_bad_literal_is_named_when_the_text_is_parsed(name: str, arguments):
    check = FUNCTIONS[name].check

    assert check is not None
    assert check(arguments)


@pytest.mark.parametrize("function", ALL, ids=lambda function: function.name)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_function_never_raises_whatever_it_is_given(function: Function, data):
    count = data.draw(
        st.integers(function.min_args, function.min_args + 2 if function.max_args is None else function.max_args)
    )
    arguments = [data.draw(values) for _ in range(count)]
    event = data.draw(st.dictionaries(st.text(max_size=8), values, max_size=3))
    before = copy.deepcopy(arguments)

    given_value = function.call(arguments, now=EXAMPLE_NOW, event=event)

    assert repr(before) == repr(arguments)
    if isinstance(given_value, datetime):
        assert given_value.tzinfo is UTC


def test_siphash_is_that_of_its_reference():
    """The vector of the paper: key 00…0f, message 00…0e."""
    low, high = int.from_bytes(range(8), "little"), int.from_bytes(range(8, 16), "little")

    assert siphash(bytes(range(15)), low, high) % 2**64 == 0xA129CA6149BE45E5


def test_an_aggregate_names_its_merge_operator():
    assert {
        name: FUNCTIONS[name].aggregate for name in ("count", "sum", "valuect", "min", "max", "set", "totimeset")
    } == {
        "count": "sum",
        "sum": "sum",
        "valuect": "sum",
        "min": "min",
        "max": "max",
        "set": "merge",
        "totimeset": "merge",
    }


def test_a_sum_of_zero_is_zero_in_a_column():
    in_column = FUNCTIONS["sum"].in_column

    assert in_column is not None
    assert in_column(0) == 0
    assert in_column("5", -5) == 0
    assert in_column(None) is MISSING


def test_uuid_is_the_same_for_the_same_event_and_time():
    uuid = FUNCTIONS["uuid"]
    one = uuid.call([], now=EXAMPLE_NOW, event={"_id": "1", "a": {"b": [1]}})

    assert one == uuid.call([], now=EXAMPLE_NOW, event={"_id": "1", "a": {"b": [1]}})
    assert one != uuid.call([], now=EXAMPLE_NOW, event={"_id": "2", "a": {"b": [1]}})


def test_a_field_width_does_not_make_long_text():
    strftime = FUNCTIONS["strftime"]

    assert strftime.call(["2014-04-07", "%999999999d|%d"], now=EXAMPLE_NOW, event={}) == "%999999999d|07"


def test_a_pattern_that_would_backtrack_is_linear():
    matched = FUNCTIONS["regex.match"].call(["a" * 50_000 + "!", "(a+)+$"], now=EXAMPLE_NOW, event={})

    assert matched is False


def test_a_pattern_error_says_what_is_wrong():
    assert "[" in (pattern_error("n[") or "")


def test_missing_is_one_and_false():
    assert not MISSING
    assert copy.deepcopy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING  # noqa: S301  (our own bytes)


@pytest.mark.parametrize(("function", "example"), WRITTEN)
def test_an_example_gives_the_same_as_text_of_the_language(function: Function, example: Example):
    text, data = written(function, example)

    given_value = compile_expression(parse_expression(text)).evaluate(data, EXAMPLE_NOW)

    nothing = example.gives is MISSING or example.gives is None
    assert (given_value is MISSING or given_value is None) if nothing else given_value == example.gives


def test_the_reference_is_that_of_the_declarations():
    page = Path(__file__).parents[2] / "streams" / "ql" / "functions" / "README.md"

    assert reference() == page.read_text(), "python -m streams.ql.functions > streams/ql/functions/README.md"
