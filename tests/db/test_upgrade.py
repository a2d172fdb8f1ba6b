"""Upgrades of a filled database from each release, and what the old version still may do then.

`python -m tests.record_release` recorded the releases.
"""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import Connection, MetaData, Table, inspect, text

from app.bootstrap import create_app
from app.db import migrations
from app.db.engine import Database, open_database
from app.settings import load_settings
from tests.processes import API_KEY, AUTHORIZED, SECRET

RELEASES = sorted((Path(__file__).parents[1] / "samples" / "releases").glob("*.json"))
REWORDED = {"title", "next_step", "customer_message"}
"""Texts of causes, which are not stored."""

release = pytest.mark.parametrize("recording", RELEASES, ids=lambda file: file.stem)


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = open_database(empty_database_url)
    yield database
    database.close()


def upgrade_to(database: Database, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def tables(connection: Connection) -> dict[str, Table]:
    """The tables as they are in the database, not as in the code."""
    found = MetaData()
    found.reflect(connection)
    return dict(found.tables)


def decode(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            datetime.fromisoformat(value["time"])
            if "time" in value
            else base64.b64decode(value["bytes"])
        )
    return value


def insert_rows(database: Database, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Insert with the columns of the release, as it does itself."""
    with database.writing() as connection:
        existing = tables(connection)
        for name, recorded in rows.items():
            for row in recorded if name != "alembic_version" else ():
                values = {column: decode(value) for column, value in row.items()}
                connection.execute(existing[name].insert().values(values))
        if not database.is_sqlite:
            for name in rows:
                if "id" in existing[name].c and name != "change_feed_horizon":
                    highest = f"(SELECT max(id) FROM {name})"
                    connection.execute(text(f"SELECT setval('{name}_id_seq', {highest})"))


def check_answers(database_url: str, answers: dict[str, Any]) -> None:
    """Everything that the release answered is answered now; new fields may stand beside it."""
    application = create_app(
        load_settings(
            database_url=database_url,
            codat_webhook_secrets=SECRET,
            codat_api_key="a-codat-key",
            api_keys=API_KEY,
            worker_in_web=False,
        )
    )
    with TestClient(application, headers=AUTHORIZED) as client:
        for path, expected in answers.items():
            found = client.get(f"/api/v1{path}")
            assert found.status_code == 200, f"{path}: {found.text}"
            assert differences(expected, found.json(), path) == []


def differences(old: Any, new: Any, place: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in old if name not in REWORDED]
        missing = [f"{place}.{name} is missing" for name in names if name not in new]
        return missing + [
            line
            for name in names
            if name in new
            for line in differences(old[name], new[name], f"{place}.{name}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for n, (a, b) in pairs for line in differences(a, b, f"{place}[{n}]")]
    return [] if old == new else [f"{place}: {old!r} is now {new!r}"]


@release
def test_a_filled_database_is_upgraded_and_answers_as_before(
    empty: Database, empty_database_url: str, recording: Path
) -> None:
    recorded = json.loads(recording.read_text())
    upgrade_to(empty, recorded["rows"]["alembic_version"][0]["version_num"])
    insert_rows(empty, recorded["rows"])
    assert migrations.migrate(empty)[1] == migrations.head()
    check_answers(empty_database_url, recorded["answers"])


@release
def test_a_release_can_still_insert_after_the_upgrade(
    empty: Database, empty_database_url: str, recording: Path
) -> None:
    """It runs beside the new version until its containers are replaced."""
    recorded = json.loads(recording.read_text())
    migrations.migrate(empty)
    insert_rows(empty, recorded["rows"])
    check_answers(empty_database_url, recorded["answers"])


def shape(connection: Connection) -> dict[str, Any]:
    """What statements depend on: columns with type and nullability, and constraints."""
    inspector = inspect(connection)
    found: dict[str, Any] = {}
    for name in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
        for column in inspector.get_columns(name):
            found[f"{name}.{column['name']}"] = (str(column["type"]), column["nullable"])
            has_default = column["nullable"] or column["default"] or column["name"] == "id"
            found[f"{name}.{column['name']} may be left out"] = bool(has_default)
        unique: list[object] = [
            index["column_names"] for index in inspector.get_indexes(name) if index["unique"]
        ]
        unique += [key["column_names"] for key in inspector.get_unique_constraints(name)]
        found[f"{name} unique"] = sorted(map(str, unique))
        found[f"{name} key"] = inspector.get_pk_constraint(name)["constrained_columns"]
        found[f"{name} references"] = sorted(str(key) for key in inspector.get_foreign_keys(name))
        found[f"{name} checks"] = sorted(map(str, inspector.get_check_constraints(name)))
    return found


def test_each_migration_only_adds(empty: Database) -> None:
    """Expand, then contract: statements of the version before stay valid.

    New columns may be left out; old ones keep type, nullability and constraints.
    """
    versions = sorted(file.name[:4] for file in migrations.MIGRATIONS.glob("versions/[0-9]*.py"))
    upgrade_to(empty, versions[0])
    for version in versions[1:]:
        with empty.reading() as connection:
            before = shape(connection)
        upgrade_to(empty, version)
        with empty.reading() as connection:
            after = shape(connection)
        changed = {key: after.get(key) for key, value in before.items() if after.get(key) != value}
        assert changed == {}, version
        added_tables = {key.split(" ")[0] for key in after.keys() - before.keys() if " key" in key}
        required = [
            key
            for key in after.keys() - before.keys()
            if key.endswith("may be left out") and not after[key]
            if key.partition(".")[0] not in added_tables
        ]
        assert required == [], version
