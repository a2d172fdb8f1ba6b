"""Records a filled database of this release and its answers, for the test of later migrations.

    python -m tests.record_release tests/samples/releases/VERSION.json

Run it once at each release. The real service, on SQLite, receives webhooks of a simulated Codat;
`tests/db/test_upgrade.py` inserts the rows into the release's schema, on both databases, migrates
it, and compares the answers.
"""

import base64
import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, create_engine

from tests.processes import (
    SECRET,
    Process,
    SimulatedCodat,
    deliver,
    failed_event,
    get,
    stage,
    wait_for,
)

OUTCOMES = ("all_written", "partly_failed", "write_error", "nothing_to_write")
NOBODY = "http://127.0.0.1:1/"  # messages to it stay pending
LISTS = ("/syncs", "/companies", "/push-errors", "/changes", "/events")


def encode(value: Any) -> Any:
    """A value of a row as JSON: times and bytes are marked."""
    if isinstance(value, datetime):
        return {"time": f"{value.isoformat()}+00:00"}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return value


def read_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows, by table in the order in which they can be inserted."""
    engine = create_engine(url)
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: [
                {name: encode(value) for name, value in row.items() if value is not None}
                for row in connection.execute(table.select()).mappings()
            ]
            for table in metadata.sorted_tables
        }


def read_answers(process: Process) -> dict[str, Any]:
    """The answers about everything that is stored, by path."""
    paths = [f"{path}?limit=200" for path in LISTS]
    syncs = get(process, "/syncs")["items"]
    paths += [f"/syncs/{sync['sync_id']}/transactions" for sync in syncs]
    return {path: get(process, path) for path in paths}


def fill(process: Process, codat: SimulatedCodat) -> None:
    """Syncs that end in every way, one that goes on, and events that mean nothing."""
    for outcome in OUTCOMES:
        codat.create_sync(outcome=outcome, size=2)
    codat.create_sync(size=1)
    assert deliver(process, "unreadable", b"{oops") == 204
    assert deliver(process, "unknown", b'{"eventType": "something.else"}') == 204
    for _ in range(2):
        assert deliver(process, "no-such-sync", failed_event("s1")) == 204

    wait_for(lambda: is_settled(process))


def is_settled(process: Process) -> bool:
    """True when all syncs are known and fetched."""
    found = get(process, "/syncs")["items"]
    waiting = [sync for sync in found if sync["errors"]["state"] == "waiting"]
    return len(found) == len(OUTCOMES) + 2 and not waiting


def main(target: Path) -> None:
    """Fill a database, and write its rows and the answers about them."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/syncs.db"
        with stage(Path(folder), url) as found:
            codat = SimulatedCodat(found.simulate())
            assert found.run("migrate").returncode == 0
            process = found.serve(NOTIFY_WEBHOOK_URLS=NOBODY, NOTIFY_SIGNING_SECRET=SECRET)
            codat.subscribe(process)
            fill(process, codat)
            assert found.run("reconcile").returncode == 0
            wait_for(lambda: is_settled(process))
            answers = read_answers(process)
            process.stop()
            write(target, read_rows(url), answers)


def write(target: Path, rows: dict[str, list[dict[str, Any]]], answers: dict[str, Any]) -> None:
    """Write the recording with a line for each row and answer."""

    def as_json(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    tables = [
        f"{as_json(name)}: [\n" + ",\n".join(map(as_json, found)) + "\n]"
        for name, found in rows.items()
    ]
    answered = [f"{as_json(path)}: {as_json(answer)}" for path, answer in answers.items()]
    body = ",\n".join(tables), ",\n".join(answered)
    target.write_text(f'{{"rows": {{\n{body[0]}\n}}, "answers": {{\n{body[1]}\n}}}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
