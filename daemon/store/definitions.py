"""Queries, audiences and rules as stored; the rules about them stand in `daemon.ingest.definitions`."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

QUERIES = "SELECT alias, text, version, created_us, updated_us FROM query ORDER BY created_us, alias"
SAVE_QUERY = """INSERT INTO query (alias, text, version, created_us, updated_us) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (alias) DO UPDATE SET text = excluded.text, version = excluded.version,
        updated_us = excluded.updated_us"""
DELETE_QUERY = "DELETE FROM query WHERE alias = ?"

AUDIENCES = """SELECT number, id, slug, name, description, text, version, created_us, updated_us FROM audience
    WHERE deleted_us IS NULL ORDER BY number"""
SAVE_AUDIENCE = """INSERT INTO audience (number, id, slug, name, description, text, version, created_us, updated_us,
        evaluated_to) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
    ON CONFLICT (number) DO UPDATE SET name = excluded.name, description = excluded.description,
        text = excluded.text, version = excluded.version, updated_us = excluded.updated_us, evaluated_to = 0"""
DESCRIBE_AUDIENCE = "UPDATE audience SET name = ?, description = ?, updated_us = ? WHERE number = ?"
DELETE_AUDIENCE = """UPDATE audience SET deleted_us = ?, slug = 'deleted ' || id, size = 0, evaluated_to = 0
    WHERE number = ?"""
DROP_AUDIENCE = "DELETE FROM audience WHERE number = ?"
REEVALUATE = """UPDATE audience SET evaluated_to = 0, evaluated_for = ?
    WHERE number IN (SELECT value FROM json_each(?))"""
PASSES = """SELECT number, evaluated_to, deleted_us IS NOT NULL, evaluated_for,
        (SELECT kind FROM history WHERE sequence = evaluated_for) = 'rebuilt'
    FROM audience WHERE evaluated_to IS NOT NULL ORDER BY evaluated_to, number"""
#: Jobs that are done with an audience do not hold it; all others do.
HELD_BY = """SELECT j.id FROM job j LEFT JOIN subscription s ON s.job_id = j.id
    WHERE j.state <> 'completed' AND (?1 IN (SELECT value FROM json_each(s.audiences))
        OR (SELECT slug FROM audience WHERE number = ?1) IN (SELECT value FROM json_each(j.config, '$.audiences')))
    ORDER BY j.id"""

RULES = """SELECT id, name, priority, input, output, expression, active, created_us, updated_us FROM rule
    ORDER BY priority DESC, id DESC"""
SAVE_RULE = """INSERT INTO rule (id, name, priority, input, output, expression, active, created_us, updated_us)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, priority = excluded.priority, input = excluded.input,
        output = excluded.output, expression = excluded.expression, active = excluded.active,
        updated_us = excluded.updated_us"""
DELETE_RULE = "DELETE FROM rule WHERE id = ?"


class QueryRow(NamedTuple):
    """A stored query; times in microseconds since the epoch."""

    alias: str
    text: str
    version: int
    created_us: int
    updated_us: int


class AudienceRow(NamedTuple):
    """A stored audience; `id` is what clients see, `number` what the tables use."""

    number: int
    id: str
    slug: str
    name: str
    description: str
    text: str
    version: int
    created_us: int
    updated_us: int


class RuleRow(NamedTuple):
    """A stored routing rule. Higher priority first, the newest first among equals."""

    id: int
    name: str
    priority: int
    input: str
    output: str
    expression: str
    active: bool
    created_us: int
    updated_us: int


class Pass(NamedTuple):
    """A background pass under way: profiles up to the id `evaluated_to` are done.

    `decision` is the number of that decision in the history which began it, where known; `replay` says that this was
    the end of applying a query to the past.
    """

    audience: int
    evaluated_to: int
    deleted: bool
    decision: int | None = None
    replay: bool = False


class AudienceStatus(NamedTuple):
    """What of an audience changes by itself; `evaluated_to` is None when no background pass is under way."""

    number: int
    size: int
    evaluated_to: int | None


def queries(db: sqlite3.Connection) -> list[QueryRow]:
    """Gives all queries in the order of their making, which ranks their identities."""
    return [QueryRow(*row) for row in db.execute(QUERIES).fetchall()]


def audiences(db: sqlite3.Connection) -> list[AudienceRow]:
    """Gives all audiences that are not deleted, in the order of their making."""
    return [AudienceRow(*row) for row in db.execute(AUDIENCES).fetchall()]


def rules(db: sqlite3.Connection) -> list[RuleRow]:
    """Gives all routing rules in the order in which they are tried."""
    return [RuleRow(*row)._replace(active=bool(row[6])) for row in db.execute(RULES).fetchall()]


def passes(db: sqlite3.Connection) -> list[Pass]:
    """Gives the background passes under way, the least advanced first."""
    rows = db.execute(PASSES).fetchall()
    return [Pass(number, to, bool(deleted), decision, bool(replay)) for number, to, deleted, decision, replay in rows]


def statuses(db: sqlite3.Connection) -> dict[int, AudienceStatus]:
    """Gives size and progress of every audience by its number."""
    rows = db.execute("SELECT number, size, evaluated_to FROM audience WHERE deleted_us IS NULL").fetchall()
    return {row[0]: AudienceStatus(*row) for row in rows}


def save_query(db: sqlite3.Connection, row: QueryRow) -> None:
    """Inserts a query or replaces the one with its alias."""
    db.execute(SAVE_QUERY, row)


def delete_query(db: sqlite3.Connection, alias: str) -> None:
    """Deletes a query."""
    db.execute(DELETE_QUERY, (alias,))


def save_audience(db: sqlite3.Connection, row: AudienceRow) -> None:
    """Inserts an audience or replaces the one with its number; a background pass begins."""
    db.execute(SAVE_AUDIENCE, row)


def describe_audience(db: sqlite3.Connection, row: AudienceRow) -> None:
    """Changes what people read of an audience; nothing is evaluated."""
    db.execute(DESCRIBE_AUDIENCE, (row.name, row.description, row.updated_us, row.number))


def delete_audience(db: sqlite3.Connection, number: int, now_us: int) -> None:
    """Marks an audience as deleted; a background pass takes its memberships away, then its row."""
    db.execute(DELETE_AUDIENCE, (now_us, number))


def drop_audience(db: sqlite3.Connection, number: int) -> None:
    """Takes the row of a deleted audience away."""
    db.execute(DROP_AUDIENCE, (number,))


def reevaluate(db: sqlite3.Connection, numbers: str, decision: int) -> None:
    """Begins a background pass for each of the audiences in the JSON list `numbers`, because of a decision."""
    db.execute(REEVALUATE, (decision, numbers))


def held_by(db: sqlite3.Connection, number: int) -> list[str]:
    """Gives the ids of the jobs that an audience cannot be deleted under."""
    return [row[0] for row in db.execute(HELD_BY, (number,)).fetchall()]


def save_rule(db: sqlite3.Connection, row: RuleRow) -> None:
    """Inserts a routing rule or replaces the one with its id."""
    db.execute(SAVE_RULE, (*row[:6], int(row.active), *row[7:]))


def delete_rule(db: sqlite3.Connection, rule_id: int) -> None:
    """Deletes a routing rule."""
    db.execute(DELETE_RULE, (rule_id,))
