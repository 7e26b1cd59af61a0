"""The event export without a store: names, checkpoints of before, lines made of many rows at once, too many columns."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from connectors.sdk.errors import ConfigError
from connectors.sdk.exports import EventPage, EventsRun, LogPlace, StoredEvent
from connectors.sdk.files import events
from connectors.sdk.formats.rows import CsvText

NOW_US = 1_795_000_000_123_456


class Output:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.name = ""
        self.content = b""

    @asynccontextmanager
    async def opened(self):
        yield self

    async def begin(self, name, packer):
        self.name, self.content, self._packer = name, b"", packer

    async def write(self, content):
        self.content += self._packer.feed(content if isinstance(content, bytes) else content())

    async def finish(self):
        self.content += self._packer.end()
        return self.name, len(self.content)


class Source:
    """A log of these events."""

    def __init__(self, *fields: dict[str, Any]) -> None:
        self.fields = fields
        self.read = 0

    async def place(self):
        return LogPlace(len(self.fields), 0)

    async def events(self, _streams, *, after, upto, **_):
        self.read += 1
        for number in range(after.realtime, upto.realtime):
            yield EventPage([StoredEvent("a", NOW_US, NOW_US, self.fields[number])], LogPlace(number + 1, 0))


async def exported(source: Source, saved: list[Any], **config: Any) -> Output:
    """Runs the export once; `saved` are its checkpoints, of which the last is where it begins."""

    async def save(checkpoint: Any) -> None:
        saved.append(checkpoint)

    async def tell(_reason: str) -> None:
        return

    control = SimpleNamespace(save=save, tell=tell, count=lambda **_: None, finish=lambda: None)
    output = Output()
    run = EventsRun(
        source=source, job="job1", config=events.EventsFiles(**config), log=structlog.get_logger(), secret=None,
        exports=None, now_us=lambda: NOW_US, control=control, repeats=True, checkpoint=saved[-1] if saved else None,
    )  # fmt: skip
    await events.export_events(run, output.opened)
    return output


@pytest.mark.parametrize("options", [{}, {"join": "+"}, {"delimiter": ";"}])
def test_many_lines_are_the_same_as_one_by_one(options):
    values = ["a", "", 'say "x",\n;y', 0, -5, 2**70, True, False, None, 1.0, 1.5, 1e300, [1, "b"], [], {"x": 1.0}, {}]
    columns = [f"c{number}" for number in range(len(values))]
    one, many = (CsvText(columns, maps="json", **options) for _ in range(2))
    turned = [values[at:] + values[:at] for at in range(len(values))]

    expected = b"".join(one.row(dict(zip(columns, each, strict=True))) for each in turned)
    assert expected == many.lines(turned)


async def test_a_file_of_the_same_moment_never_takes_the_place_of_the_one_before():
    saved: list[Any] = []
    names = []
    fields = [{"n": 1}]
    for _ in range(12):
        names.append(
            (await exported(Source(*fields), saved, timestamp_format="YYYY", filename="a~{TIMESTAMP}.csv")).name
        )
        fields.append({"n": 1})

    assert ["a~2026.csv", *(f"a~2026~{number}.csv" for number in range(2, 13))] == names


async def test_a_file_under_way_is_written_anew_under_its_name_with_its_columns_and_without_counting_again():
    saved: list[Any] = []
    source = Source({"b": 1}, {"a": {"x": 1}})
    whole = await exported(source, saved)
    under_way = next(each for each in saved if each["rows"] == 2)
    source.read = 0
    later = Source(*source.fields, {"c": 1})  # what came since is not in it
    once_more = await exported(later, [under_way])

    assert (whole.name, whole.content) == (once_more.name, once_more.content)
    assert b"_stream,_event_at,_received_at,a.x,b\n" == whole.content.splitlines(keepends=True)[0]
    assert b"a,2026-11-18T11:06:40.123456Z,2026-11-18T11:06:40.123456Z,,1\n" in whole.content
    assert 1 == later.read


async def test_a_checkpoint_of_before_is_gone_on_with():
    before = {"place": [1, 0], "upto": None, "stamp_us": 5, "columns": ["z"]}
    found = await exported(Source({"a": 1}, {"b": 2}), [before])

    assert b"_stream,_event_at,_received_at,z,b" == found.content.splitlines()[0]
    assert 2 == len(found.content.splitlines())


async def test_more_columns_than_a_file_may_have_fail_the_job(monkeypatch):
    monkeypatch.setattr(events, "MOST_COLUMNS", 50)
    saved: list[Any] = []
    with pytest.raises(ConfigError, match="more than 50 fields"):
        await exported(Source(*({f"k{n}": n} for n in range(60))), saved)
    source = Source(*({f"k{n}": n} for n in range(40)))
    await exported(source, saved := [])
    source.fields += tuple({f"l{n}": n} for n in range(40))

    with pytest.raises(ConfigError, match="more than 50 fields"):
        await exported(source, saved)
