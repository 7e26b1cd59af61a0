"""Database: grouped, durable writes; errors alone; nothing left open by cancellation, faults or closing."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading

import anyio
import pytest

from daemon.store.database import Database

TABLE = "CREATE TABLE IF NOT EXISTS thing (name TEXT PRIMARY KEY) STRICT"


def prepare(db):
    db.execute(TABLE)


def put(name):
    def work(db):
        db.execute("INSERT INTO thing VALUES (?)", (name,))
        return name

    return work


def names(db):
    return [name for (name,) in db.execute("SELECT name FROM thing ORDER BY name").fetchall()]


def on_disk(path):
    with sqlite3.connect(path) as db:
        found = names(db)
    db.close()
    return found


class Gate:
    """Holds the writer inside a transaction until opened, so that what is queued meanwhile becomes one group."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.opened = threading.Event()

    def __call__(self, _db):
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.opened.wait(10)


def left_over():
    """The threads of connections that do not end."""
    threads = [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name]
    for thread in threads:
        thread.join(2)
    return [thread for thread in threads if thread.is_alive()]


async def queued(database, *works):
    """Runs `works` in one group; gives what each returned or raised."""
    gate = Gate()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(database.write(gate))
        await gate.entered.wait()
        waiting = [asyncio.ensure_future(database.write(work)) for work in works]
        await asyncio.sleep(0)
        gate.opened.set()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_write_is_on_disk_when_it_returns(tmp_path):
    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        assert await database.write(put("a")) == "a"

        assert on_disk(tmp_path / "x.db") == ["a"]
        with sqlite3.connect(tmp_path / "x.db") as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.close()
        assert await database.write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)


async def test_of_a_group_only_the_work_that_fails_is_undone(tmp_path):
    def bad(db):
        put("half")(db)
        raise LookupError("bad")

    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        outcomes = await queued(database, put("a"), bad, put("b"), put("a"))

        assert outcomes[0] == "a"
        assert isinstance(outcomes[1], LookupError)
        assert outcomes[2] == "b"
        assert isinstance(outcomes[3], sqlite3.IntegrityError)
        assert on_disk(tmp_path / "x.db") == ["a", "b"]


async def test_work_that_fails_alone_leaves_nothing(tmp_path):
    def bad(db):
        put("half")(db)
        raise LookupError("bad")

    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        with pytest.raises(LookupError):
            await database.write(bad)
        await database.write(put("a"))

        assert on_disk(tmp_path / "x.db") == ["a"]


