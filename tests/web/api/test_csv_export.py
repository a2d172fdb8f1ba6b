"""Lists as CSV."""

import csv
import io

import pytest
from fastapi.testclient import TestClient

from app.domain.models import Transaction
from app.web.api import csv_export, schemas
from tests.web.store import Store, failed_row

V1 = "/api/v1"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_are_the_fields_of_the_model() -> None:
    """In their order; those of nested models with a prefix."""
    names = ["_".join(path) for path in csv_export.field_paths(schemas.Sync)]
    assert names[:4] == ["company_id", "company_name", "sync_id", "state"]
    assert {"transactions_total", "errors_last_error", "cause_key", "cause_title"} <= set(names)
    assert not {"transactions", "errors", "cause"} & set(names)
    assert len(names) == len(set(names))


def test_every_row_is_exported_in_the_requested_order(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a page; by `Accept` or by `format`; at most `limit` rows if it is given."""
    monkeypatch.setattr(csv_export, "PAGE_SIZE", 2)
    for n in range(5):
        store.sync(f"s{n}")
    answer = client.get(f"{V1}/syncs?sort=company_id", headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="syncs.csv"' in answer.headers["content-disposition"]
    assert [row["sync_id"] for row in rows_of(answer.text)] == [f"s{n}" for n in range(5)]
    limited = client.get(f"{V1}/syncs?format=csv&limit=3&sort=company_id").text
    assert [row["sync_id"] for row in rows_of(limited)] == ["s0", "s1", "s2"]
    assert rows_of(client.get(f"{V1}/syncs?format=csv&company_id=none").text) == []


def test_cells_are_not_formulas(store: Store, client: TestClient) -> None:
    """Texts of accounting software stay texts in a spreadsheet."""
    hostile = '=HYPERLINK("http://x","y")\r\n,ä'
    store.failed(rows=(failed_row("t1", hostile), Transaction("-2", "Failed", None)))
    rows = rows_of(client.get(f"{V1}/push-errors?format=csv").text)
    assert [row["message"] for row in rows] == ["", "'" + hostile]
    assert rows[0]["transaction_id"] == "'-2"
    assert rows[1]["failed"] == "true"
    assert (rows[1]["cause_key"], rows[1]["cause_owner"]) == ("unclassified", "us")


def test_an_error_of_the_first_page_keeps_its_status(client: TestClient) -> None:
    answer = client.get(f"{V1}/syncs?format=csv&cursor=zzz")
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "cursor")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=x", "application/json"),
    ],
)
def test_accept_weights_decide(client: TestClient, accept: str, media_type: str) -> None:
    """JSON, unless CSV has at least the same weight."""
    answer = client.get(f"{V1}/syncs", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(media_type)
