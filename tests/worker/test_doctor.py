"""The doctor names each thing that is wrong, and nothing where all is well."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.codat.asking import TimedCodat
from app.codat.responses import Consumer
from app.db import sync_writer as store
from app.db.engine import Database, open_database
from app.db.journal import work_off
from app.db.keep import keep_all
from app.db.outgoing import owe
from app.db.tables import fetches
from app.db.tables_told import outgoing
from app.domain.checks import Misconfigured
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable, SettingsError
from app.settings import Settings, load_settings
from app.worker import doctor
from app.worker.doctor import codat_wrong, database_wrong, settings_wrong
from tests.processes import SECRET
from tests.reports import T0, after, delivery
from tests.worker.test_fetcher import tell

GOOD = Consumer("w1", "https://us.example/webhooks/codat", False, ("SyncFailed", "SyncCompleted"))
KEY = "tTq4h9mZx2Lk8WvB1sYd"


def settings(**given: Any) -> Settings:
    told = {"codat_webhook_secrets": SECRET, "codat_api_key": "codat-key", "api_keys": KEY}
    return load_settings(**told | given)


def names(found: list[Misconfigured]) -> list[str]:
    assert all(each.text and each.do for each in found)
    return [each.name for each in found]


def test_a_complete_set_of_settings_has_no_finding() -> None:
    """The doctor is not afraid of what is right."""
    assert settings_wrong(settings()) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"codat_webhook_secrets": ""}, ["setting_missing"]),
        ({"codat_api_key": None, "api_keys": ""}, ["setting_missing"] * 2),
        ({"codat_webhook_secrets": f"{SECRET},v1,{SECRET}"},
         ["webhook_secret_wrong", "webhook_secret_repeated"]),
        ({"codat_webhook_secrets": "whsec_canary"}, ["webhook_secret_wrong"]),
        ({"api_keys": f"{KEY},{KEY}"}, ["api_key_repeated"]),
        ({"codat_api_key": KEY}, ["api_key_shared"]),
        ({"codat_base_url": "http://codat.internal"}, ["codat_in_clear"]),
        ({"reconcile_every_minutes": 0}, ["reconcile_off"]),
    ],
)  # fmt: skip
def test_each_wrong_setting_is_a_finding_of_its_own(
    given: dict[str, Any], expected: list[str]
) -> None:
    """By name, and without its value."""
    found = settings_wrong(settings(**given))
    assert names(found) == expected
    said = str(found)
    assert SECRET not in said
    assert KEY not in said
    assert "canary" not in said


def test_settings_that_cannot_be_read_are_findings_and_not_also_missing() -> None:
    """One cause, one finding."""
    refused = SettingsError("PORT: must be a number", "API_KEYS: each key must be longer")
    found = settings_wrong(settings(api_keys=""), refused)
    assert names(found) == ["setting_wrong", "setting_wrong"]
    assert [each.text for each in found] == list(refused.problems)


def beat(database: Database, at: datetime = T0) -> None:
    with database.writing() as connection:
        store.beat(connection, "w", at)


def test_a_database_that_is_used_has_no_finding(database: Database) -> None:
    """Work that has just been owed is no trouble."""
    beat(database)
    tell(database)
    assert database_wrong(database, T0) == []


def test_a_silent_worker_is_a_finding(database: Database) -> None:
    """Never seen, or not for a minute."""
    assert names(database_wrong(database, T0)) == ["worker_silent"]
    beat(database)
    assert names(database_wrong(database, after(minutes=2))) == ["worker_silent"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"state": "dead", "due": None}, "fetches_given_up"),
        ({"due": T0 - timedelta(minutes=20)}, "fetches_stalled"),
        ({"due": after(hours=1), "attempts": 5}, "fetches_stalled"),
    ],
)
def test_work_that_makes_no_progress_is_a_finding(
    database: Database, values: dict[str, Any], name: str
) -> None:
    """Given up, taken by nobody, or tried in vain."""
    beat(database)
    tell(database)
    with database.writing() as connection:
        connection.execute(update(fetches).values(values))
    assert names(database_wrong(database, T0)) == [name]


def test_messages_that_were_given_up_are_a_finding(database: Database) -> None:
    """Somebody was promised to be told, and is not."""
    beat(database)
    with database.writing() as connection:
        owe(connection, "sync.completed", {}, T0, to=("webhook:a", "webhook:b"))
    assert database_wrong(database, T0) == []
    with database.writing() as connection:
        connection.execute(update(outgoing).where(outgoing.c.recipient == "webhook:a")
                           .values(state="dead", due=None))  # fmt: skip
    (found,) = database_wrong(database, T0)
    assert (found.name, found.text[-3:]) == ("messages_given_up", ": 1")


def test_a_journal_that_nobody_works_off_is_a_finding(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed and the totals would stand still behind a worker that seems to live."""
    monkeypatch.setattr(doctor, "LONG_JOURNAL", 2)
    beat(database)
    for n in range(3):
        assert names(database_wrong(database, T0)) == []
        with database.writing() as connection:
            keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}")])
    assert names(database_wrong(database, T0)) == ["journal_long"]
    work_off(database)
    assert names(database_wrong(database, T0)) == []


