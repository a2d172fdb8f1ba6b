"""The doctor: examines an installation and names each thing that is wrong with it.

Settings first, then the database, then Codat: one call, which shows whether the key is accepted,
what Codat knows of our endpoint, and how far our clock is from Codat's.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from app.codat.webhooks.signature import Verifier
from app.db import journal, outgoing
from app.db import migrations as schema
from app.db.engine import Database
from app.db.queries import events as queries_events
from app.db.queries import maintenance as queries_upkeep
from app.domain import checks as diagnosis
from app.domain.checks import Misconfigured
from app.domain.webhook_loss import OUR_PATH, Endpoint, endpoint_findings
from app.errors import (
    CodatError,
    CodatRateLimited,
    CodatRefused,
    SchemaError,
    SettingsError,
    StorageUnavailable,
)
from app.settings import Settings
from app.worker.tasks.webhook_monitor import Consumer

REQUIRED = ("codat_webhook_secrets", "codat_api_key", "api_keys")
SILENT_AFTER = timedelta(seconds=60)
LATE_AFTER = timedelta(minutes=15)
MANY_ATTEMPTS = 5
LONG_JOURNAL = 1000
_IN_PORTAL = "in the Codat Portal under Settings, Webhooks"
_DO_AT_CODAT = {
    "endpoint_missing": f"add https://YOUR-HOST{OUR_PATH} {_IN_PORTAL}",
    "endpoint_disabled": f"enable it {_IN_PORTAL}, then replay what was missed",
    "event_types_missing": f"add the missing event types {_IN_PORTAL}",
}


class Examined(Protocol):
    """What the doctor needs of a Codat client."""

    @property
    def skew(self) -> timedelta | None:
        """Our clock less Codat's, after a call."""

    async def list_consumers(self) -> Sequence[Consumer]:
        """Our endpoints; raises CodatError."""


def settings_wrong(settings: Settings, refused: SettingsError | None = None) -> list[Misconfigured]:
    """What is wrong with the settings alone; `refused` are those that could not be read at all."""
    problems = refused.problems if refused else ()
    found = [
        Misconfigured("setting_wrong", each, "correct it; see .env.example") for each in problems
    ]
    named = {each.partition(":")[0].lower() for each in problems}
    for name in REQUIRED:
        if not getattr(settings, name) and name not in named:
            text = f"{name.upper()} is not set"
            found.append(Misconfigured("setting_missing", text, "set it; see .env.example"))
    return [*found, *_secrets_wrong(settings), *_keys_wrong(settings), *_rest_wrong(settings)]


def _secrets_wrong(settings: Settings) -> Iterator[Misconfigured]:
    secrets = [each.get_secret_value() for each in settings.codat_webhook_secrets]
    for place, secret in enumerate(secrets, 1):
        try:
            Verifier([secret])
        except SettingsError:
            yield Misconfigured(
                "webhook_secret_wrong",
                f"CODAT_WEBHOOK_SECRETS: secret number {place} cannot be one of Codat's",
                "copy it whole from the endpoint's page in the Codat Portal; it begins with whsec_",
            )
    if len(set(secrets)) < len(secrets):
        yield Misconfigured(
            "webhook_secret_repeated",
            "CODAT_WEBHOOK_SECRETS has the same secret twice",
            "each endpoint in the Codat Portal has its own: one of them may be missing here",
        )


def _keys_wrong(settings: Settings) -> list[Misconfigured]:
    keys = [each.get_secret_value() for each in settings.api_keys]
    others = [each.get_secret_value() for each in settings.codat_webhook_secrets]
    if settings.codat_api_key:
        others.append(settings.codat_api_key.get_secret_value())
    return diagnosis.keys_wrong(keys, others)


def _rest_wrong(settings: Settings) -> Iterator[Misconfigured]:
    clear = diagnosis.in_clear(settings.codat_base_url)
    if clear:
        yield clear
    if not settings.reconcile_every_minutes:
        yield Misconfigured(
            "reconcile_off",
            "RECONCILE_EVERY_MINUTES is 0: a webhook that is lost stays unnoticed",
            "set it to 15, or run `python -m app reconcile` from time to time",
        )


