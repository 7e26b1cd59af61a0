"""Text to tokens, by one regular expression without backtracking across tokens."""

from __future__ import annotations

import re
from math import isinf

from streams.ql.tokens import Token, TokenKind

_MAX_INT = 2**63 - 1

# Possessive quantifiers keep every pattern linear. In a string, a quote is escaped by `""` or `\"`; backslashes
# mean themselves unless a quote follows them (then two stand for one), so that patterns need no doubling. No name is
# empty, so that '' is empty text.
_TOKEN = re.compile(
    r"""
      (?P<skip>   (?: [^\S\n]++ | \n | --[^\n]*+ | //[^\n]*+ | \#[^\n]*+ | /\*(?:[^*]++|\*(?!/))*+\*/ )++ )
    | (?P<number> (?: 0[xX][0-9a-fA-F]++ | [0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)? )(?![\w@.]) )
    | (?P<word>   (?: [^\W] | @ ) (?: [\w.@] | -(?=[\w.@]) )*+ )
    | (?P<string> "(?: [^"\\]++ | "" | (?:\\\\)*+\\" | (?:\\\\)++(?=") | \\++(?!") )*+" | ''(?!') )
    | (?P<quoted> `(?:[^`]|``)++` | '(?:[^']|'')++' )
    | (?P<symbol> == | != | <> | >= | <= | && | \|\| | /(?!\*) | [-=<>!+*%(),;\[\]{}.:] )
    """,
    re.VERBOSE,
)
_SAME = {"==": "=", "<>": "!=", "&&": "and", "||": "or", "!": "not"}
_ESCAPED = re.compile(r'(?<!\\)((?:\\\\)*+)(?:\\"|""|\Z)')
_TO_ESCAPE = re.compile(r'(?<!\\)(\\*+)("|\Z)')


def tokenize(source: str) -> tuple[list[Token], list[tuple[int, int]]]:
    """Gives the tokens, the last of them END, and the spans of what was skipped (white space and comments).

    Never raises: what is no token comes as BAD, and lexing goes on behind it.
    """
    tokens: list[Token] = []
    skipped: list[tuple[int, int]] = []
    add = tokens.append
    match = _TOKEN.match
    at, end, fresh = 0, len(source), True
    while at < end:
        found = match(source, at)
        if found is None:
            token = _bad(source, at, fresh)
            add(token)
            at, fresh = token.end, False
            continue
        stop = found.end()
        group = found.lastgroup
        if group == "skip":
            skipped.append((at, stop))
            fresh = fresh or "\n" in found.group()
            at = stop
            continue
        text = found.group()
        if group == "word":
            add(Token(TokenKind.WORD, text.lower(), text, at, stop, fresh))
        elif group == "symbol":
            add(Token(TokenKind.SYMBOL, _SAME.get(text, text), text, at, stop, fresh))
        elif group == "string":
            add(Token(TokenKind.STRING, "", unescape(text[1:-1]), at, stop, fresh))
        elif group == "number":
            add(_number(text, at, stop, fresh))
        else:
            quote = text[0]
            add(Token(TokenKind.QUOTED, "", text[1:-1].replace(quote * 2, quote), at, stop, fresh))
        at, fresh = stop, False
    add(Token(TokenKind.END, "", "", end, end, fresh))
    return tokens, skipped


def unescape(body: str) -> str:
    """Reads the inside of a string as written."""
    if "\\" not in body and '""' not in body:
        return body
    return _ESCAPED.sub(_unescaped, body)


def escape(text: str) -> str:
    """Writes text as the inside of a string; `unescape` gives it back."""
    if '"' not in text and not text.endswith("\\"):
        return text
    return _TO_ESCAPE.sub(lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text)


def _unescaped(found: re.Match[str]) -> str:
    # Before a quote (or the end) two backslashes are one; an odd one escapes the quote.
    quote = '"' if found.group().endswith('"') else ""
    return "\\" * (len(found[1]) // 2) + quote


def _number(text: str, at: int, stop: int, fresh: bool) -> Token:  # noqa: FBT001 (a part of the token)
    value: int | float
    if text[:2] in {"0x", "0X"}:
        value = int(text, 16)
    elif text.isdigit() and len(text) <= 19:
        value = int(text)
    else:
        value = float(text)
    if isinstance(value, int) and value > _MAX_INT:
        value = float(value) if len(text) < 200 else float("inf")
    if isinf(value):
        return Token(TokenKind.BAD, "", "a number beyond the range of 64 bits", at, stop, fresh)
    return Token(TokenKind.NUMBER, "", value, at, stop, fresh)


def _bad(source: str, at: int, fresh: bool) -> Token:  # noqa: FBT001 (a part of the token)
    char = source[at]
    what = {'"': "a string", "`": "a name in backticks", "'": "a name in single quotes", "/": "a comment"}.get(char)
    if what is None:
        return Token(TokenKind.BAD, "", f"{char!r} cannot stand here", at, at + 1, fresh)
    if char in "`'" and source[at + 1 : at + 2] == char:
        return Token(TokenKind.BAD, "", "an empty name", at, at + 2, fresh)
    # Read on at the next line: the rest of the text is worth checking too.
    line_end = source.find("\n", at)
    stop = line_end if line_end >= 0 else len(source)
    return Token(TokenKind.BAD, "", f"{what} that is never closed", at, stop, fresh)