def fill(db):
    """Makes the file as full as it may get, so that the next page does not fit."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}").fetchone()


def large(db):
    db.execute("INSERT INTO thing VALUES (hex(randomblob(200000)))")


async def test_a_full_disk_fails_the_group_with_its_cause_and_the_next_write_works(tmp_path):
    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        await database.write(fill)

        outcomes = await queued(database, put("a"), large, put("b"))

        # SQLite may undo the savepoint alone or the whole transaction; both ways the one who asked hears the cause
        # and whoever was told that it went well finds it on disk.
        assert isinstance(outcomes[1], sqlite3.OperationalError)
        assert "full" in str(outcomes[1])
        kept = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert on_disk(tmp_path / "x.db") == sorted(kept)
        await database.write(put("c"))
        assert "c" in on_disk(tmp_path / "x.db")


async def test_when_sqlite_undoes_the_whole_transaction_all_of_the_group_hear_the_cause(tmp_path):
    def undone(db):
        db.execute("ROLLBACK")  # what SQLite does by itself on some I/O errors
        raise sqlite3.OperationalError("disk I/O error")

    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        outcomes = await queued(database, put("a"), undone, put("b"))

        assert [str(outcome) for outcome in outcomes] == ["disk I/O error"] * 3
        assert on_disk(tmp_path / "x.db") == []
        assert await database.write(put("c")) == "c"


@pytest.mark.parametrize("alone", [True, False])
async def test_work_that_goes_on_after_its_transaction_was_undone_is_not_reported_as_done(tmp_path, alone):
    def undone(db):
        db.execute("ROLLBACK")

    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        works = [undone] if alone else [put("a"), undone, put("b")]
        outcomes = await queued(database, *works)

        assert {type(outcome) for outcome in outcomes} == {sqlite3.OperationalError}
        assert on_disk(tmp_path / "x.db") == []


async def test_work_that_raises_stop_iteration_does_not_stop_the_writer(tmp_path):
    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await database.write(lambda _: next(iter(())))

        assert await database.write(put("a")) == "a"


async def test_a_cancelled_caller_leaves_no_transaction_open_and_what_had_begun_is_finished(tmp_path):
    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        gate = Gate()

        def begun(db):
            gate(db)
            put("begun")(db)

        first = asyncio.ensure_future(database.write(begun))
        await gate.entered.wait()
        second = asyncio.ensure_future(database.write(put("never")))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        gate.opened.set()
        await asyncio.gather(first, second, return_exceptions=True)
        await database.write(put("after"))

        assert on_disk(tmp_path / "x.db") == ["after", "begun"]


async def test_a_read_sees_one_moment_and_its_reader_comes_back_after_cancellation(tmp_path):
    async with Database.open(tmp_path / "x.db", readers=1, prepare=prepare) as database:
        await database.write(put("a"))
        gate = Gate()

        def twice(db):
            before = names(db)
            gate(db)
            return before, names(db)

        reading = asyncio.ensure_future(database.read(twice))
        await gate.entered.wait()
        await database.write(put("b"))
        reading.cancel()
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await reading

        assert await database.read(names) == ["a", "b"]

        gate.opened.clear()
        gate.entered.clear()
        reading = asyncio.ensure_future(database.read(twice))
        await gate.entered.wait()
        await database.write(put("c"))
        gate.opened.set()
        assert await reading == (["a", "b"], ["a", "b"])


async def test_a_reader_cannot_write_and_survives_an_error(tmp_path):
    async with Database.open(tmp_path / "x.db", readers=1, prepare=prepare) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(put("a"))

        assert await database.read(names) == []


async def test_the_error_of_a_read_that_nobody_waits_for_is_not_complained_about(tmp_path):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with Database.open(tmp_path / "x.db", readers=1, prepare=prepare) as database:
        gate = Gate()

        def bad(db):
            gate(db)
            raise LookupError("bad")

        reading = asyncio.ensure_future(database.read(bad))
        await gate.entered.wait()
        reading.cancel()
        gate.opened.set()
        await asyncio.gather(reading, return_exceptions=True)
        await database.read(names)

    assert complaints == []


async def test_closing_finishes_what_was_queued_and_refuses_what_comes_after(tmp_path):
    async with Database.open(tmp_path / "x.db", prepare=prepare) as database:
        writing = [asyncio.ensure_future(database.write(put(f"{number:03}"))) for number in range(600)]
        await asyncio.sleep(0)

    assert [task.result() for task in writing] == on_disk(tmp_path / "x.db")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await database.write(put("late"))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await database.read(names)


@pytest.mark.parametrize("kind", ["anyio", "asyncio"])
async def test_closing_under_cancellation_still_closes_every_connection(tmp_path, kind):
    gate = Gate()

    async def serve():
        async with Database.open(tmp_path / "x.db", prepare=prepare) as database:

            def slow(db):
                gate(db)
                put("slow")(db)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(database.write(slow))
                await asyncio.Event().wait()

    if kind == "anyio":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await gate.entered.wait()
            tasks.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.05, gate.opened.set)
    else:
        task = asyncio.ensure_future(serve())
        await gate.entered.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, gate.opened.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    assert left_over() == []
    assert on_disk(tmp_path / "x.db") == ["slow"]


async def test_closing_breaks_off_a_read_that_would_take_for_ever(tmp_path):
    forever = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    entered = threading.Event()

    def endless(db):
        entered.set()
        return db.execute(forever).fetchone()

    async with Database.open(tmp_path / "x.db", readers=1, prepare=prepare) as database:
        reading = asyncio.ensure_future(database.read(endless))
        await asyncio.to_thread(entered.wait)

    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await reading


async def test_a_preparation_that_fails_leaves_no_thread(tmp_path):

    def bad(_db):
        raise LookupError("bad")

    with pytest.raises(LookupError):
        async with Database.open(tmp_path / "x.db", prepare=bad):
            pass

    assert left_over() == []


async def test_a_folder_that_is_not_there_is_an_error_and_leaves_no_thread(tmp_path):

    with pytest.raises(sqlite3.OperationalError):
        async with Database.open(tmp_path / "none" / "x.db"):
            pass

    assert left_over() == []


async def test_another_process_that_leaves_the_file_does_not_take_the_log_away_under_us(tmp_path):
    path = tmp_path / "some.db"
    beside = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]);"
        "db.execute(\"INSERT INTO thing VALUES ('theirs')\"); db.commit(); db.close()"
    )
    async with Database.open(path, prepare=prepare) as database:
        await database.write(put("ours"))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", beside, str(path))
        assert await process.wait() == 0

        assert path.with_name("some.db-wal").exists()
        await database.write(put("later"))
        assert await database.read(names) == ["later", "ours", "theirs"]
