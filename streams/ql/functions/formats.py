"""JSON inside text, phone numbers, and places: on the net and on earth."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jmespath  # type: ignore[import-untyped]  # the wheel carries no types
import orjson
import phonenumbers
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]  # the wheel carries no types

from streams.ql.coerce import to_number, to_text
from streams.ql.functions.registry import Constant, example, function
from streams.ql.missing import MISSING, Missing, Value, is_nil

_EARTH_KM = 6371.0088
_LONGEST_EXPRESSION = 4_000
#: Nodes that one search may look at, and how large its result may be: a short expression can ask for 2^30 of them.
_MOST_STEPS = 200_000
_LARGEST_RESULT = 1_000_000
_NAMES = '[{"name":"n1","ct":8,"tags":["a","b"]},{"name":"n2","ct":10}]'


def _check_expression(arguments: Sequence[Constant]) -> str | None:
    text = arguments[1]
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_EXPRESSION:
        return f"a JMESPath expression is text of 1 to {_LONGEST_EXPRESSION} characters"
    try:
        _expression(text)
    except (JMESPathError, ValueError) as error:
        return f"{text!r} is no JMESPath expression: {error}"
    except RecursionError:
        return "the JMESPath expression is nested too deeply"
    return None


@function(
    "json.jmespath",
    literal_args=[1],
    check=_check_expression,
    examples=[
        example(_NAMES, "[?name == 'n1'].name | [0]", gives="n1"),
        example(_NAMES, "[0].tags", gives=["a", "b"]),
        example('[{"name":}]', "[0]", gives=MISSING),
        example(None, "name", gives=MISSING),
    ],
)
def json_jmespath(x: Value, expression: Value) -> Value:
    """Gives what a JMESPath expression finds in JSON text, or in a list or map."""
    if is_nil(x) or not isinstance(expression, str):
        return MISSING
    data = x
    if not isinstance(x, dict | list):
        text = to_text(x)
        if isinstance(text, Missing):
            return MISSING
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            return MISSING
    try:
        found = _Search().visit(_expression(expression).parsed, data)
    except (JMESPathError, ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
        return MISSING
    return MISSING if found is None or _larger(found, _LARGEST_RESULT) else found


@function(
    "phone.e164",
    returns="string",
    examples=[
        example("(415) 555-2671", gives="+14155552671"),
        example("030 901820", "DE", gives="+4930901820"),
        example("+44 20 7946 0958", gives="+442079460958"),
        example("12", gives=MISSING),
    ],
)
def phone_e164(x: Value, country: Value = "US") -> str | Missing:
    """Gives a phone number in international form; `country` (two letters) is for numbers without their own."""
    text, region = to_text(x), to_text(country)
    if isinstance(text, Missing) or isinstance(region, Missing):
        return MISSING
    try:
        number = phonenumbers.parse(text, region.upper())
    except phonenumbers.NumberParseException:
        return MISSING
    if not phonenumbers.is_possible_number(number):
        return MISSING
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@function(
    "ipfilter",
    returns="bool",
    examples=[
        example("192.168.1.100", "192.168.1.0/24", gives=True),
        example("10.0.0.1", "192.168.1.0/24", gives=False),
        example("2001:db8::1", "2001:db8::/32", gives=True),
        example("invalid.ip", "192.168.1.0/24", gives=MISSING),
        example("192.168.1.1", "192.168.1.0/35", gives=MISSING),
    ],
)
def ipfilter(x: Value, network: Value) -> bool | Missing:
    """Says whether an IP address lies in a network, written like "192.168.1.0/24"; not ok when either is none."""
    address_text, network_text = to_text(x), to_text(network)
    if isinstance(address_text, Missing) or isinstance(network_text, Missing):
        return MISSING
    if not network_text.rpartition("/")[2].isdigit() or "/" not in network_text:
        return MISSING
    try:
        address = ipaddress.ip_address(address_text)
        inside = ipaddress.ip_network(network_text, strict=False)
    except ValueError:
        return MISSING
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in inside


@function(
    "geodistance",
    examples=[
        example("52.52,13.405", "48.8566,2.3522", 900, gives=True),
        example({"lat": 52.52, "lon": 13.405}, "48.8566,2.3522", 800, gives=False),
        example("nowhere", "48.8566,2.3522", 800, gives=MISSING),
    ],
)
def geodistance(x: Value, place: Value, km: Value = MISSING) -> bool | float | Missing:
    """Says whether a location is at most so many kilometres from "lat,lon"; without `km`, gives the distance.

    A location is text "lat,lon", a list of both, or a map with lat and lon (or lng, latitude, longitude).
    """
    here, there = _coordinates(x), _coordinates(place)
    if here is None or there is None:
        return MISSING
    distance = _great_circle(here, there)
    if km is MISSING:
        return distance
    limit = to_number(km)
    return limit if isinstance(limit, Missing) else distance <= limit


class _Search(jmespath.visitor.TreeInterpreter):  # type: ignore[misc]  # the wheel carries no types
    """A search that ends after a bounded number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _MOST_STEPS

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        """Gives what the node finds; ValueError when that took too long."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("a search of too many steps")
        return super().visit(node, *args, **kwargs)


def _larger(found: Any, limit: int) -> bool:
    """Says whether a value, written out, would have more than `limit` elements and characters."""
    pending = [found]
    while pending and limit >= 0:
        each = pending.pop()
        limit -= 1
        if isinstance(each, str):
            limit -= len(each)
        elif isinstance(each, list):
            pending += each
        elif isinstance(each, dict):
            limit -= sum(map(len, each))
            pending += each.values()
    return limit < 0


@lru_cache(maxsize=256)
def _expression(text: str) -> Any:
    return jmespath.compile(text)


def _coordinates(value: Value) -> tuple[float, float] | None:
    """Latitude and longitude in radians."""
    pair: list[Value] = []
    if isinstance(value, str):
        pair = [part.strip() for part in value.split(",")]
    elif isinstance(value, list):
        pair = value
    elif isinstance(value, dict):
        named = {str(key).lower(): each for key, each in value.items()}
        pair = [
            next((named[name] for name in names if name in named), None)
            for names in (("lat", "latitude"), ("lon", "lng", "long", "longitude"))
        ]
    if len(pair) != 2:
        return None
    latitude, longitude = to_number(pair[0]), to_number(pair[1])
    if isinstance(latitude, Missing) or isinstance(longitude, Missing):
        return None
    if not -90 <= latitude <= 90 or not -180 <= longitude <= 180:
        return None
    return math.radians(latitude), math.radians(longitude)


def _great_circle(a: tuple[float, float], b: tuple[float, float]) -> float:
    half = math.sin((b[0] - a[0]) / 2) ** 2 + math.cos(a[0]) * math.cos(b[0]) * math.sin((b[1] - a[1]) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))
