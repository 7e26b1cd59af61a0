"""The audit log as stored: who changed what, and when. Never a value that could be a secret."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

import orjson

ADD = """INSERT INTO audit (at_us, actor, actor_label, action, subject, facts, request_id)
    VALUES (?1, ?2, coalesce((SELECT label FROM token WHERE id = ?2), ?3), ?4, ?5, ?6, ?7)"""
PAGE = """SELECT id, at_us, actor, actor_label, action, subject, facts, request_id FROM audit
    WHERE id < ?1 AND (?2 IS NULL OR subject = ?2 OR substr(subject, 1, length(?2) + 1) = ?2 || '/')
    AND (?3 IS NULL OR actor = ?3 OR actor_label = ?3)
    AND (?4 IS NULL OR action = ?4) AND at_us >= ?5 AND at_us < ?6 ORDER BY id DESC LIMIT ?7"""


class Entry(NamedTuple):
    """A change: `actor` is a token's id, or control (over the control socket), or local (a command beside the daemon).

    `facts` is JSON text.
    """

    id: int
    at_us: int
    actor: str
    actor_label: str
    action: str
    subject: str
    facts: str
    request_id: str | None


def add(
    db: sqlite3.Connection,
    at_us: int,
    actor: str,
    action: str,
    subject: str,
    facts: Mapping[str, object],
    *,
    label: str = "",
    request_id: str | None = None,
) -> None:
    """Appends an entry; the actor's label is that of the token."""
    text = orjson.dumps(facts, default=str).decode()
    db.execute(ADD, (at_us, actor, label, action, subject[:500], text, request_id))


def page(
    db: sqlite3.Connection,
    *,
    below: int,
    subject: str | None,
    actor: str | None,
    action: str | None,
    after_us: int,
    before_us: int,
    limit: int,
) -> list[Entry]:
    """Gives entries with ids below `below`, the newest first."""
    given = (below, subject, actor, action, after_us, before_us, limit)
    return [Entry(*row) for row in db.execute(PAGE, given).fetchall()]
