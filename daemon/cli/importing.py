"""`cohortd import FILE --stream S`: a file into the log, with a progress bar, repeatable.

Each row gets an event id made of its number in the file and its content. Importing the same file again, after a cut or
by mistake, or grown at its end, then counts nothing twice (within the deduplication window), while equal rows of one
file all count. Nothing is remembered between rows, so a file may be of any size.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

import click
import orjson
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from daemon.cli.client import segment
from daemon.cli.output import client_of, remote, show_facts

CHUNK_BYTES = 256 * 1024
ID_FIELD = "_id"


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--stream", required=True, help="Stream of the events.")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="Default: by the file's name.")
@click.option("--timestamp-field", help="Column with the event time; default: the time of arrival.")
@click.option("--delimiter", default=",", show_default=True, help="One character; `t` is a tab.")
@click.option("--headers", help="Names of the columns, comma-separated, for a file without a header line.")
@click.option("--append", help="JSON object merged into each row.")
@click.option("--drop-errors", is_flag=True, help="Go on after a malformed line.")
@click.option("--dry-run", is_flag=True, help="Parse and count, store nothing.")
@click.option("--no-ids", is_flag=True, help="Give rows no event ids: importing again counts again.")
@remote
def import_file(
    file: Path,
    stream: str,
    form: str | None,
    timestamp_field: str | None,
    delimiter: str,
    headers: str | None,
    append: str | None,
    drop_errors: bool,
    dry_run: bool,
    no_ids: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Imports FILE (CSV or NDJSON, gzip or not) as events of a stream, on the bulk lane."""
    client = client_of(**where)
    kind = form or _form_of(file)
    separator = "\t" if delimiter == "t" else delimiter[:1]
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        disable=as_json,
    )  # fmt: skip
    params = {
        "timestamp_field": timestamp_field,
        "filename": file.name,
        "append": append,
        "droperrors": "true" if drop_errors else None,
        "dryrun": "true" if dry_run else None,
        "delimiter": separator if kind == "csv" and separator != "," else None,
    }
    with bar, file.open("rb") as raw:
        task = bar.add_task(file.name, total=file.stat().st_size)
        text = _opened(raw)
        if kind == "csv":
            lines = _csv_lines(text, separator, headers, ids=not no_ids)
        else:
            lines = _json_lines(text, ids=not no_ids)
        body = _chunks(lines, lambda: bar.update(task, completed=raw.tell()))
        content_type = "text/csv" if kind == "csv" else "application/x-ndjson"
        path = f"/collect/bulk/{segment(stream)}"
        reply = client.exchange("POST", path, params=params, body=body, content_type=content_type)
    show_facts(reply["data"], as_json=as_json)


def _form_of(file: Path) -> str:
    name = file.name.removesuffix(".gz").lower()
    if name.endswith((".csv", ".tsv", ".txt")):
        return "csv"
    if name.endswith((".ndjson", ".jsonl", ".json")):
        return "ndjson"
    raise click.UsageError(f"cannot tell the format of {file.name!r} by its name; give --format csv or ndjson")


def _opened(raw: IO[bytes]) -> TextIO:
    start = raw.read(2)
    raw.seek(0)
    plain: IO[bytes] = gzip.GzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw  # type: ignore[assignment]
    return io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")


def _row_id(number: int, content: str) -> str:
    return f"{number}-{hashlib.blake2b(content.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def _csv_lines(text: TextIO, delimiter: str, headers: str | None, *, ids: bool) -> Iterator[str]:
    # A file that has its own ids keeps them; a row of another length is passed on as it is, for the daemon to judge.
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    names = headers.split(",") if headers else next(reader, None)
    if names is None:
        return
    ids = ids and ID_FIELD not in names
    writer.writerow([*names, ID_FIELD] if ids else names)
    try:
        for number, row in enumerate(reader, 1):
            if not row:
                continue
            known = ids and len(row) == len(names)
            writer.writerow([*row, _row_id(number, "\x1f".join(row))] if known else row)
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    except csv.Error as error:
        raise click.ClickException(f"line {reader.line_num}: {error}") from error
    yield out.getvalue()


def _json_lines(text: TextIO, *, ids: bool) -> Iterator[str]:
    for number, line in enumerate(text, 1):
        row = line.strip()
        if not row:
            continue
        if ids and row.startswith("{") and row.endswith("}") and f'"{ID_FIELD}"' not in row:
            name = orjson.dumps(_row_id(number, row)).decode()
            row = f'{{"{ID_FIELD}":{name}{"," if row[1:-1].strip() else ""}{row[1:]}'
        yield row + "\n"


def _chunks(lines: Iterator[str], moved: Any) -> Iterator[bytes]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield "".join(held).encode()
            held, size = [], 0
            moved()
    if held:
        yield "".join(held).encode()
    moved()
