"""The doctor: checks an installation, and names each misconfiguration.

Settings first, then the database, then Codat: one call, which shows whether the key is accepted,
how our endpoint is configured, and how far our clock is from Codat's.
"""

import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from app.codat.client import CodatClient
from app.codat.transport import EnvironmentTransport, EnvironmentUnusable
from app.db import jobs, migrations, workers
from app.db.engine import Database, require_writable
from app.db.queries.monitoring import Snapshot, take_snapshot
from app.db.workers import RulesInUse
from app.domain import checks
from app.domain.checks import Misconfiguration
from app.domain.webhook_loss import check_endpoints, is_ours
from app.errors import (
    CodatError,
    CodatRateLimited,
    CodatRefused,
    DatabaseUnavailable,
    DatabaseUnusable,
    SchemaError,
)
from app.settings import REQUIRED, Settings, is_signing_secret, setting_names

DOCTOR_TIMEOUT = httpx.Timeout(10.0)
SILENT_AFTER = timedelta(seconds=60)
JOBS_LATE_AFTER = timedelta(minutes=15)
EVENTS_LATE_AFTER = timedelta(minutes=5)
MANY_ATTEMPTS = 5
_PORTAL = "in the Codat Portal under Settings, Webhooks"
_CODAT_ACTIONS = {
    "endpoint_missing": f"Add the endpoint {_PORTAL}, or correct its address or PUBLIC_URL.",
    "endpoint_disabled": f"Enable it {_PORTAL}, then replay the missed webhooks.",
    "event_types_missing": f"Add the missing event types {_PORTAL}.",
}


def check_settings(settings: Settings, problems: Sequence[str] = ()) -> Iterator[Misconfiguration]:
    """Check the settings alone; `problems` are those of settings without a value."""
    for problem in problems:
        yield Misconfiguration("setting_wrong", problem, "Correct it; see .env.example.")
    for name in REQUIRED:
        if not getattr(settings, name) and name not in setting_names(problems):
            text = f"{name.upper()} is not set."
            yield Misconfiguration("setting_missing", text, "See .env.example.")
    secrets = [secret.get_secret_value() for secret in settings.codat_webhook_secrets]
    yield from _check_webhook_secrets(secrets)
    keys = [entry.key.get_secret_value() for entry in settings.api_keys]
    codat_key = settings.codat_api_key
    others = [*secrets, codat_key.get_secret_value()] if codat_key else secrets
    yield from checks.check_api_keys(keys, others)
    base_url = checks.check_codat_base_url(settings.codat_base_url)
    if base_url:
        yield base_url
    if not settings.reconcile_every_minutes:
        yield Misconfiguration(
            "reconcile_off",
            "RECONCILE_EVERY_MINUTES is 0, so lost webhooks are not detected.",
            "Set it to 15, or run `python -m app reconcile` regularly.",
        )


def check_environment(settings: Settings) -> Iterator[Misconfiguration]:
    """Proxies and certificates that the environment names and that cannot be used."""
    receivers = [*settings.notify_webhook_urls, settings.retry_webhook_url]
    urls = [url.get_secret_value() for url in receivers if url]
    transport = EnvironmentTransport()
    for problem in dict.fromkeys(map(transport.problem, [settings.codat_base_url, *urls])):
        if problem:
            text = f"Requests to other systems fail: {problem}."
            action = "Correct the variable; see docs/operations.md, Outgoing connections."
            yield Misconfiguration("environment_wrong", text, action)


def _check_webhook_secrets(secrets: Sequence[str]) -> Iterator[Misconfiguration]:
    for number, secret in enumerate(secrets, 1):
        if not is_signing_secret(secret):
            yield Misconfiguration(
                "webhook_secret_wrong",
                f"CODAT_WEBHOOK_SECRETS: secret {number} is invalid. Expected `whsec_…`.",
                "Copy it completely from the endpoint's page in the Codat Portal.",
            )
    if len(set(secrets)) < len(secrets):
        yield Misconfiguration(
            "webhook_secret_repeated",
            "CODAT_WEBHOOK_SECRETS contains the same secret twice.",
            "Each endpoint in the Codat Portal has its own; one of them may be missing here.",
        )