def database_wrong(database: Database, now: datetime) -> list[Misconfigured]:
    """What is wrong with the database and with the work that is owed in it."""
    try:
        with database.reading() as connection:
            schema.check(connection)
            seen = queries_events.last_heartbeat(connection)
            given_up = queries_upkeep.count_given_up(connection)
            undelivered = sum(outgoing.given_up(connection).values())
            stalled = queries_upkeep.count_stalled(
                connection, due_before=now - LATE_AFTER, attempts=MANY_ATTEMPTS
            )
            behind = journal.is_longer_than(connection, LONG_JOURNAL)
    except SchemaError as error:
        text = str(error).partition(":")[0]
        return [Misconfigured("schema_outdated", text, "run `python -m app migrate`")]
    except StorageUnavailable:
        return [
            Misconfigured(
                "database_unreachable",
                "the database of DATABASE_URL does not answer",
                "start it, or correct DATABASE_URL; the log of the database says more",
            )
        ]
    return [
        *_worker_wrong(seen, now),
        *_work_wrong(given_up, stalled, behind),
        *_undelivered_wrong(undelivered),
    ]


def _worker_wrong(seen: datetime | None, now: datetime) -> Iterator[Misconfigured]:
    if seen is None or now - seen > SILENT_AFTER:
        since = f" since {seen:%Y-%m-%d %H:%M} UTC" if seen else ""
        yield Misconfigured(
            "worker_silent",
            f"no worker has been seen{since}",
            "set WORKER_IN_WEB=true and serve, or start `python -m app worker`",
        )


def _work_wrong(given_up: int, stalled: int, behind: bool) -> Iterator[Misconfigured]:
    if given_up:
        yield Misconfigured(
            "fetches_given_up",
            f"Codat is no longer asked about these syncs: {given_up}",
            "see errors.last_error of them; then `python -m app redrive --all-dead`",
        )
    if stalled:
        yield Misconfigured(
            "fetches_stalled",
            f"syncs that have been waiting for Codat's answer for long: {stalled}",
            "see errors.last_error of the syncs whose errors.state is waiting or incomplete",
        )
    if behind:
        yield Misconfigured(
            "journal_long",
            f"more than {LONG_JOURNAL} commits wait to be told in the feed and to be counted",
            "a worker does so every second: see what its log says of the journal",
        )


def _undelivered_wrong(undelivered: int) -> Iterator[Misconfigured]:
    if undelivered:
        yield Misconfigured(
            "messages_given_up",
            f"messages that were not delivered and are no longer tried: {undelivered}",
            "mend the receiver, the alert names it; then `python -m app redrive --messages`",
        )


async def codat_wrong(codat: Examined, host: str) -> list[Misconfigured]:
    """What is wrong between Codat and us: the key, our endpoint, the clock, and TLS."""
    addresses: list[str] = []
    try:
        told = await codat.list_consumers()
    except CodatError as error:
        found = [_refused(error)]
    else:
        endpoints = [
            Endpoint(diagnosis.shown(each.url or ""), each.disabled, each.event_types)
            for each in told
        ]
        addresses = [each.url for each in endpoints if OUR_PATH in each.url]
        found = [
            Misconfigured(each.cause, each.text, _DO_AT_CODAT[each.cause])
            for each in endpoint_findings(endpoints)
        ]
    also = (diagnosis.skewed(codat.skew), diagnosis.exposed(host, addresses))
    return [*found, *(each for each in also if each)]


def _refused(error: CodatError) -> Misconfigured:
    if isinstance(error, CodatRateLimited):
        return Misconfigured(
            "codat_rate_limited", str(error), "wait: it ends by itself, at the latest at midnight"
        )
    if error.status in (401, 403):
        return Misconfigured(
            "codat_key_refused",
            f"Codat does not accept CODAT_API_KEY ({error.status})",
            "copy the key from the Codat Portal under Developers, API keys",
        )
    if isinstance(error, CodatRefused):
        return Misconfigured("codat_refuses", str(error), "ask Codat's support about it")
    return Misconfigured(
        "codat_unreachable",
        str(error),
        "check CODAT_BASE_URL, the network and the proxy; https://status.codat.io",
    )
