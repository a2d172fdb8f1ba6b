"""Parsing webhook bodies: every documented body, every spelling, and any input at all."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.codat.webhooks.payloads import parse, read_time
from app.domain.models import Transaction
from app.domain.transactions import count

SAMPLES = Path(__file__).parents[2] / "samples" / "codat"
INDEX = json.loads((SAMPLES / "index.json").read_text())["files"]
DELIVERIES = [entry for entry in INDEX if entry["kind"] == "delivery"]


@pytest.mark.parametrize("entry", DELIVERIES, ids=lambda entry: entry["file"])
def test_every_documented_delivery_is_parsed_as_documented(entry: dict[str, Any]) -> None:
    """The index states the meaning of each body."""
    event = parse((SAMPLES / entry["file"]).read_bytes())
    assert (event.event_type, event.company_id, event.sync_id, event.body_id) == (
        entry["event"],
        entry["company"],
        entry["sync"],
        entry["event_id"],
    )
    assert event.parse_status == ("unknown" if entry["event"] == "unknown" else "ok")
    found = {
        "status_code": event.status and event.status.status_code,
        "failure_stage": event.failure_stage,
        "connection_status": event.connection and event.connection.status,
        "failed_items": count(event.transactions or ()).failed,
    }
    assert {key: found[key] for key in found if key in entry} == {
        key: entry[key] for key in found if key in entry
    }


def legacy(name: str, key: str = "RuleType") -> bytes:
    return json.dumps({key: name, "CompanyId": "c", "Data": {"syncId": "s"}}).encode()


SPELLINGS = {
    "sync.started": ["Sync Started", "SyncStarted", "sync-started", "SYNC STARTED"],
    "sync.failed": ["Sync Failed", "SyncFailed", "sync-failed", "expenses.sync.unsuccessful"],
    "sync.completed": [
        *("Sync Completed", "SyncCompleted", "Sync Complete", "sync-complete"),
        "expenses.sync.successful",
    ],
}


@pytest.mark.parametrize("key", ["RuleType", "ruleType", "Type", "type", "eventType", "EventType"])
@pytest.mark.parametrize(
    ("event", "name"), [(event, name) for event, names in SPELLINGS.items() for name in names]
)
def test_every_spelling_under_every_key_is_understood(event: str, name: str, key: str) -> None:
    """Four keys and up to five names for one event are documented."""
    assert (parse(legacy(name, key)).event_type, parse(legacy(name, key)).sync_id) == (event, "s")


@pytest.mark.parametrize(
    "name",
    [
        *("Sync Connection Deleted", "Data sync completed", "Dataset data changed"),
        *("Data Sync Status Changed To Error", "expenses.sync.failed", "Sync Faile"),
        "my.sync.failed.thing",
    ],
)
def test_near_misses_are_not_syncs(name: str) -> None:
    """Names are compared whole: other products' events start with the same words."""
    event = parse(legacy(name))
    assert not event.is_sync_event
    assert event.raw_type == name


def test_the_type_of_the_payload_is_not_the_type_of_the_event() -> None:
    """A write event's payload has a `type` of its own."""
    body = {"eventType": "invoices.write.unsuccessful", "payload": {"type": "Sync Failed"}}
    assert parse(json.dumps(body).encode()).event_type == "invoices.write.unsuccessful"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b'[{"RuleType": "Sync Failed"}]', b'"text"', b"1", b"null",
        b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"a":1,}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_unreadable_with_a_reason(body: bytes) -> None:
    """Stored and shown, never an error: the signature proves that it is Codat's."""
    event = parse(body)
    assert event.parse_status == "unreadable"
    assert event.parse_error


@pytest.mark.parametrize(
    "bad", [None, "", " \u00a0", 7.5, True, [], {}, "a\x00b", "a\tb", "a\x85b", "x" * 201, "\ud800"]
)
def test_a_sync_event_without_a_usable_id_is_unreadable(bad: object) -> None:
    """Without both ids there is no sync to apply it to."""
    for company, sync in ((bad, "s"), ("c", bad)):
        body = {"RuleType": "Sync Failed", "CompanyId": company, "Data": {"syncId": sync}}
        event = parse(json.dumps(body).encode())
        assert (event.event_type, event.parse_status) == ("sync.failed", "unreadable")
        assert "ID missing or invalid" in (event.parse_error or "")