def check_sqlite_file(file: Path) -> Misconfiguration | None:
    """Whether SQLite can open a file safely; does not open it.

    A log that is older than its database belongs to the file that a restored backup replaced, and
    SQLite would apply it to the backup.
    """
    try:
        replaced_at = file.stat().st_ctime_ns
    except FileNotFoundError:
        text = f"The SQLite file of DATABASE_URL, {file}, does not exist."
        return Misconfiguration("database_missing", text, "Run `python -m app migrate`.")
    except OSError:
        return None  # opening it has the reason
    try:
        wal = file.with_name(f"{file.name}-wal").stat()
    except OSError:
        return None
    if not wal.st_size or wal.st_ctime_ns >= replaced_at or _is_open(file):
        return None
    return Misconfiguration(
        "sqlite_old_wal",
        f"{file} was replaced after {file.name}-wal was written, which belongs to another file.",
        f"If you restored a backup, keep the service stopped, delete {file.name}-wal and "
        f"{file.name}-shm, restore it again, and start. Otherwise start the service.",
    )


def _is_open(file: Path) -> bool:
    """Whether a process uses an SQLite file: it then holds a lock on byte 128 of `-shm`."""
    try:
        with file.with_name(f"{file.name}-shm").open("r+b") as shm:
            fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def database_unusable(error: DatabaseUnusable) -> Misconfiguration:
    """The finding for a database that must be configured differently."""
    action = "Correct it, or DATABASE_URL; see docs/operations.md, Database."
    return Misconfiguration("database_unusable", f"{str(error).rstrip('.')}.", action)


def check_database(database: Database, now: datetime) -> list[Misconfiguration]:
    """Check the database, the worker's heartbeat, and work that makes no progress."""
    try:
        with database.reading() as connection:
            require_writable(connection)
            migrations.check(connection)
            snapshot = take_snapshot(connection, now)
            retried = jobs.count_retried(connection, "fetch", MANY_ATTEMPTS)
            rules = workers.rules_in_use(connection, now - workers.LIVE_FOR)
    except SchemaError as error:
        text = str(error).partition(" Run ")[0]
        return [Misconfiguration("schema_outdated", text, "Run `python -m app migrate`.")]
    except DatabaseUnusable as error:
        return [database_unusable(error)]
    except DatabaseUnavailable as error:
        action = "Start it, or correct DATABASE_URL. The database's log has the details."
        return [Misconfiguration("database_unreachable", f"{error}.", action)]
    return [
        *_check_worker(snapshot, now),
        *_check_rules(rules),
        *_check_events(snapshot, now),
        *_check_jobs(snapshot, retried, now),
    ]


def _check_worker(snapshot: Snapshot, now: datetime) -> Iterator[Misconfiguration]:
    seen_at = snapshot.worker_seen_at
    if seen_at is None or now - seen_at > SILENT_AFTER:
        since = f" since {seen_at:%Y-%m-%d %H:%M} UTC" if seen_at else ""
        yield Misconfiguration(
            "worker_silent",
            f"No worker has been running{since}.",
            "Set WORKER_IN_WEB=true, or start `python -m app worker`.",
        )


def _check_rules(rules: Sequence[RulesInUse]) -> Iterator[Misconfiguration]:
    if len(rules) > 1:
        older = ", ".join(worker for found in rules[1:] for worker in found.worker_ids)
        yield Misconfiguration(
            "cause_rules_differ",
            f"Workers have different rules for causes. Those of {', '.join(rules[0].worker_ids)} "
            f"apply, the newest; older ones: {older}.",
            "Set the same CAUSES_FILE for all workers, and run the same version. During an "
            "upgrade, wait until the old workers have ended.",
        )


