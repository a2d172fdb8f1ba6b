"""Lists as CSV."""

import csv
import io
import re
import time
import unicodedata

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


FORMULAS = (
    "=1+1", "+1+1", "-1+1", "@SUM(1,1)", "=cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!D2",
    '=DDE("cmd";"/C calc";"x")', '=HYPERLINK("http://x","y")', "＝1+1", "＋1+1",
    "－1+1", "＠SUM(1)", "\N{MINUS SIGN}1+1",
)  # fmt: skip
BEFORE = (
    "", " ", "\t", "\r", "\n", "\r\n", "\u00a0", "\u3000", "\ufeff", "\u200b", "\x00", "\x0b", '"',
    "'", "''", "“", ' "', "\u00ad",
)  # fmt: skip
AFTER_TEXT = ("x;", "x,", "x\t", "x\n", "x\r\n", ";", ",", '";', "x; ", 'x;"', "x;\u00a0", "a,b;")


def is_formula(cell: str) -> bool:
    """The model of a spreadsheet, on the safe side: LibreOffice and Excel evaluate less."""
    visible = "".join(c for c in cell if (c.isprintable() and not c.isspace()) or c == " ")
    start = unicodedata.normalize("NFKC", visible.lstrip(' "“'))[:1]
    return start in ("=", "+", "-", "@", "\N{MINUS SIGN}")


@pytest.mark.parametrize("before", [*BEFORE, *AFTER_TEXT], ids=repr)
def test_no_cell_is_a_formula_whatever_separator_is_expected(before: str) -> None:
    """Also where a spreadsheet splits a text, and takes no quotes into account."""
    for formula in FORMULAS:
        text = csv_export.mark_formula(before + formula)
        assert text.replace("'", "") == (before + formula).replace("'", "")
        cells = [text, *re.split("[;,\t\r\n]", text)] if before in AFTER_TEXT else [text]
        assert not [cell for cell in cells if is_formula(cell)], text


@pytest.mark.parametrize(
    "text",
    [
        "INV-0001", "a=b", "x, -5 and y", "Items:\n- one\n- two / three\r\n+ four", "",
        "a@b.example", "Rate 1,-2", "0498e921-9b53-4396-a412-4f2f5983b0a2", "'quoted'",
        '"quoted"', "ä;ö,ü",
    ],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert csv_export.mark_formula(text) == csv_export.mark_for_spreadsheets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "00123", "0", "12345678901234567890", "123456789012", "1e5", "12E+3", "3.14", "1,234",
        "1.234,5", "1-2", "3/4", "2026-01-31", "10:30", "10:30 PM", "$5", "5%", "(5)", "5 €",
        "TRUE", "false", "MAR1", "SEP-1", "1-Mar", "Dec 2024", "12 dec", "+4512345678", "-5",
        " 00123", "00123 ", "1 1/2", "١٢٣", "12345678-1234-1234-1234-123456781234",
        "20231231235959",
    ],
)  # fmt: skip
def test_what_looks_like_a_number_or_date_is_text_in_a_spreadsheet(text: str) -> None:
    """LibreOffice and Excel change such IDs when they open the file."""
    assert csv_export.mark_for_spreadsheets(text) == f"'{text}"


def test_a_text_longer_than_a_cell_is_cut_for_spreadsheets_only() -> None:
    """Excel would continue it in the cells below."""
    text = "x" * 32_767
    assert csv_export.mark_for_spreadsheets(text) == text
    assert csv_export.mark_for_spreadsheets(text + "y") == f"{text[:-1]}…"
    assert csv_export.mark_formula(text + "y") == text + "y"


def test_long_texts_are_marked_quickly() -> None:
    for text in ("1" * 100_000 + "x", "jan" + "1" * 100_000 + "x", " " * 100_000, ";=" * 50_000):
        started = time.perf_counter()
        csv_export.mark_for_spreadsheets(text)
        assert time.perf_counter() - started < 2


def test_a_file_for_spreadsheets_has_a_mark_and_the_separator_of_choice(
    store: Store, client: TestClient
) -> None:
    """Programs get neither unless they ask; numbers and times are values in both."""
    store.company("007", "Ä;ö")
    store.failed("00012345678901234567", "007", code=5130)
    plain = client.get(f"{V1}/syncs?format=csv").content
    assert plain.startswith(b"company_id,")
    (row,) = rows_of(plain.decode())
    assert (row["sync_id"], row["company_id"]) == ("00012345678901234567", "007")
    made = client.get(f"{V1}/syncs?format=csv&spreadsheet=true&separator=%3B").content
    assert made.startswith(b"\xef\xbb\xbfcompany_id;company_name;sync_id;")
    (row,) = csv.DictReader(io.StringIO(made.decode("utf-8-sig")), delimiter=";")
    assert (row["sync_id"], row["company_id"]) == ("'00012345678901234567", "'007")
    assert (row["company_name"], row["status_code"]) == ("Ä;ö", "5130")
    assert row["updated_at"] == "2026-01-01T09:00:00Z"
    assert client.get(f"{V1}/push-errors?format=csv&separator=;").text.startswith("transaction_id;")
    wrong = client.get(f"{V1}/syncs?format=csv&separator=x")
    assert (wrong.status_code, wrong.json()["errors"][0]["name"]) == (422, "separator")


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