def test_a_schema_that_is_not_there_is_a_finding(empty_database_url: str) -> None:
    """With the remedy."""
    database = open_database(empty_database_url)
    (found,) = database_wrong(database, T0)
    database.close()
    assert found.name == "schema_outdated"
    assert "migrate" in found.do


def test_a_database_that_is_away_is_a_finding_without_its_address() -> None:
    """Addresses hold passwords."""
    database = open_database("postgresql://u:canary@127.0.0.1:1/x")
    (found,) = database_wrong(database, T0)
    database.close()
    assert found.name == "database_unreachable"
    assert "canary" not in str(found)


@dataclass
class Codat:
    told: list[Consumer] = field(default_factory=lambda: [GOOD])
    error: CodatError | None = None
    skew: timedelta | None = timedelta()

    async def list_consumers(self) -> list[Consumer]:
        if self.error:
            raise self.error
        return self.told


def ask(codat: Codat, host: str = "127.0.0.1") -> list[str]:
    return names(asyncio.run(codat_wrong(codat, host)))


def test_codat_that_knows_us_well_has_no_finding() -> None:
    """Also when we listen to the network behind TLS."""
    assert ask(Codat()) == []
    assert ask(Codat(), "0.0.0.0") == []


@pytest.mark.parametrize(
    ("codat", "expected"),
    [
        (Codat([]), ["endpoint_missing"]),
        (Codat([replace(GOOD, disabled=True)]), ["endpoint_disabled"]),
        (Codat([replace(GOOD, event_types=("SyncFailed",))]), ["event_types_missing"]),
        (Codat(skew=timedelta(minutes=-2)), ["clock_skewed"]),
        (Codat(error=CodatRefused("no", status=401)), ["codat_key_refused"]),
        (Codat(error=CodatRefused("no", status=403)), ["codat_key_refused"]),
        (Codat(error=CodatRefused("plan", status=402)), ["codat_refuses"]),
        (Codat(error=CodatRateLimited("wait", status=429)), ["codat_rate_limited"]),
        (Codat(error=CodatUnavailable("away")), ["codat_unreachable"]),
    ],
)
def test_each_trouble_with_codat_is_a_finding(codat: Codat, expected: list[str]) -> None:
    """The key, the endpoint, the clock, and whether it can be asked at all."""
    assert ask(codat) == expected


def test_an_exposed_door_without_tls_is_a_finding() -> None:
    """Neither an answer nor an https:// address of ours."""
    assert ask(Codat(error=CodatUnavailable("away")), "0.0.0.0") == [
        "codat_unreachable",
        "host_exposed",
    ]
    assert ask(Codat([replace(GOOD, url="http://us/webhooks/codat")]), "::") == ["host_exposed"]


def test_a_secret_in_an_endpoints_address_is_not_repeated() -> None:
    """The finding names the endpoint, without user, password and query."""
    url = "https://u:canary@us.example/webhooks/codat?token=canary"
    found = asyncio.run(codat_wrong(Codat([replace(GOOD, url=url, disabled=True)]), "127.0.0.1"))
    assert "canary" not in str(found)
    assert "us.example" in str(found)


def timed(headers: dict[str, str], status: int = 200) -> timedelta | None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"results": []}, headers=headers)

    async def one(clock: Callable[[], datetime]) -> timedelta | None:
        transport = httpx.MockTransport(answer)
        async with TimedCodat("https://c.test", "k", clock=clock, transport=transport) as codat:
            if status == 200:
                await codat.list_consumers()
            else:
                with pytest.raises(CodatError):
                    await codat.list_consumers()
            return codat.skew

    return asyncio.run(one(lambda: T0))


def test_the_clock_is_compared_with_the_date_of_any_answer() -> None:
    """A refusal tells the time as well; nonsense tells nothing."""
    an_hour_on = format_datetime(after(hours=1), usegmt=True)
    assert timed({"date": an_hour_on}) == timedelta(hours=-1)
    assert timed({"date": an_hour_on}, 401) == timedelta(hours=-1)
    assert timed({"date": "tomorrow"}) is None
    assert timed({}) is None