def _check_events(snapshot: Snapshot, now: datetime) -> Iterator[Misconfiguration]:
    if snapshot.projection_errors:
        yield Misconfiguration(
            "events_failed",
            f"Webhook events that could not be processed: {snapshot.projection_errors}.",
            "See `projection_error` of the events in /events. After a fix, replay them.",
        )
    pending = snapshot.pending_events
    if pending.oldest_received_at and now - pending.oldest_received_at > EVENTS_LATE_AFTER:
        yield Misconfiguration(
            "events_behind",
            f"{pending.count} webhook events are waiting to be processed, "
            f"the oldest since {pending.oldest_received_at:%Y-%m-%d %H:%M} UTC.",
            "Check that a worker is running and what it logs; add workers if they are busy.",
        )


def _check_jobs(snapshot: Snapshot, retried: int, now: datetime) -> Iterator[Misconfiguration]:
    fetches = snapshot.fetch_jobs
    if fetches.dead:
        yield Misconfiguration(
            "fetches_given_up",
            f"Syncs whose fetch has stopped retrying: {fetches.dead}.",
            "See `errors.last_error` of the syncs. Then run `python -m app redrive --all-dead`.",
        )
    oldest = fetches.oldest_run_at
    is_late = oldest is not None and now - oldest > JOBS_LATE_AFTER and not snapshot.paused_until
    if is_late or retried:
        yield Misconfiguration(
            "fetches_stalled",
            f"Fetches that have been due for long: {fetches.due if is_late else 0}; "
            f"that have failed {MANY_ATTEMPTS} times or more: {retried}.",
            "See `errors.last_error` of the syncs whose `errors.state` is waiting or incomplete.",
        )
    if snapshot.message_jobs.dead:
        yield Misconfiguration(
            "messages_given_up",
            f"Outgoing messages that could not be delivered: {snapshot.message_jobs.dead}.",
            "Fix the receiver that the alert names. Then run `python -m app redrive --messages`.",
        )


async def check_codat(
    codat: CodatClient, host: str, webhook_url: str | None = None
) -> list[Misconfiguration]:
    """Check the key, our endpoint at Codat, the clock, and TLS; `host` is what we listen on.

    `webhook_url` is the address of our endpoint, if it is known.
    """
    urls = [webhook_url] if webhook_url else []
    try:
        consumers = await codat.list_consumers()
    except CodatError as error:
        is_reported = isinstance(error.__cause__, EnvironmentUnusable)  # by check_environment
        found = [] if is_reported else [_call_failed(error)]
    else:
        endpoints = [replace(item, url=checks.redact_url(item.url)) for item in consumers]
        urls += [endpoint.url for endpoint in endpoints if is_ours(endpoint.url, webhook_url)]
        found = [
            Misconfiguration(finding.cause, f"{finding.text}.", _CODAT_ACTIONS[finding.cause])
            for finding in check_endpoints(endpoints, webhook_url)
        ]
    others = (checks.check_clock(codat.clock_skew), checks.check_tls(host, urls))
    return [*found, *filter(None, others)]


def _call_failed(error: CodatError) -> Misconfiguration:
    if isinstance(error, CodatRateLimited):
        action = "Wait: the limit is reset at midnight UTC at the latest."
        return Misconfiguration("codat_rate_limited", str(error), action)
    if error.status in (401, 403):
        return Misconfiguration(
            "codat_key_refused",
            f"Codat rejects CODAT_API_KEY ({error.status}).",
            "Copy the key from the Codat Portal under Developers, API keys.",
        )
    if isinstance(error, CodatRefused):
        return Misconfiguration("codat_refuses", str(error), "Contact Codat's support.")
    return Misconfiguration(
        "codat_unreachable",
        str(error),
        "Check CODAT_BASE_URL, the network and the proxy, and https://status.codat.io.",
    )
