"""The search: ids, their beginnings, and names as people type and paste them."""

import uuid
from typing import Any

import pytest

from app.db.engine import Database
from app.db.queries import companies, search, syncs, transactions
from app.db.queries.syncs import SyncFilter
from app.db.queries.transactions import PushErrorFilter
from tests.web.store import Store, failed_row

MESSAGE = "An error occurred in a downstream service. Correlation ID: {}. Message: no"


def found(database: Database, q: str) -> list[str]:
    """The sync ids that a search finds, sorted."""
    with database.reading() as connection:
        page = syncs.list_syncs(connection, SyncFilter(q=q), limit=200)
    return sorted(record.sync.sync_id for record in page.items)


def found_companies(database: Database, q: str) -> list[str]:
    """The ids of companies that a search finds, by name."""
    with database.reading() as connection:
        page = companies.list_companies(connection, q=q)
    return [company.company_id for company in page.items]


def test_search_finds_ids_and_words_of_names(store: Store) -> None:
    """One of the four ids, or a name in any case. A wildcard is an ordinary character."""
    store.company("c1", "Ring & Sons 100%")
    store.company("c2", "Toft stores")
    correlation_id = uuid.uuid4().hex
    store.failed("s1", "c1", rows=(failed_row("t9", MESSAGE.format(correlation_id)),))
    store.completed("s2", "c2")
    for q in ("s1", "c1", "t9", correlation_id, "RING", "ring & sons 100%", "sons"):
        assert found(store.database, q=q) == ["s1"], q
    for q in ("ons", "r%", "t", "_ing", "%"):
        assert found(store.database, q=q) == (["s2"] if q == "t" else []), q


def test_search_finds_an_id_in_capitals(store: Store) -> None:
    """Other systems show the same id in capitals; an id that is stored in capitals is found too."""
    small, large = str(uuid.uuid4()), str(uuid.uuid4()).upper()
    transaction_id = str(uuid.uuid4())
    store.failed(small, rows=(failed_row(transaction_id),))
    store.completed(large)
    for q, sync_id in ((small.upper(), small), (transaction_id.upper(), small), (large, large)):
        assert found(store.database, q=q) == [sync_id]


def test_search_finds_many_companies(store: Store) -> None:
    """A short prefix may match more companies than a list of ids should have."""
    for n in range(60):
        store.company(f"c{n}", f"Shop {n}")
        store.sync(f"s{n}", f"c{n}")
    assert len(found(store.database, q="shop")) == 60


NAMES = {
    "muller": "Müller & Größe GmbH",
    "cafe": "Cafe\u0301 du\u00a0Nord",
    "obrien": "O’Brien’s Diner, Inc.",
    "smith": "Smith-Jones (UK) Holding",
    "moller": "A.P. Møller",
}


@pytest.mark.parametrize(
    ("q", "company_id"),
    [
        ("muller", "muller"),
        ("MÜLLER", "muller"),
        ("Mueller", "muller"),
        ("moeller", "moller"),
        ("Mu\u0308ller", "muller"),
        ("grosse", "muller"),
        ("gmbh muller", "muller"),
        ("müller  größe", "muller"),
        ("Café du Nord", "cafe"),
        ("\u00a0cafe  du nord \n", "cafe"),
        ("nord", "cafe"),
        ("O'Brien's", "obrien"),
        ("obriens diner inc", "obrien"),
        ("“O`Brien’s Diner, Inc.”", "obrien"),
        ("jones", "smith"),
        ("uk", "smith"),
        ("Smith–Jones", "smith"),
        ("Ａ.P. Moller", "moller"),
        ("illers", None),
        ("muller nord", None),
        ("mu%er", None),
        ("%", None),
        (",", None),
        (" ".join(f"word{n}" for n in range(160)), None),
    ],
)
def test_names_are_found_as_people_type_and_paste_them(
    store: Store, q: str, company_id: str | None
) -> None:
    """Any words of a name, or their beginnings, in any order; the same in both searches."""
    for name_of, name in NAMES.items():
        store.company(name_of, name)
        store.sync(f"sync of {name_of}", name_of)
    expected = [company_id] if company_id else []
    assert found_companies(store.database, q) == expected
    assert found(store.database, q) == [f"sync of {name}" for name in expected]


def test_the_beginning_of_an_id_finds_it(store: Store) -> None:
    """Eight characters or more, as lists show them: of every kind of id, in any case."""
    sync_id, company_id, transaction_id = (str(uuid.uuid4()) for _ in range(3))
    correlation_id = uuid.uuid4().hex
    rows = (failed_row(transaction_id, MESSAGE.format(correlation_id)), failed_row("t2"))
    store.failed(sync_id, company_id, rows=rows)
    store.failed("INV-2024-0009", company_id, rows=(failed_row("zzzzzzzz-1"),))
    for whole in (sync_id, transaction_id, correlation_id):
        for q in (whole[:8], whole[:9], whole[:13].upper(), f" {whole[:20]}\ufeff"):
            assert found(store.database, q) == [sync_id], q
    assert found_companies(store.database, company_id[:8]) == [company_id]
    assert found(store.database, "inv-2024") == ["INV-2024-0009"]
    assert found(store.database, "zzzzzzzz") == ["INV-2024-0009"]
    for q in (sync_id[:7], sync_id[:8] + "x", sync_id[1:9], "--------", "%%%%%%%a"):
        assert found(store.database, q) == [], q
    with store.database.reading() as connection:
        matches = search.find_transactions(connection, transaction_id[:8], 5)
        page = transactions.list_push_errors(connection, PushErrorFilter(q=transaction_id[:8]))
    assert [match.transaction_id for match in matches] == [transaction_id]
    assert [row.transaction_id for row in page.items] == [transaction_id]


def test_the_beginning_of_too_many_ids_is_none(store: Store) -> None:
    """It is a common word and not the beginning of an id."""
    rows = tuple(failed_row(f"expense-{n:03}") for n in range(60))
    store.failed("s1", rows=rows)
    assert found(store.database, "expense-0") == []
    assert found(store.database, "expense-01") == ["s1"]


@pytest.mark.parametrize(
    "odd", ["a\u00a0b", "\u00a0lead", "tail\u200d", "\ufeffbom", "soft\u00adhyphen", "e\u0301"]
)
def test_ids_are_found_exactly_as_they_are(store: Store, odd: str) -> None:
    """With what is invisible in them, also at their ends."""
    values: dict[str, Any] = {"rows": (failed_row(f"t {odd}"),)}
    store.failed(odd, f"c {odd}", **values)
    for q in (odd, f"c {odd}", f"t {odd}"):
        assert found(store.database, q) == [odd]


def test_an_id_from_a_spreadsheet_is_found(store: Store) -> None:
    """There an apostrophe marks it as text; one that is part of an id counts first."""
    store.sync("00123")
    store.sync("'5")
    store.sync("5")
    for q, sync_id in (("'00123", "00123"), ("00123", "00123"), ("'5", "'5"), ("5", "5")):
        assert found(store.database, q) == [sync_id]
