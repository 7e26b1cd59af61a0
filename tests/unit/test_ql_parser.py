"""The grammar of FACTS 2.1 and 3.1: what is read as what, and what is refused where."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.ql import parser
from streams.ql.errors import QueryError
from streams.ql.nodes import (
    Array,
    Between,
    Binary,
    Call,
    Conditional,
    Exists,
    Filter,
    Group,
    Ident,
    Include,
    IsNull,
    Literal,
    MatchAll,
    Node,
    Unary,
)
from streams.ql.parser import parse_expression, parse_filter, parse_filters, parse_queries, parse_query
from streams.ql.printer import print_filter, print_query
from streams.ql.tokens import RESERVED


def a(name: str = "a") -> Ident:
    return Ident((name,))


def one(value: str | float | None) -> Literal:
    return Literal(value)


def where(text: str) -> Node:
    return parse_filter(f"FILTER {text}").where


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        # precedence: OR < AND < NOT < comparison < + - < * / % < unary
        ("a OR b AND c", Group("or", (a(), Group("and", (a("b"), a("c")))))),
        ("a || b && c", Group("or", (a(), Group("and", (a("b"), a("c")))))),
        ("NOT a = 1 AND b", Group("and", (Unary("not", Binary("=", a(), one(1))), a("b")))),
        ("!a", Unary("not", a())),
        ("a + b * 2 > 3 - 1", Binary(">", Binary("+", a(), Binary("*", a("b"), one(2))), Binary("-", one(3), one(1)))),
        ("a - b - c", Binary("-", Binary("-", a(), a("b")), a("c"))),
        ("a % 2 = 0", Binary("=", Binary("%", a(), one(2)), one(0))),
        ("-a * 2", Binary("*", Unary("-", a()), one(2))),
        ("a > -5", Binary(">", a(), one(-5))),
        ("5-3", Binary("-", one(5), one(3))),
        ("(a OR b) AND c", Group("and", (Group("or", (a(), a("b"))), a("c")))),
        # operators
        ("a == 1", Binary("=", a(), one(1))),
        ("a <> 1", Binary("!=", a(), one(1))),
        ('a LIKE "x*"', Binary("like", a(), one("x*"))),
        ('a like ("x*", "y*")', Binary("like", a(), Array((one("x*"), one("y*"))))),
        ("a BETWEEN 1 AND 2 + 3 AND b", Group("and", (Between(a(), one(1), Binary("+", one(2), one(3))), a("b")))),
        ("a NOT BETWEEN 1 AND 2", Unary("not", Between(a(), one(1), one(2)))),
        ("NOT a BETWEEN 1 AND 2", Unary("not", Between(a(), one(1), one(2)))),
        ('a NOT IN ("x")', Unary("not", Binary("in", a(), Array((one("x"),))))),
        ('NOT a IN ("x")', Unary("not", Binary("in", a(), Array((one("x"),))))),
        ('a NOT LIKE "x"', Unary("not", Binary("like", a(), one("x")))),
        ('a NOT CONTAINS "x"', Unary("not", Binary("contains", a(), one("x")))),
        ('a NOT INTERSECTS ("x")', Unary("not", Binary("intersects", a(), Array((one("x"),))))),
        ("a IS NULL", IsNull(a())),
        ("a IS NOT NULL", Unary("not", IsNull(a()))),
        ("a != NULL", Binary("!=", a(), one(None))),
        ("EXISTS a AND b", Group("and", (Exists(a()), a("b")))),
        ("exists(a)", Exists(a())),
        ("NOT EXISTS a", Unary("not", Exists(a()))),
        # the right side of IN
        ('a IN ("x","y" 4.5)', Binary("in", a(), Array((one("x"), one("y"), one(4.5))))),
        ('a IN ["x"]', Binary("in", a(), Array((one("x"),)))),
        ("a IN (1, 2,)", Binary("in", a(), Array((one(1), one(2))))),
        ("a IN ()", Binary("in", a(), Array(()))),
        ("a IN b", Binary("in", a(), a("b"))),
        ('a IN "x"', Binary("in", a(), one("x"))),
        ('"x" IN hosts(a)', Binary("in", one("x"), Call("hosts", (a(),)))),
        ("a INTERSECTS [1]", Binary("intersects", a(), Array((one(1),)))),
        # groups
        (
            "AND ( a, b, OR ( c, d ), NOT e )",
            Group("and", (a(), a("b"), Group("or", (a("c"), a("d"))), Unary("not", a("e")))),
        ),
        ("AND ( a, b, )", Group("and", (a(), a("b")))),
        ("AND (a\nb\n\nc)", Group("and", (a(), a("b"), a("c")))),
        (
            "OR (\n a = 1\n NOT b\n EXISTS c\n INCLUDE d\n)",
            Group("or", (Binary("=", a(), one(1)), Unary("not", a("b")), Exists(a("c")), Include("d"))),
        ),
        ("AND ( a )", a()),
        ("NOT AND ( a = 1 )", Unary("not", Binary("=", a(), one(1)))),
        ("NOT OR ( a, b )", Unary("not", Group("or", (a(), a("b"))))),
        ("AND ( a, AND ( b, c ), d )", Group("and", (a(), a("b"), a("c"), a("d")))),
        ("a AND (b AND c)", Group("and", (a(), a("b"), a("c")))),
        ("and(not(or(a, b)))", Unary("not", Group("or", (a(), a("b"))))),
        # AND ( inside a group: a new item when it holds a list or begins a line, else the infix operator
        (
            "OR ( c, a = 1 AND ( b, d ) )",
            Group("or", (a("c"), Binary("=", a(), one(1)), Group("and", (a("b"), a("d"))))),
        ),
        (
            "OR ( c, a = 1 AND ( b OR d ) )",
            Group("or", (a("c"), Group("and", (Binary("=", a(), one(1)), Group("or", (a("b"), a("d"))))))),
        ),
        ("OR (\n a\n AND ( b OR d )\n)", Group("or", (a(), a("b"), a("d")))),
        ("OR (\n a\n AND b\n c\n)", Group("or", (Group("and", (a(), a("b"))), a("c")))),
        ("OR (\n a\n NOT IN (1)\n b\n)", Group("or", (Unary("not", Binary("in", a(), Array((one(1),)))), a("b")))),
        (
            "a = 1\n AND (\n b\n OR c\n OR (d)\n)",
            Group("and", (Binary("=", a(), one(1)), Group("or", (a("b"), a("c"), a("d"))))),
        ),
        ("AND (\n *\n a\n)", Group("and", (MatchAll(), a()))),
        ("AND ( *, a * 2 > 1 )", Group("and", (MatchAll(), Binary(">", Binary("*", a(), one(2)), one(1))))),
        ("*", MatchAll()),
        ("match_all", MatchAll()),
        # names
        ("`first name`", a("first name")),
        ("'first name'", a("first name")),
        ("`a``b`", a("a`b")),
        ("a.b-c@d._e", a("a.b-c@d._e")),
        ("@@whitelist", a("@@whitelist")),
        ("`a`.`b.c`", Ident(("a", "b.c"))),
        ("a.`b c`", Ident(("a", "b c"))),
        ("a.b.`c`", Ident(("a.b", "c"))),
        ("`a`.b.c", Ident(("a", "b.c"))),
        ("[a b].[c d]", Ident(("a b", "c d"))),
        ("a.'b c'", Ident(("a", "b c"))),
        ("a = `now`", Binary("=", a(), a("now"))),
        ("2fa = 1", Binary("=", a("2fa"), one(1))),
        # words of the grammar are names where the grammar cannot mean anything else
        (
            "kind = 1 AND capacity > 2",
            Group("and", (Binary("=", a("kind"), one(1)), Binary(">", a("capacity"), one(2)))),
        ),
        ("limit > 5", Binary(">", a("limit"), one(5))),
        (
            "AND (\n alias = 1\n from IN (2)\n)",
            Group("and", (Binary("=", a("alias"), one(1)), Binary("in", a("from"), Array((one(2),))))),
        ),
        ('filter(a, "x*")', Call("filter", (a(), one("x*")))),
        ('contains(a, "x")', Call("contains", (a(), one("x")))),
        # text and numbers
        (r'a = "5"" pipe"', Binary("=", a(), one('5" pipe'))),
        (r'a = "\"quoted\""', Binary("=", a(), one('"quoted"'))),
        (r'a = "\d+\\.x"', Binary("=", a(), one(r"\d+\\.x"))),
        (r'a = "ends\\"', Binary("=", a(), one("ends\\"))),
        ('a = "two\nlines"', Binary("=", a(), one("two\nlines"))),
        ('a = ""', Binary("=", a(), one(""))),
        ("a = 0x1F", Binary("=", a(), one(31))),
        ("a = 1e3", Binary("=", a(), one(1000.0))),
        ("a = 9223372036854775808", Binary("=", a(), one(9223372036854775808.0))),
        ("a = TRUE", Binary("=", a(), Literal(True))),
        # INCLUDE
        ("INCLUDE 3d4240482815b9848caf2e6f", Include("3d4240482815b9848caf2e6f")),
        ("INCLUDE 123e4", Include("123e4")),
        ("INCLUDE 2024-spring", Include("2024-spring")),
        ("INCLUDE `my audience` AND a", Group("and", (Include("my audience"), a()))),
        ("INCLUDE 'x y'", Include("x y")),
        ('NOT INCLUDE "x y"', Unary("not", Include("x y"))),
        ("INCLUDE [x y]", Include("x y")),
        # comments, anywhere between tokens
        ("a -- one\n = // two\n # three\n /* four */ 1", Binary("=", a(), one(1))),
        ("a--b", a()),
        # calls
        ("tostring ( a )", Call("tostring", (a(),))),
        ("HASH.SHA256(a)", Call("hash.sha256", (a(),))),
        ("cast(a AS int) > 1", Binary(">", Call("cast", (a(), one("int"))), one(1))),
        ('cast(a, "int")', Call("cast", (a(), one("int")))),
        ("cast(a AS []string)", Call("cast", (a(), one("[]string")))),
    ],
)
def test_a_condition_is_read_as(text: str, tree: Node) -> None:
    assert where(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("exists(a)", Call("exists", (a(),))),
        ("EXISTS a", Exists(a())),
        ("a IF b ELSE c", Conditional(a(), a("b"), a("c"))),
        (
            "a IF b = 1 ELSE c IF d ELSE e",
            Conditional(a(), Binary("=", a("b"), one(1)), Conditional(a("c"), a("d"), a("e"))),
        ),
        ("a IF b", Conditional(a(), a("b"))),
        ("oneof(a IF b ELSE c, d)", Call("oneof", (Conditional(a(), a("b"), a("c")), a("d")))),
        ("ifcase(1 IF a, 2 IF b, 3)", Call("ifcase", (Conditional(one(1), a()), Conditional(one(2), a("b")), one(3)))),
        ("if(a, 1, 2)", Call("if", (a(), one(1), one(2)))),
        ('["a", 5]', Array((one("a"), one(5)))),
        ("not(a)", Unary("not", a())),
        ("and(a, b)", Group("and", (a(), a("b")))),
        ("true", Literal(True)),
    ],
)
def test_an_expression_is_read_as(text: str, tree: Node) -> None:
    assert parse_expression(text) == tree


def test_a_whole_filter() -> None:
    statement = parse_filter(
        """
        -- People who came back.
        /* Twice at
         * least. */
        FILTER visits > 1 -- not this
        FROM content LIMIT 100 WITH name = "My Pony", public = false, rate = -1.5, tags = ["a", 2], kind = aspect
        ALIAS `Came BACK`;
        """
    )

    assert statement == Filter(
        Binary(">", a("visits"), one(1)),
        table="content",
        limit=100,
        options=(("name", "My Pony"), ("public", False), ("rate", -1.5), ("tags", ("a", 2)), ("kind", "aspect")),
        alias="came back",
    )
    assert statement.description == "People who came back.\nTwice at\nleast."


def test_defaults_of_a_filter() -> None:
    assert parse_filter("filter *") == Filter(MatchAll(), "user", None, (), None)


def test_options_as_json_are_flattened() -> None:
    statement = parse_filter('FILTER * WITH {"a": {"b": [1, "x"]}, "url": "http://x//y", "c": null} ALIAS z')

    assert statement.options == (("a.b", (1, "x")), ("url", "http://x//y"))
    assert statement.alias == "z"


def test_the_select_form_of_a_filter() -> None:
    statement = parse_filter(
        "SELECT *, email IF a > 1, domain(url) AS d FROM user.changes "
        'FILTER OR ( entered("x"), exited("x") ) WITH backfill=true;'
    )

    assert [column.name for column in statement.columns] == ["*", "email", "d"]
    assert statement.columns[1].guard == Binary(">", a(), one(1))
    assert statement.table == "user.changes"
    assert statement.options == (("backfill", True),)
    assert parse_filter(print_filter(statement)) == statement


def test_where_is_filter_in_the_select_form() -> None:
    assert parse_filter("SELECT a FROM t WHERE b") == parse_filter("SELECT a FROM t FILTER b")


def test_statements_are_separated_by_semicolons() -> None:
    found = parse_filters("; FILTER a; -- second\n FILTER b ALIAS b;;")

    assert [statement.where for statement in found] == [a(), a("b")]
    assert [statement.description for statement in found] == ["", "second"]
    assert parse_filters("") == []


QUERY = """
-- Visits of the web tag.
SELECT
    email(email)            AS email       SHORTDESC "E-mail" LONGDESC "as ""sent"" on" KIND string,
    user_id,
    set(domain(_ref))       AS domains     IF exists(_ref) KIND []string MERGEOP merge CAPACITY 50 KEEP_DAYS 30,
    count(_e)               AS visits      KIND int MERGEOP sum,
    map(`page type`, 1)     AS pages       KIND map[string]intsum,
    "vip" IF total > 100 ELSE "normal" AS tier IF total != NULL,
    todate(ts),             -- named by its source
