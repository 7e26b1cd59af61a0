"""What a User-Agent says of the browser, read as mssola's library reads it.

The text is products ("Chrome/23.0") with comments in parentheses; platform and system stand in the first comment and
are given as written there. Whether it is a bot is asked of ua-parser too, which knows more of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import ua_parser

from streams.ql.coerce import first
from streams.ql.functions.registry import example, function
from streams.ql.missing import MISSING, Missing, Value

_LONGEST = 2_000
_PRODUCT = re.compile(r"([^\s/(\[]*)(?:/(\S*))?\s*")
_BOT_WORD = re.compile(r"bot|crawler|sp[iy]der|search|worm|fetch|nutch", re.IGNORECASE)
_SITE = re.compile(r"https?://.+\.\w+")
_VERSION_OF_IE = {"4.0": "8.0", "5.0": "9.0", "6.0": "10.0"}
_LINUX = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.11 (KHTML, like Gecko) Chrome/23.0.1271.97 Safari/537.11"
_WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210.91"
)
_PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.1 Mobile/15E148 Safari/604.1"
)
_GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    version: str
    comment: tuple[str, ...]


@function(
    "useragent",
    returns="string",
    examples=[
        example(_LINUX, "os", gives="Linux x86_64"),
        example(_LINUX, "platform", gives="X11"),
        example(_LINUX, "browser", gives="Chrome"),
        example(_LINUX, "browser_version", gives="23.0.1271.97"),
        example(_LINUX, "engine", gives="AppleWebKit"),
        example(_LINUX, "engine_version", gives="537.11"),
        example(_LINUX, "mozilla", gives="5.0"),
        example(_LINUX, "bot", gives="false"),
        example(_WINDOWS, "os", gives="Windows NT 10.0"),
        example(_WINDOWS, "browser", gives="Edge"),
        example(_PHONE, "mobile", gives="true"),
        example(_PHONE, "os", gives="CPU iPhone OS 17_1 like Mac OS X"),
        example(_GOOGLE, "bot", gives="true"),
        example(_GOOGLE, "browser", gives="Googlebot"),
        example(_LINUX, "colour", gives=MISSING),
        example("", "os", gives=MISSING),
    ],
)
def useragent(x: Value, feature: Value) -> str | Missing:
    """Gives one feature of a User-Agent as text.

    Features: mobile, bot, os, platform, browser, browser_version, engine, engine_version, mozilla.
    """
    found = useragent_map(x)
    if isinstance(found, Missing) or not isinstance(feature, str):
        return MISSING
    value = found.get(feature.lower())
    return MISSING if value is None else value


@function(
    "useragent.map",
    returns="map[string]string",
    examples=[
        example(
            _LINUX,
            gives={
                "bot": "false",
                "mobile": "false",
                "mozilla": "5.0",
                "platform": "X11",
                "os": "Linux x86_64",
                "engine": "AppleWebKit",
                "engine_version": "537.11",
                "browser": "Chrome",
                "browser_version": "23.0.1271.97",
            },
        ),
        example("", gives=MISSING),
    ],
)
def useragent_map(x: Value) -> dict[str, str] | Missing:
    """Gives all features of a User-Agent as a map."""
    text = first(x)
    if not isinstance(text, str) or not text or len(text) > _LONGEST:
        return MISSING
    return dict(_features(text))


@lru_cache(maxsize=4_096)
def _features(text: str) -> tuple[tuple[str, str], ...]:
    sections = _sections(text)
    top = sections[0]
    engine, engine_version, browser, version = _browser(sections)
    platform, system, mobile = _system(top, engine)
    mobile = mobile or any(section.name == "Mobile" for section in sections)
    mozilla = top.version if top.name in {"Mozilla", "Dalvik"} else ""
    name = _bot_name(text, sections)
    if name is not None:
        browser, version = name
        engine = engine_version = system = platform = ""
    return tuple(
        {
            "bot": "false" if name is None else "true",
            "mobile": "true" if mobile else "false",
            "mozilla": "5.0" if top.name == "Dalvik" else mozilla,
            "platform": platform,
            "os": system,
            "engine": engine,
            "engine_version": engine_version,
            "browser": browser,
            "browser_version": version,
        }.items()
    )


def _sections(text: str) -> list[_Section]:
    sections: list[_Section] = []
    at = 0
    while at < len(text):
        product = _PRODUCT.match(text, at)
        name, version = (product[1], product[2] or "") if product else ("", "")
        after = product.end() if product else at
        comment: tuple[str, ...] = ()
        if after < len(text) and text[after] in "([":
            end = _closing(text, after)
            if text[after] == "(":
                comment = tuple(text[after + 1 : end].split("; "))
            after = end + 1
        elif after == at:
            after = at + 1
        while after < len(text) and text[after] == " ":
            after += 1
        if name or comment:
            sections.append(_Section(name, version, comment))
        at = after
    return sections or [_Section(text, "", ())]


def _closing(text: str, opening: int) -> int:
    """The place of the bracket that closes the one at `opening`, or the end of the text."""
    pair = {"(": ")", "[": "]"}[text[opening]]
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == text[opening]) - (text[at] == pair)
        if not depth:
            return at
    return len(text)


def _browser(sections: list[_Section]) -> tuple[str, str, str, str]:
    """Engine and its version, browser and its version."""
    top, *rest = sections
    if top.name == "Opera":
        return "Presto", rest[0].version if rest else "", "Opera", top.version
    if top.name == "Dalvik":
        return "", "", "", ""
    if not rest:
        return _old_explorer(top)
    engine, products = rest[0], rest[1:]
    if engine.name == "like" and products and products[0].name == "Gecko":
        version = next((part[3:] for part in top.comment if part.startswith("rv:")), "")
        return "Trident", "", "Internet Explorer", version
    if not products:
        return engine.name, engine.version, "" if top.name == "Mozilla" else top.name, ""
    # On some systems the engine's comment is followed by a word without a version.
    product = products[1] if not products[0].version and len(products) > 1 else products[0]
    if engine.name == "Gecko":
        named = products[2] if products[0].name == "MRA" and len(products) > 2 else products[0]
        return engine.name, engine.version, named.name, named.version or product.version
    if engine.name == "AppleWebKit":
        last = products[-1]
        if last.name == "Edge":
            return "EdgeHTML", "", "Edge", last.version
        if last.name in _CHROMIUM_KIN:
            return engine.name, engine.version, _CHROMIUM_KIN[last.name], last.version
        kin = next((each for each in products if each.name == "YaBrowser"), None)
        if kin is not None:
            return engine.name, engine.version, kin.name, kin.version
        return engine.name, engine.version, _WEBKIT.get(product.name, "Safari"), product.version
    return engine.name, engine.version, "", product.version


#: Browsers that call themselves Chrome first and say who they are in the last product.
_CHROMIUM_KIN = {"OPR": "Opera", "Edg": "Edge", "EdgA": "Edge", "EdgiOS": "Edge"}
_WEBKIT = {"Chrome": "Chrome", "CriOS": "Chrome", "Chromium": "Chromium", "FxiOS": "Firefox"}


def _old_explorer(top: _Section) -> tuple[str, str, str, str]:
    comment = top.comment
    if len(comment) < 2 or comment[0] != "compatible" or not comment[1].startswith("MSIE"):
        return "", "", "" if top.name == "Mozilla" else top.name, "" if top.name == "Mozilla" else top.version
    token = next((part[8:] for part in comment if part.startswith("Trident/")), "")
    return "Trident", "", "Internet Explorer", _VERSION_OF_IE.get(token) or comment[1][4:].strip()


def _system(top: _Section, engine: str) -> tuple[str, str, bool]:
    """Platform, system, and whether both tell of a mobile device."""
    comment = top.comment
    if not comment or top.name not in {"Mozilla", "Opera"}:
        return "", "", False
    if top.name == "Opera":
        if comment[0].startswith("Windows"):
            return "Windows", comment[0], False
        return comment[0], comment[1] if len(comment) > 1 else comment[0], comment[0].startswith("Android")
    if engine == "Trident":
        windows = next((part for part in comment if part.startswith("Windows")), "")
        return "Windows", windows, any(part.startswith("IEMobile") for part in comment)
    if comment[0] == "compatible":
        return "", "", False
    platform = next((name for name in ("Windows", "Symbian", "webOS") if comment[0].startswith(name)), comment[0])
    platform = "BlackBerry" if platform == "BB10" else platform
    if engine == "Gecko":
        return _gecko_system(platform, comment)
    if platform == "Linux":
        stated = comment[2:3] if comment[1:2] == ("U",) else comment[1:2]
        return platform, stated[0] if stated else "", bool(stated)
    if comment[0].startswith("Windows") and len(comment[0]) > len("Windows"):
        return platform, comment[0], False
    if platform == "Symbian":
        return platform, comment[0], True
    if platform == "webOS":
        return platform, "Palm", True
    if len(comment) < 2:
        return platform, "", False
    return platform, comment[1] if len(comment) < 3 else comment[2], False


def _gecko_system(platform: str, comment: tuple[str, ...]) -> tuple[str, str, bool]:
    if len(comment) < 2:
        return platform, comment[0] if platform == "Windows" else "", False
    if comment[1] == "U":
        return platform, comment[2] if len(comment) > 2 else comment[1], False
    if platform.startswith("Android"):
        return comment[1], comment[0], True
    if platform == "Windows":
        return platform, comment[0], False
    if len(comment) < 3:
        return platform, "FirefoxOS", True
    return platform, comment[1], False


def _bot_name(text: str, sections: list[_Section]) -> tuple[str, str] | None:
    """Name and version of a bot; None when it is none."""
    top = sections[0]
    if len(sections) == 1 and top.name != "Mozilla" and _BOT_WORD.search(top.name):
        return top.name, ""
    for section in sections:
        for place, part in enumerate(section.comment):
            if _SITE.search(part) is None:
                continue
            if place:  # the site stands behind the name: "Googlebot/2.1; +http://…"
                name, _, version = section.comment[place - 1].strip().partition("/")
                return name, version
            return section.name, section.version
    family = ua_parser.parse(text).device
    if family is not None and family.family == "Spider":
        agent = ua_parser.parse(text).user_agent
        name = agent.family if agent is not None else top.name
        return name, ".".join(filter(None, (agent.major, agent.minor))) if agent is not None else ""
    return None
