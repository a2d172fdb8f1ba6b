"""What README decides about bodies in other encodings: at the door, on both databases."""

import json

import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import events
from tests.web.test_webhooks import count, post, signed

TOLD = {"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": "s1"}}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-be"])
def test_a_signed_body_in_another_unicode_form_is_read(database: Database, encoding: str) -> None:
    """A byte order mark, or zeros between the letters; the bytes are kept as they came."""
    body = json.dumps(TOLD).encode(encoding)
    assert post(database, body, signed(body)).status_code == 204
    with database.reading() as connection:
        row = connection.execute(select(events)).mappings().one()
    assert (row["reading"], row["sync_id"], row["body"]) == ("ok", "s1", body)


@pytest.mark.parametrize(
    "body", [json.dumps(TOLD).encode("utf-16"), '{"a":"é"}'.encode("latin-1"), b"\xff", b"\xc0\x80"]
)
def test_what_is_no_utf_8_cannot_be_signed(database: Database, body: bytes) -> None:
    """Its signature is over text: there is none over these bytes."""
    assert post(database, body, signed(b"{}")).status_code == 401
    assert count(database) == 0