FROM web INTO user BY email OR user_id
WHERE _uabot != "t" AND NOT (path LIKE "/admin*")
ALIAS web_visits
"""


def test_a_whole_query() -> None:
    query = parse_query(QUERY)

    assert (query.stream, query.table, query.by, query.alias) == ("web", "user", ("email", "user_id"), "web_visits")
    assert query.description == "Visits of the web tag."
    names = ["email", "user_id", "domains", "visits", "pages", "tier", "ts"]
    assert [column.name for column in query.columns] == names
    email, _, domains, visits, pages, tier, _ = query.columns
    assert (email.shortdesc, email.longdesc, email.kind) == ("E-mail", 'as "sent" on', "string")
    assert (domains.kind, domains.merge_op, domains.capacity, domains.keep_days) == ("[]string", "merge", 50, 30)
    assert domains.guard == Call("exists", (a("_ref"),))
    assert (visits.kind, visits.merge_op) == ("int", "sum")
    assert pages.kind == "map[string]intsum"
    assert tier.expr == Conditional(one("vip"), Binary(">", a("total"), one(100)), one("normal"))
    assert tier.guard == Binary("!=", a("total"), one(None))
    assert QUERY[email.at :].startswith("email(email)")
    assert [QUERY[at : at + 5] for at in query.by_at] == ["email", "user_"]
    assert parse_query(print_query(query)) == query


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("INT", "int"),
        ("[]string", "[]string"),
        ("[] string", "[]string"),
        ("ts[]string", "ts[]string"),
        ("MAP[string]INTSUM", "map[string]intsum"),
        ('"map[string]time"', "map[string]time"),
        ("`[]time`", "[]time"),
    ],
)
def test_kinds_are_written_bare_or_quoted(kind: str, read: str) -> None:
    query = parse_query(f"SELECT a AS b KIND {kind} MERGEOP latest, c FROM s INTO user BY c ALIAS q")

    assert (query.columns[0].kind, query.columns[0].merge_op) == (read, "latest")


def test_a_column_without_as_is_named_by_the_first_name_in_it() -> None:
    query = parse_query("SELECT a.b, oneof(c, d), `e`.`f g`, g IF h FROM s INTO user BY g ALIAS q")

    assert [column.name for column in query.columns] == ["a.b", "c", "e.f g", "g"]


def test_clauses_of_a_query_come_in_any_order() -> None:
    one_way = parse_query("SELECT a FROM s INTO user BY a WHERE b ALIAS q")
    other = parse_query("SELECT a FROM s WHERE b ALIAS q BY a INTO user")

    assert one_way == other


def test_words_of_the_grammar_as_columns() -> None:
    query = parse_query("SELECT kind, from, limit AS `limit`, alias AS x KIND int FROM s INTO user BY kind ALIAS q")

    assert [column.name for column in query.columns] == ["kind", "from", "limit", "x"]


# Where errors stand: line, column, part of the message, part of the hint.
@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("", 1, 1, "found nothing", ""),
        ("a > 5", 1, 1, "expected FILTER or SELECT", "FILTER <condition>"),
        ("FILTER", 1, 7, "a condition behind FILTER", "* matches everybody"),
        ("FILTER FROM user", 1, 8, "found FROM", "`from`"),
        ("FILTER a =", 1, 11, "the end of the text", ""),
        ("FILTER a = = 1", 1, 12, "expected a value, found =", ""),
        ("FILTER a = 1 b", 1, 14, "found b", "AND"),
        ("FILTER a = 1 = 2", 1, 14, "compared again", "AND"),
        ('FILTER a\n  INTERSECTS "x"', 2, 14, "a list behind INTERSECTS", "INTERSECTS ("),
        ("FILTER a INTERSECTS false", 1, 21, "a list behind INTERSECTS", ""),
        ("FILTER a IN 5", 1, 13, "a list behind IN", "IN ("),
        ("FILTER a = (1, 2)", 1, 12, "not with a list", "IN"),
        ("FILTER (a, b)", 1, 8, "a list cannot stand here", "AND ("),
        ("FILTER a OR (b, c)", 1, 13, "a list cannot stand here", "OR ("),
        ("FILTER a IS 5", 1, 13, "NULL behind IS", "="),
        ("FILTER a BETWEEN 1, 2", 1, 19, "AND between the two bounds", ""),
        ("FILTER AND (a, b", 1, 12, "never closed", "add )"),
        ("FILTER AND (a, b = (1 FROM user", 1, 20, "never closed", ""),
        ("FILTER AND (a, b FROM user", 1, 12, "never closed", ""),
        ("FILTER AND ()", 1, 8, "empty AND group", ""),
        ("FILTER AND a", 1, 12, "( behind AND", ""),
        ("FILTER AND (a b)", 1, 15, "a comma, a new line or )", ""),
        ('FILTER a = "x', 1, 12, "never closed", ""),
        ("FILTER `a = 1", 1, 8, "a name in backticks that is never closed", ""),
        ("FILTER `` = 1", 1, 8, "an empty name", ""),
        ("FILTER a /* b", 1, 10, "a comment that is never closed", ""),
        ("FILTER a = ~b", 1, 12, "'~' cannot stand here", ""),
        ("FILTER a. = 1", 1, 8, "ends with a dot", ""),
        ("FILTER 1.2.3 = a", 1, 8, "neither a number nor a name", ""),
        ("FILTER a = 1e999", 1, 12, "beyond the range", ""),
        ("FILTER a IN (b, *)", 1, 17, "* is a condition", ""),
        ("FILTER a LIMIT x", 1, 16, "a whole number", ""),
        ("FILTER a LIMIT 1.5", 1, 16, "a whole number", ""),
        ("FILTER * FROM user ALIAS ALIAS stuff", 1, 26, "a name behind ALIAS", "backticks"),
        ("FILTER a ALIAS b LIMIT 4", 1, 18, "LIMIT cannot stand here", "FROM … LIMIT … WITH … ALIAS"),
        ("FILTER a LIMIT 4 LIMIT 5", 1, 18, "LIMIT cannot stand here", ""),
        ("FILTER a WITH b", 1, 16, "= and a value", ""),
        ("FILTER a WITH b = c()", 1, 20, "found (", ""),
        ('FILTER a WITH {"b": }', 1, 21, "not JSON", ""),
        ('FILTER a WITH {"b": NaN}', 1, 15, "not JSON", ""),
        ("FILTER tostrin(a)", 1, 8, "no function tostrin", "did you mean tostring?"),
        ("FILTER tostring(a, b)", 1, 8, "tostring() takes 1 argument, not 2", "tostring("),
        ("FILTER cast(a AS nonsense)", 1, 18, "cast needs a type", "int"),
        ("FILTER cast(a)", 1, 14, "AS and a type", ""),
        ("FILTER todatein(a, 'Europe/Berlin') > \"now\"", 1, 20, "must be a constant", '"Europe/Berlin"'),
        ('FILTER todatein(a, "Mars/Base") > "now"', 1, 20, "", ""),
        ("FILTER ifcase(a, b IF c, d) = 1", 1, 15, "needs an IF", "ifcase("),
        ('FILTER entered("x")', 1, 8, "no function entered", ""),
        ("FILTER a; FILTER b", 1, 1, "expected one statement, found 2", ""),
    ],
)
def test_a_filter_is_refused_at(text: str, line: int, column: int, message: str, hint: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter(text)

    first = caught.value.diagnostics[0]
    assert (line, column) == (first.line, first.column)
    assert message in first.message
    assert hint in first.hint


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("FILTER a", 1, 1, "expected SELECT"),
        ("SELECT a", 1, 1, "lacks FROM and INTO and BY and ALIAS"),
        ("SELECT a FROM b INTO user BY a", 1, 1, "lacks ALIAS"),
        ("SELECT * FROM b INTO user BY a ALIAS c", 1, 8, "names its columns"),
        ("SELECT 5 FROM b INTO user BY a ALIAS c", 1, 8, "needs a name"),
        ("SELECT a\n b FROM s INTO user BY a ALIAS c", 2, 2, "a comma or FROM"),
        ("SELECT a AS b AS c FROM s INTO user BY a ALIAS c", 1, 15, "second time"),
        ("SELECT a IF b IF c FROM s INTO user BY a ALIAS c", 1, 15, "second time"),
        ("SELECT a AS b IF c ELSE d FROM s INTO user BY a ALIAS c", 1, 20, "the end of the column"),
        ("SELECT a KIND int KIND int FROM s INTO user BY a ALIAS c", 1, 19, "second time"),
        ("SELECT a SHORTDESC b FROM s INTO user BY a ALIAS c", 1, 20, "a text in double quotes"),
        ("SELECT a CAPACITY b FROM s INTO user BY a ALIAS c", 1, 19, "a whole number"),
        ("SELECT a FROM s INTO user BY a, b ALIAS c", 1, 31, "OR between identity columns"),
        ("SELECT a FROM s FROM t INTO user BY a ALIAS c", 1, 17, "second time"),
        ("SELECT a FROM s INTO user BY a LIMIT 5 ALIAS c", 1, 32, "the end of the statement"),
    ],
)
def test_a_query_is_refused_at(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(text)

    first = caught.value.diagnostics[0]
    assert (line, column) == (first.line, first.column)
    assert message in first.message


def places(error: QueryError) -> list[tuple[int, int]]:
    return [(each.line, each.column) for each in error.diagnostics]


def test_all_errors_of_a_group_are_found_at_once() -> None:
    text = """FILTER AND (
        a = = 1
        b > 5
        c NOT FOO
        OR ( d IN 5, tostrin(e), f )
        toint() = 1
        g BETWEEN 1 5
    ) ALIAS x"""

    with pytest.raises(QueryError) as caught:
        parse_filter(text)

    assert places(caught.value) == [(2, 13), (4, 11), (5, 19), (5, 22), (6, 9), (7, 21)]


def test_all_errors_of_a_query_are_found_at_once() -> None:
    text = """SELECT
        a AS b c,
        tostring() AS d,
        e AS , f KIND [, g
        FROM s INTO user ALIAS q"""

    with pytest.raises(QueryError) as caught:
        parse_query(text)

    assert places(caught.value) == [(1, 1), (2, 16), (3, 9), (4, 14), (4, 23)]


def test_all_statements_are_read_before_any_is_refused() -> None:
    with pytest.raises(QueryError) as caught:
        parse_queries("SELECT ; SELECT a FROM s INTO user BY a ALIAS q; SELECT b + FROM t")

    assert [column for _, column in places(caught.value)] == [8, 50, 61]


def test_a_long_list_of_errors_is_cut() -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter("FILTER AND (" + "\na = =" * 1000 + ")")

    assert len(caught.value.diagnostics) == 50


def test_a_diagnostic_shows_the_line_the_caret_and_the_hint() -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter("FILTER AND (\n\ttostrin(email)\n)")

    assert str(caught.value) == (
        "line 2, column 2: there is no function tostrin\n   tostrin(email)\n   ^\n  did you mean tostring?"
    )


def test_of_a_very_long_line_only_the_part_around_the_place_is_shown() -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter("FILTER a IN (" + "1, " * 5000 + "~)")

    shown = str(caught.value).splitlines()
    assert len(shown[1]) < 130
    assert shown[1][shown[2].index("^")] == "~"


def test_limits_of_size() -> None:
    with pytest.raises(QueryError, match="longer than"):
        parse_filter("FILTER " + "a" * 102_400)
    with pytest.raises(QueryError, match="longer than"):
        parse_filter('FILTER a = "' + "ü" * 60_000 + '"')
    with pytest.raises(QueryError, match="more than 20000 parts"):
        parse_filter("FILTER a IN (" + "1 " * 20_001 + ")")
    with pytest.raises(QueryError, match="nested too deeply"):
        parse_filter("FILTER " + "1+" * 100 + "1")

    assert isinstance(where("NOT " * 99 + "a"), Unary)
    assert len(where("a AND " * 10_000 + "a").items) == 10_001


def test_the_readme_names_every_word_of_the_grammar() -> None:
    readme = Path(parser.__file__).with_name("README.md").read_text()
    grammar = readme[readme.index("## The grammar") : readme.index("## What surprises in the text")].lower()

    assert [word for word in sorted(RESERVED) if word not in grammar] == []
