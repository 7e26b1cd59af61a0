"""What the replies about schemas and previews look like, as JSON Schema for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def an_object(**properties: Any) -> dict[str, Any]:
    """Gives the JSON Schema of an object with these keys."""
    return {"type": "object", "properties": properties}


def a_list(items: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the JSON Schema of a list."""
    return {"type": "array", "items": dict(items)}


def extended(shape: Mapping[str, Any], /, **properties: Any) -> dict[str, Any]:
    """Gives the JSON Schema of an object with more keys."""
    return an_object(**shape["properties"], **properties)


WORDS: Final = {"type": "string"}
COUNT: Final = {"type": "integer"}
ANY: Final[dict[str, Any]] = {}
STATUS: Final = {"type": "string", "enum": ["new", "modified", "deleted", "unmodified"]}
AUDIENCE: Final = an_object(id=WORDS, slug=WORDS, name=WORDS)
JOB: Final = an_object(id=WORDS, label=WORDS, job_type=WORDS, state=WORDS, events=WORDS, audiences=a_list(WORDS))
ITEM: Final = an_object(
    name=WORDS,
    status=STATUS,
    changes=a_list(an_object(property=WORDS, before=ANY, after=ANY)),
    before={"type": ["object", "null"]},
    after={"type": ["object", "null"]},
)


SCHEMA_DIFF: Final = an_object(
    **{"from": COUNT, "to": {"type": ["integer", "null"], "description": "null: as proposed"}},
    summary=an_object(new=COUNT, modified=COUNT, deleted=COUNT, unmodified=COUNT),
    fields=a_list(
        extended(
            ITEM,
            values={"type": "string", "enum": ["empty", "kept", "hidden", "begun_anew"]},
            mappings=a_list(extended(ITEM, query=WORDS)),
            audiences=a_list(extended(AUDIENCE, via=a_list(WORDS))),
            jobs=a_list(JOB),
        )
    ),
    queries=a_list(extended(ITEM, alias=WORDS)),
    audiences=a_list(AUDIENCE),
    jobs=a_list(JOB),
)
PROPOSAL_DIFF: Final = extended(
    SCHEMA_DIFF,
    filters=a_list(
        extended(
            ITEM,
            slug=WORDS,
            unknown_fields=a_list(WORDS),
            included_by=a_list(WORDS),
            jobs=a_list(JOB),
        )
    ),
)
PROFILE_SAMPLE: Final = a_list(an_object(id=WORDS, keys={"type": "object"}))
MOVES: Final = an_object(
    members=COUNT,
    size=COUNT,
    enters=COUNT,
    exits=COUNT,
    sample_enters=PROFILE_SAMPLE,
    sample_exits=PROFILE_SAMPLE,
)
PREVIEW: Final = an_object(
    profiles=COUNT,
    audiences=a_list(extended(AUDIENCE, **MOVES["properties"])),
    jobs=a_list(
        extended(JOB, enters=COUNT, exits=COUNT, sends={"type": "string", "enum": ["at once", "when resumed"]})
    ),
)

_FIELD: Final = an_object(
    name=WORDS,
    kind=WORDS,
    merge_op=WORDS,
    is_identifier={"type": "boolean"},
    single={"type": "boolean"},
    rank={"type": ["integer", "null"]},
    capacity=COUNT,
    keep_days=COUNT,
    shortdesc=WORDS,
    longdesc=WORDS,
    queries=a_list(WORDS),
    mappings=a_list(an_object(query=WORDS, stream=WORDS, expr=WORDS, guard_expr={"type": ["string", "null"]})),
)
VERSION: Final = an_object(
    version=COUNT,
    at={"type": ["string", "null"], "format": "date-time"},
    cause={"type": ["string", "null"], "enum": ["query", "query_deleted", "revert", None]},
    description=WORDS,
    stored=a_list(WORDS),
    deleted=a_list(WORDS),
    reverted_to={"type": ["integer", "null"]},
    decision=COUNT,
)
SCHEMA: Final = extended(
    VERSION,
    table=WORDS,
    fields=a_list(_FIELD),
    identities=a_list(an_object(field=WORDS, rank=COUNT, single={"type": "boolean"})),
    meta_fields=a_list(WORDS),
    queries=a_list(WORDS),
)
