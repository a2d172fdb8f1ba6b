"""What a database cannot do is one of three errors, soon."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from app.db import engine as engine_module
from app.db import migrations
from app.db.engine import Database, open_database, require_writable, translate_errors
from app.db.event_store import EventStore, ReceivedEvent
from app.db.migrations import migrate
from app.errors import (
    DatabaseDown,
    DatabaseReadOnly,
    DatabaseRejected,
    DatabaseUnavailable,
    DatabaseUnusable,
)
from tests.factories import T0

CUT_OTHER_CONNECTIONS = text(
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """SQLite that waits for a lock for a tenth of a second only."""
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 0.1)
    database = open_database(f"sqlite:///{tmp_path / 'one.db'}")
    yield database
    database.close()


def test_an_address_where_nothing_listens_is_down() -> None:
    database = open_database("postgresql://someone@127.0.0.1:1/none")
    with pytest.raises(DatabaseDown), database.writing():
        pass


def test_a_writer_of_this_process_that_does_not_finish_is_not_waited_for(
    impatient: Database,
) -> None:
    """Neither one of another process."""
    errors: list[Exception] = []

    def write() -> None:
        try:
            with impatient.writing():
                pass
        except DatabaseDown as error:
            errors.append(error)

    with impatient.writing():
        thread = threading.Thread(target=write)
        began = time.monotonic()
        thread.start()
        thread.join(5)
        assert time.monotonic() - began < 4
    assert "another writer does not finish" in str(errors)
    other = open_database(str(impatient.engine.url))  # as another process
    with impatient.writing(), pytest.raises(DatabaseDown), other.writing():
        pass
    other.close()


def test_sqlite_writers_come_in_order_and_those_with_priority_first(tmp_path: Path) -> None:
    """`threading.Lock` has no order: a busy projector would let the endpoint starve."""
    database = open_database(f"sqlite:///{tmp_path / 'one.db'}")
    order: list[str] = []

    def write(name: str) -> None:
        with database.writing(priority=name == "endpoint"):
            order.append(name)

    threads = [
        threading.Thread(target=write, args=(name,)) for name in ("1", "2", "3", "endpoint", "4")
    ]
    with database.writing():
        for thread in threads:
            thread.start()
            time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert order == ["endpoint", "1", "2", "3", "4"]
    database.close()


def test_a_priority_writer_that_comes_back_at_once_overtakes_nobody(tmp_path: Path) -> None:
    """Under a steady load of deliveries the projector gets its turns."""
    database = open_database(f"sqlite:///{tmp_path / 'one.db'}")
    order: list[str] = []

    def deliver() -> None:
        for _ in range(50):
            with database.writing(priority=True):
                order.append("endpoint")
                time.sleep(0.005)

    thread = threading.Thread(target=deliver)
    thread.start()
    time.sleep(0.02)
    with database.writing():
        order.append("projector")
    thread.join()
    assert order[-1] == "endpoint"
    database.close()


def test_a_process_that_writes_all_the_time_lets_others_write(tmp_path: Path) -> None:
    """SQLite itself would try again every 100 ms, and find the lock taken nearly always."""
    url = f"sqlite:///{tmp_path / 'one.db'}"
    busy, other = open_database(url), open_database(url)  # as two processes: no lock is shared
    is_over = threading.Event()

    def write_all_the_time() -> None:
        while not is_over.is_set():
            with busy.writing():
                time.sleep(0.02)

    threads = [threading.Thread(target=write_all_the_time) for _ in range(3)]
    for thread in threads:
        thread.start()
    waits = []
    for _ in range(20):
        began = time.monotonic()
        with other.writing():
            pass
        waits.append(time.monotonic() - began)
    is_over.set()
    for thread in threads:
        thread.join()
    assert sum(waits) / len(waits) < 0.1
    assert max(waits) < 1
    busy.close()
    other.close()


def test_priority_does_not_wait_for_connections_that_queries_hold(database_url: str) -> None:
    """The endpoint, the heartbeat and `/readyz` work while slow queries use up the pool."""
    database = open_database(database_url, pool_size=1)
    with database.reading() as connection:
        connection.execute(text("SELECT 1"))
        with database.writing(priority=True) as writer, database.reading(priority=True) as reader:
            began = time.monotonic()
            assert writer.execute(text("SELECT 1")).scalar_one() == 1
            assert reader.execute(text("SELECT 1")).scalar_one() == 1
    assert time.monotonic() - began < 2
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_transaction_that_stands_still_is_ended_after_a_minute(database: Database) -> None:
    """A worker that was paused inside one would hold its locks, and stop all the others."""
    with database.reading() as connection:
        timeout = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
        assert timeout == "1min"
        connection.execute(text("SET idle_in_transaction_session_timeout = 50"))
        connection.commit()
        connection.execute(text("SELECT 1"))
        time.sleep(0.5)
        with pytest.raises(DatabaseDown), translate_errors():
            connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_was_cut_costs_at_most_one_batch(database: Database) -> None:
    """The event store connects again for the next one; reads and writes do not notice."""

    async def store_three() -> list[bool]:
        store = EventStore(database)
        stored = [await is_stored(store, "m1")]
        with database.writing() as connection:
            connection.execute(CUT_OTHER_CONNECTIONS)
        stored += [await is_stored(store, "m2"), await is_stored(store, "m3")]
        await store.close()
        return stored

    with database.reading() as one, database.reading() as other:  # two connections in the pool
        assert one.connection is not other.connection
    assert asyncio.run(store_three()) == [True, False, True]
    with database.reading() as connection, database.writing():
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


async def is_stored(store: EventStore, message_id: str) -> bool:
    try:
        return await store.store(ReceivedEvent(message_id, T0, b"{}"))
    except DatabaseUnavailable:
        return False


@pytest.mark.parametrize(
    ("sqlstate", "error_type"),
    [
        ("40P01", DatabaseUnavailable),  # deadlock: the same work may succeed
        ("40001", DatabaseUnavailable),
        ("55P03", DatabaseUnavailable),  # lock not available within `lock_timeout`
        ("54000", DatabaseRejected),  # an index row too large: these values never succeed
        ("57P01", DatabaseDown),  # admin shutdown
        ("53100", DatabaseDown),  # disk full
        ("57014", DatabaseDown),  # statement timeout
        (None, DatabaseDown),  # no connection
    ],
)
def test_sqlstate_decides_the_kind_of_error(
    sqlstate: str | None, error_type: type[Exception]
) -> None:
    """PostgreSQL documentation, appendix A: error codes."""

    class DriverError(Exception):
        pass

    original = DriverError("no")
    original.sqlstate = sqlstate  # type: ignore[attr-defined]
    with pytest.raises(DatabaseUnavailable) as caught, translate_errors():
        raise OperationalError("INSERT", {}, original)
    assert type(caught.value) is error_type


def test_an_addresss_own_options_hold_also_for_migrations(empty_postgresql_url: str) -> None:
    """A schema of ours in a shared database."""
    plain = open_database(empty_postgresql_url)
    with plain.writing() as connection:
        connection.execute(text('CREATE SCHEMA "Own"'))
    for query in ("?schema=Own", "?options=-csearch_path%3D%22Own%22%20-cwork_mem%3D5MB"):
        database = open_database(empty_postgresql_url + query)
        migrate(database)
        assert migrate(database)[0]
        assert asyncio.run(store_one(database, query))
        with database.reading() as connection:
            migrations.check(connection)
        database.close()
    with plain.reading() as connection:
        schemas = text("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname !~ '^pg_|^info'")
        assert connection.execute(schemas).scalars().all() == ["Own"]
        count = text('SELECT count(*) FROM "Own".webhook_events')
        assert connection.execute(count).scalar() == 2
    plain.close()


async def store_one(database: Database, message_id: str) -> bool:
    store = EventStore(database)
    stored = await is_stored(store, message_id)
    await store.close()
    return stored


@pytest.mark.own_database
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_to_a_demoted_server_are_replaced(database: Database) -> None:
    """Sessions that were read-only when they began stay so, as those on a former primary do."""

    def set_read_only(value: str) -> None:
        with database.reading() as connection:
            name = connection.execute(text("SELECT current_database()")).scalar_one()
        admin = create_engine(make_url(database_address(database)), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("SET default_transaction_read_only = off"))
            setting = f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"
            connection.execute(text(setting))
        admin.dispose()

    def write() -> None:
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    async def store_around_a_switchover() -> list[bool]:
        store = EventStore(database)
        stored = [await is_stored(store, "m1")]
        set_read_only("off")
        stored += [await is_stored(store, "m2"), await is_stored(store, "m3")]
        await store.close()
        return stored

    set_read_only("on")
    database.close()  # its pools connect again, to the read-only server
    for priority in (False, True):
        with pytest.raises(DatabaseReadOnly), database.reading(priority=priority) as connection:
            require_writable(connection)
    for _ in range(2):
        with pytest.raises(DatabaseReadOnly):
            write()
    assert asyncio.run(store_around_a_switchover()) == [False, True, True]
    with suppress(DatabaseReadOnly):  # the first to notice
        write()
    write()
    with database.reading(priority=True) as connection:
        require_writable(connection)


def database_address(database: Database) -> str:
    with database.reading() as connection:
        driver = connection.connection.driver_connection
        assert driver
        return f"postgresql+psycopg://test@127.0.0.1:{driver.info.port}/{driver.info.dbname}"


def test_a_closed_public_schema_is_one_line(empty_postgresql_url: str) -> None:
    """Since PostgreSQL 15 a role that does not own the database may not create tables there."""
    owner = open_database(empty_postgresql_url)
    with owner.writing() as connection:
        connection.execute(text("DROP ROLE IF EXISTS stranger"))
        connection.execute(text("CREATE ROLE stranger LOGIN"))
    stranger = open_database(empty_postgresql_url.replace("test@", "stranger@"))
    with pytest.raises(DatabaseUnusable) as caught:
        migrate(stranger)
    assert "permission denied for schema public" in str(caught.value)
    assert "GRANT USAGE, CREATE ON SCHEMA" in str(caught.value)
    assert "\n" not in str(caught.value)
    stranger.close()
    with owner.writing() as connection:
        connection.execute(text("DROP ROLE stranger"))
    owner.close()


def test_a_schema_that_does_not_exist_is_one_line(empty_postgresql_url: str) -> None:
    database = open_database(empty_postgresql_url + "?schema=nowhere")
    with pytest.raises(DatabaseUnusable, match=r"Run CREATE SCHEMA … first\.$"):
        migrate(database)
    database.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_utf8_is_one_line(empty_postgresql_url: str, encoding: str) -> None:
    name = f"no_{encoding.lower()}"
    admin = create_engine(
        empty_postgresql_url.replace("postgresql:", "postgresql+psycopg:"),
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        create = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'"
        connection.execute(text(create))
        database = open_database(str(make_url(empty_postgresql_url).set(database=name)))
        with pytest.raises(DatabaseUnusable, match=f"encoding is {encoding}; it must be UTF8"):
            migrate(database)
        with pytest.raises(DatabaseUnusable):
            asyncio.run(connect_async(database))
        database.close()
        connection.execute(text(f"DROP DATABASE {name}"))
    admin.dispose()


async def connect_async(database: Database) -> None:
    async with database.autocommit_async_engine().connect():
        pass


def test_a_foreign_client_encoding_changes_nothing(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    database = open_database(postgresql_url)
    with database.reading() as connection:
        assert connection.execute(text("SELECT '€'")).scalar() == "€"
        assert connection.execute(text("SHOW timezone")).scalar() == "UTC"
    database.close()


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("x.db", "it is a folder"),
        ("a-file", "the folder cannot be used: File exists"),
        ("a-file/x", "the folder cannot be used: Not a directory"),
        ("/proc/nowhere", "the folder cannot be used: No such file or directory"),
        ("/proc/self", "the folder is not writable for user"),
    ],
)
def test_an_sqlite_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, folder: str, part: str
) -> None:
    (tmp_path / "x.db").mkdir()
    (tmp_path / "a-file").touch()
    file = (tmp_path / folder / "x.db" if folder != "x.db" else tmp_path / folder).resolve()
    with pytest.raises(DatabaseUnusable) as caught:
        open_database(f"sqlite:///{file}")
    assert str(caught.value).startswith(f"DATABASE_URL: cannot write {file}: {part}")
    assert f"Mount a writable volume at {file.parent}" in str(caught.value)


def test_a_folder_that_takes_no_file_is_one_line() -> None:
    database = open_database("sqlite:////proc/x.db")
    with pytest.raises(DatabaseUnusable, match="mount a volume") as caught, database.reading():
        pass
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(DatabaseDown, match="file is not a database"), database.reading():
        pass
    database.close()