@pytest.mark.parametrize(
    "odd",
    [
        "no\u00a0break", "\u00a0at the start", "zero\u200dwidth", "\ufeffbom", "soft\u00adhyphen",
        " blank ", "rtl\u202emark", "\u3000wide", "line\u2028separator", "\ue000private", "e\u0301",
    ],
)  # fmt: skip
@pytest.mark.parametrize("event", ["legacy", "new"])
def test_an_id_that_a_customer_chose_stays_exactly_as_it_is(odd: str, event: str) -> None:
    """Also with what is invisible in it: in every place of an id, in both generations."""
    rows = [{"id": odd, "transactionId": odd, "status": "PushError"}]
    if event == "legacy":
        data: Any = {"syncId": odd, "transactions": rows}
        body: Any = {"RuleType": "Sync Failed", "CompanyId": odd, "AlertId": odd, "Data": data}
    else:
        data = {"referenceCompany": {"id": odd}, "syncId": odd, "transactions": rows}
        body = {"eventType": "expenses.sync.unsuccessful", "id": odd, "payload": data}
    found = parse(json.dumps(body).encode())
    assert found.is_sync_event
    assert found.transactions == (Transaction(odd, "PushError"),)
    assert (found.company_id, found.sync_id, found.body_id) == (odd, odd, odd)


def test_a_number_is_an_id_and_texts_that_a_database_cannot_store_are_cleaned() -> None:
    """Lenient in what we accept: ids are text; NUL and lone surrogates are replaced."""
    company = {"id": 12, "name": "A\x00B\ud800C é😀"}
    body = {
        "eventType": "expenses.sync.successful",
        "payload": {"referenceCompany": company, "syncId": 34},
    }
    event = parse(json.dumps(body).encode())
    assert (event.company_id, event.sync_id) == ("12", "34")
    assert event.company_name == "A\ufffdB\ufffdC é😀"


def test_absent_transactions_are_not_an_empty_list() -> None:
    """Documented both with and without."""

    def parsed(**payload: object) -> tuple[Transaction, ...] | None:
        fields = {"referenceCompany": {"id": "c"}, "syncId": "s", **payload}
        body = {"eventType": "expenses.sync.unsuccessful", "payload": fields}
        return parse(json.dumps(body).encode()).transactions

    assert parsed() is None
    assert parsed(transactions=None) is None
    assert parsed(transactions="junk") is None
    assert parsed(transactions=[]) == ()
    assert parsed(
        transactions=[7, None, {"id": "t", "status": "Failed", "errorMessage": "no"}]
    ) == (Transaction("t", "Failed", "no", None),)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = scalars | st.lists(scalars, max_size=2)
inner = st.dictionaries(
    st.sampled_from(["syncId", "referenceCompany", "transactions", "connection", "id"]),
    json_values,
    max_size=3,
)
envelopes = st.dictionaries(
    st.sampled_from(
        ["RuleType", "type", "eventType", "CompanyId", "Data", "payload", "id", "AlertId"]
        + ["syncStatusCode", "syncId", "companyId", "generatedDate", "syncUtc"]
    ),
    json_values | inner | st.sampled_from(["Sync Failed", "expenses.sync.successful", 1000, 2000]),
    max_size=6,
)


@given(st.binary() | envelopes.map(lambda envelope: json.dumps(envelope).encode()))
def test_any_body_is_parsed_into_texts_that_a_database_can_store(body: bytes) -> None:
    """The parser never raises; every text is valid UTF-8 without NUL."""
    event = parse(body)
    assert event.parse_status in ("ok", "unknown", "unreadable")
    texts = (event.body_id, event.company_id, event.sync_id, event.company_name, event.parse_error)
    for text in filter(None, texts):
        assert "\x00" not in text.encode().decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-08-03T01:30:09.0797213Z", datetime(2022, 8, 3, 1, 30, 9, 79721, UTC)),
        ("2022-08-03T01:30:09.079Z", datetime(2022, 8, 3, 1, 30, 9, 79000, UTC)),
        ("2022-08-03T01:30:09", datetime(2022, 8, 3, 1, 30, 9, tzinfo=UTC)),
        ("2022-08-03T01:30:09+02:00", datetime(2022, 8, 2, 23, 30, 9, tzinfo=UTC)),
        ("2022-10-23", datetime(2022, 10, 23, tzinfo=UTC)),
        ("2024-09-01T23:59:99Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("yesterday", None),
        ("", None),
        (1700000000, None),
        (None, None),
    ],
)
def test_times_are_read_leniently(text: object, expected: datetime | None) -> None:
    """Every documented form, the impossible one included."""
    assert read_time(text) == expected
