"""Opens the neighbours as the settings say: the database, Codat, and those whom we tell."""

from collections.abc import Callable, Sequence
from datetime import datetime

import httpx
from pydantic import SecretStr

from app.codat.client import CodatClient
from app.codat.rate_limiter import Limits
from app.db.engine import Database, open_database
from app.domain.outgoing import Recipients, Way, name_of
from app.settings import Settings, require
from app.worker.channels import Send, WebhookSender, WordsSender
from app.worker.rate_limit import Gate
from app.worker.tasks.reclassify import team_rules

CONNECTIONS = 12  # to the database, shared by the processes of `serve`; the inbox's come on top
FEWEST_CONNECTIONS = 4  # of each; eight processes then stay well under PostgreSQL's hundred


def open_for(settings: Settings) -> Database:
    """The database, with those who are told of what it changes, and the rules of causes.

    Raises SettingsError for an address or a file of rules that cannot be read.
    """
    return open_database(
        settings.database_url,
        pool_size=max(FEWEST_CONNECTIONS, CONNECTIONS // settings.serving_processes),
        recipients=recipients_of(settings),
        rules=team_rules(settings.causes_file),
    )


def make_codat(
    settings: Settings, database: Database, clock: Callable[[], datetime]
) -> CodatClient:
    """The client for Codat's API as the settings say; it rests while the gate is closed."""
    require(settings, "codat_api_key")
    key = settings.codat_api_key.get_secret_value() if settings.codat_api_key else ""
    limits = Limits(per_minute=settings.codat_calls_per_minute)
    return CodatClient(settings.codat_base_url, key, limits=limits, gate=Gate(database, clock))


def recipients_of(settings: Settings) -> Recipients:
    """Whom a transaction owes news of what it changes."""
    named = {name: way for name, (way, _) in address_names(settings).items()}
    return Recipients(
        webhooks=tuple(name for name, way in named.items() if way == "webhook"),
        words=tuple(name for name, way in named.items() if way == "words"),
    )


def plain(secret: SecretStr) -> str:
    """A secret as it is."""
    return secret.get_secret_value()


def address_names(settings: Settings) -> dict[str, tuple[Way, str]]:
    """Every address that messages may go to, by its name."""
    retry = [settings.retry_webhook_url] if settings.retry_webhook_url else []
    ways: tuple[tuple[Way, Sequence[SecretStr]], ...] = (
        ("webhook", settings.notify_webhook_urls),
        ("retry", retry),
        ("words", settings.notify_urls),
    )
    every = [(way, plain(each)) for way, addresses in ways for each in addresses]
    return {name_of(way, address): (way, address) for way, address in every}


def make_senders(settings: Settings, http: httpx.AsyncClient) -> dict[str, Send]:
    """How each recipient is reached. Raises SettingsError for an address nobody understands."""
    secrets = [plain(each) for each in settings.notify_signing_secret]
    return {
        name: WordsSender(address) if way == "words" else WebhookSender(http, address, secrets)
        for name, (way, address) in address_names(settings).items()
    }


def check_recipients(settings: Settings) -> None:
    """Raise SettingsError now, and not when it already serves, for an address of no known kind."""
    for each in settings.notify_urls:
        WordsSender(plain(each))
