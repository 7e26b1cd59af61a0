"""What a User-Agent says of the browser, read as mssola's library reads it.

The text is products ("Chrome/23.0") with comments in parentheses; platform and system stand in the first comment and
are given as written there. A bot is who says where it is described, or whose only product is named like one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from streams.ql.coerce import first
from streams.ql.functions.registry import example, function
from streams.ql.missing import MISSING, Missing, Value

_LONGEST = 2_000
_PRODUCT = re.compile(r"([^\s/(\[]*)(?:/(\S*))?\s*")
_BOT_WORD = re.compile(r"bot|crawler|sp[iy]der|search|worm|fetch|nutch", re.IGNORECASE)
_SITE = re.compile(r"https?://.+\.\w+")
_VERSION_OF_IE = {"4.0": "8.0", "5.0": "9.0", "6.0": "10.0"}
_FEATURES = (
    "bot", "mobile", "mozilla", "platform", "os", "engine", "engine_version", "browser", "browser_version",
)  # fmt: skip
#: What stands in the system's place where it is the next: "Linux; U; Android 1.5".
_NO_SYSTEM = frozenset({"U", "arm_64"})
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
    found = dict.fromkeys(_FEATURES, "")
    found["mozilla"] = top.version if top.name == "Mozilla" else ""
    mobile = any(section.name == "Mobile" for section in sections)
    if top.name == "Opera":
        mobile |= _opera(sections, found)
    elif top.name == "Dalvik":  # Android's own machine: no browser, but it speaks as Mozilla 5.0
        found["mozilla"] = "5.0"
        mobile |= _dalvik(top.comment, found)
    elif top.name == "okhttp":
        mobile = True
        found.update(browser="OkHttp", browser_version=top.version)
    else:
        if top.name == "Mozilla":
            mobile |= _mozilla(sections, found)
        else:
            _products(sections, found)
        if top.name != "Mozilla" or not found["engine"]:  # weird: it is what it says first
            found.update(browser=top.name, browser_version=top.version, mozilla="")
    name = _bot_name(text, sections)
    if name is not None:
        found.update(dict.fromkeys(("platform", "os", "engine", "engine_version"), ""))
        found.update(browser=name[0], browser_version=name[1], mozilla=top.version if top.name == "Mozilla" else "")
    found["bot"] = "false" if name is None else "true"
    found["mobile"] = "true" if mobile else "false"
    return tuple(found.items())


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
    return sections or [_Section("", "", ())]


def _closing(text: str, opening: int) -> int:
    """The place of the bracket that closes the one at `opening`, or the end of the text."""
    pair = {"(": ")", "[": "]"}[text[opening]]
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == text[opening]) - (text[at] == pair)
        if not depth:
            return at
    return len(text)


def _opera(sections: list[_Section], found: dict[str, str]) -> bool:
    """Fills in what Opera says of itself; gives whether it runs on a mobile device."""
    top, *rest = sections
    found.update(browser="Opera", browser_version=top.version, engine="Presto")
    found["engine_version"] = rest[0].version if rest else ""
    if not top.comment:
        return False
    first, *others = top.comment
    if first.startswith("Windows"):
        found.update(platform="Windows", os=first)
        return False
    found.update(platform=first, os=others[0] if others else first)
    return first.startswith("Android")


def _dalvik(comment: tuple[str, ...], found: dict[str, str]) -> bool:
    if not comment or not comment[0].startswith("Linux"):
        return False
    found.update(platform=comment[0], os=comment[2] if len(comment) > 2 else "")
    return True


def _mozilla(sections: list[_Section], found: dict[str, str]) -> bool:
    """Fills in what a browser says that speaks as Mozilla does; gives whether it runs on a mobile device."""
    comment = sections[0].comment
    _products(sections, found)
    if comment and comment[0] != "compatible":
        known = (name for name in ("Windows", "Symbian", "webOS") if comment[0].startswith(name))
        found["platform"] = "BlackBerry" if comment[0] == "BB10" else next(known, comment[0])
    if found["platform"] == "Windows":
        found["os"] = comment[0]
    match found["engine"]:
        case "Trident":
            found["platform"] = "Windows"
            found["os"] = found["os"] or (comment[2] if len(comment) > 2 else "Windows NT 4.0")
            return any(part.startswith("IEMobile") for part in comment)
        case "Gecko":
            return _gecko(comment, found)
        case "AppleWebKit":
            return _webkit(comment, found)
    return False


def _products(sections: list[_Section], found: dict[str, str]) -> None:
    """Fills in engine and browser by the products that follow the first."""
    top, *rest = sections
    if not rest:
        if len(top.comment) > 1 and top.comment[0] == "compatible" and top.comment[1].startswith("MSIE"):
            token = next((part[8:] for part in top.comment if part.startswith("Trident/")), "")
            found.update(engine="Trident", browser="Internet Explorer")
            found["browser_version"] = _VERSION_OF_IE.get(token) or top.comment[1][4:].strip()
        return
    engine, *products = rest
    found.update(engine=engine.name, engine_version=engine.version)
    if not products:
        return
    # On some systems the engine's comment is followed by a word without a version.
    product = products[1] if not products[0].version and len(products) > 1 else products[0]
    found["browser_version"] = product.version
    if engine.name == "AppleWebKit":
        name, version = _webkit_browser(sections, product)
        found.update(browser=name, browser_version=version)
        if name == "Edge" and sections[-1].name == "Edge":
            found.update(engine="EdgeHTML", engine_version="")
    elif engine.name == "Gecko":
        named = products[2] if products[0].name == "MRA" and len(products) > 2 else products[0]
        found.update(browser=named.name, browser_version=named.version or product.version)
    elif engine.name == "like" and products[0].name == "Gecko":
        version = next((part[3:] for part in top.comment if part.startswith("rv:")), "")
        found.update(engine="Trident", engine_version="", browser="Internet Explorer", browser_version=version)


def _webkit_browser(sections: list[_Section], product: _Section) -> tuple[str, str]:
    """Name and version: most call themselves Chrome or Safari, and say who they are in one of the last products."""
    last = sections[-1]
    if last.name == "Mobile":
        return "Mobile App", ""
    for place, names in ((-1, _LAST), (-3, _THIRD_TO_LAST), (-2, _SECOND_TO_LAST)):
        if sections[place].name in names:
            return names[sections[place].name], sections[place].version
    return _WEBKIT.get(product.name, "Safari"), product.version


_LAST = {"Edge": "Edge", "Edg": "Edge", "OPR": "Opera"}
_SECOND_TO_LAST = {"Electron": "Electron", "DuckDuckGo": "DuckDuckGo", "PhantomJS": "PhantomJS"}
_THIRD_TO_LAST = {"YaBrowser": "YaBrowser", "coc_coc_browser": "Coc Coc"}
_WEBKIT = {
    "Chrome": "Chrome",
    "CriOS": "Chrome",
    "HeadlessChrome": "Headless Chrome",
    "Chromium": "Chromium",
    "GSA": "Google App",
    "FxiOS": "Firefox",
}


def _gecko(comment: tuple[str, ...], found: dict[str, str]) -> bool:
    if len(comment) < 2:
        return False
    if comment[1] in _NO_SYSTEM:
        found["os"] = comment[2] if len(comment) > 2 else comment[1]
    elif "Android" in found["platform"]:
        found.update(platform=comment[1], os=found["platform"])
        return True
    elif comment[0] in {"Mobile", "Tablet"}:
        found["os"] = "FirefoxOS"
        return True
    else:
        found["os"] = found["os"] or comment[1]
    return False


def _webkit(comment: tuple[str, ...], found: dict[str, str]) -> bool:
    match found["platform"]:
        case "webOS":
            found.update(browser="webOS", os="Palm")
            return True
        case "Symbian":
            found.update(browser="Symbian", os=comment[0])
            return True
        case "Linux":
            if found["browser"] == "Safari":
                found["browser"] = "Android"
            stated = comment[2:3] if comment[1:2] and comment[1] in _NO_SYSTEM else comment[1:2]
            found["os"] = stated[0] if stated else comment[0] if len(comment) > 1 else ""
            return bool(stated) or len(comment) == 1
        case "BlackBerry":
            found["browser"] = "BlackBerry"
    if len(comment) > 1 and not comment[0].startswith(("Windows NT", "Windows Phone")):
        found["os"] = comment[1] if len(comment) < 3 else comment[2]
    if found["platform"] == "BlackBerry" and found["os"] == "Touch":
        found["os"] = "BlackBerry"
    if found["platform"] == "Macintosh" and found["browser"] == "Firefox":  # Firefox on an iPad says so
        found["platform"] = "iPad"
        return True
    return False


def _bot_name(text: str, sections: list[_Section]) -> tuple[str, str] | None:
    """Name and version of a bot; None when it is none."""
    top = sections[0]
    if len(sections) == 1 and top.name != "Mozilla" and _BOT_WORD.search(top.name):
        return top.name, ""
    if "facebookexternalhit" in text and "Twitterbot" in text:
        return "iMessage-Preview", ""
    for section in sections:
        for place, part in enumerate(section.comment):
            if _SITE.search(part) is None:
                continue
            if place:  # the site stands behind the name: "Googlebot/2.1; +http://…"
                name, _, version = section.comment[place - 1].strip().partition("/")
                return name, version
            return section.name, section.version
    return None
