"""The settings, and the only reader of the environment.

A setting comes from the environment, else from `.env`, else from a file of its name in
`/run/secrets`. Empty counts as not set. A wrong value stops the start with one line that names
the setting and never shows its value.
"""

import re
import sys
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import SettingsError

SECRETS_DIR = Path("/run/secrets")
SHORTEST_API_KEY = 16
_BETWEEN_ADDRESSES = re.compile(r"[\s,]*\s[\s,]*|,+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ANY_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SIGNING_KEY_BYTES = range(24, 65)  # as Standard Webhooks has it
_DATABASE_ADDRESS = re.compile(r"(sqlite(\+pysqlite)?:///|postgres(ql)?(\+psycopg)?://)\S")
_IN_MEMORY = re.compile(r"sqlite[^/]*:///(:memory:|\?|.*[?&]mode=memory)")
_CENTURY_MIN = 36_500 * 24 * 60  # a longer wait fits no date


def _split(value: Any) -> Any:
    """`a, b` as ("a", "b"); blanks and empty parts do not count."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _split_addresses(value: Any) -> Any:
    """Addresses apart: at blanks, and at a comma only where another address begins after it."""
    if isinstance(value, str):
        return tuple(part for part in _BETWEEN_ADDRESSES.split(value.strip(" ,\t\n")) if part)
    return value


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]
Addresses = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_addresses)]


class Settings(BaseSettings):
    """What an operator can set. Names are the environment's, in lower case."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: str = Field(
        "sqlite:///data/syncs.db",
        repr=False,
        description="where everything is kept; also postgresql://…",
    )
    codat_webhook_secrets: Secrets = Field(
        (), description="whsec_… of each endpoint in the Codat Portal; two while rotating"
    )
    codat_api_key: SecretStr | None = Field(
        None, description="the raw key or the finished `Basic …` header"
    )
    codat_base_url: str = Field("https://api.codat.io", description="Codat's API")
    api_keys: Secrets = Field(
        (), description="keys for our own API and pages, each at least 16 characters"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    web_concurrency: int = Field(
        1,
        ge=1,
        le=8,
        description="processes of `serve`, on PostgreSQL; on SQLite it is always one",
    )
    worker_in_web: bool = Field(True, description="run the worker as part of `serve`")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="largest delivery accepted")
    reconcile_every_minutes: int = Field(
        15,
        ge=0,
        le=_CENTURY_MIN,
        description="how often Codat is asked what it knows; 0 switches it off",
    )
    stuck_after_minutes: int = Field(
        60, ge=1, le=_CENTURY_MIN, description="a sync in progress for longer is asked about"
    )
    codat_calls_per_minute: int = Field(
        800, ge=10, description="calls to Codat, over all replicas; it allows 1000 per address"
    )
    fetch_max_attempts: int = Field(12, ge=1, description="then a fetch is given up, visibly")
    notify_webhook_urls: Addresses = Field(
        (), description="who gets our signed webhooks, comma separated"
    )
    retry_webhook_url: SecretStr | None = Field(
        None, description="who is handed the failed transactions of a sync to retry"
    )
    notify_signing_secret: Secrets = Field(
        (),
        validate_default=True,
        description="whsec_… that signs our webhooks; two, the new one first, while rotating",
    )
    notify_urls: Addresses = Field(
        (), description="Apprise addresses that are told of alerts in words, comma separated"
    )
    causes_file: Path | None = Field(
        None, description="a TOML file with a team's own causes and rules, tried before ours"
    )
    keep_events_days: int = Field(
        30, ge=0, le=36_500, description="raw bodies; syncs and errors stay; 0 keeps them for ever"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="how much is logged"
    )
    log_format: Literal["json", "console"] | None = Field(
        None, description="json in a container, else console"
    )

    @property
    def serving_processes(self) -> int:
        """How many processes `serve` has. SQLite has one writer: more would only wait for it."""
        return 1 if self.database_url.startswith("sqlite") else self.web_concurrency

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not _DATABASE_ADDRESS.match(value):
            raise ValueError("must start with sqlite:/// or postgresql://")
        if _IN_MEMORY.match(value):
            raise ValueError("must name a file: what is acknowledged must outlive the process")
        return value

    @field_validator("host")
    @classmethod
    def _a_host(cls, value: str) -> str:
        try:
            value.encode("idna")  # as Python will ask for its address
        except UnicodeError:
            raise ValueError("must be an address or the name of a host") from None
        return value

    @field_validator("codat_base_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not _is_web_address(value) or urlsplit(value).username is not None:
            raise ValueError("must be https://… or http://… with a host and without a login")
        return value.rstrip("/")

    @field_validator("codat_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value().strip() if value else ""
        scheme, _, rest = key.rpartition(" ")
        if not (key.isascii() and key.isprintable() and scheme.strip().lower() in ("", "basic")):
            raise ValueError("must be Codat's key, or `Basic` and its base64, as the Portal shows")
        if scheme and not _BASE64.fullmatch(rest):
            raise ValueError("what follows `Basic` is not base64")
        return value

    @field_validator("notify_webhook_urls", "retry_webhook_url")
    @classmethod
    def _web_addresses(
        cls, value: tuple[SecretStr, ...] | SecretStr | None
    ) -> tuple[SecretStr, ...] | SecretStr | None:
        for each in value if isinstance(value, tuple) else (value,):
            if each and not _is_web_address(each.get_secret_value()):
                raise ValueError("each address must be https://… or http://… with a host")
        return value

    @field_validator("notify_urls")
    @classmethod
    def _some_addresses(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(_ANY_ADDRESS.fullmatch(each.get_secret_value()) for each in value):
            raise ValueError("each must be an Apprise address, as in slack://…")
        return value

    @field_validator("notify_signing_secret")
    @classmethod
    def _can_sign(cls, value: tuple[SecretStr, ...], told: ValidationInfo) -> tuple[SecretStr, ...]:
        needed = told.data.get("notify_webhook_urls") or told.data.get("retry_webhook_url")
        if needed and not value:
            raise ValueError(
                "is not set, but NOTIFY_WEBHOOK_URLS or RETRY_WEBHOOK_URL is: nothing goes unsigned"
            )
        if not all(_is_signing_secret(each.get_secret_value()) for each in value):
            raise ValueError("each must be whsec_ and the base64 of 24 to 64 random bytes")
        return value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < SHORTEST_API_KEY for key in value):
            raise ValueError(f"each key must have at least {SHORTEST_API_KEY} characters")
        return value


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_signing_secret(value: str) -> bool:
    try:
        key = b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return value.startswith("whsec_") and len(key) in _SIGNING_KEY_BYTES


def load_settings(**given: Any) -> Settings:
    """The settings of this process. Raises SettingsError, one line, naming what is wrong."""
    secrets = SECRETS_DIR if SECRETS_DIR.is_dir() else None
    try:
        return Settings(_env_file=".env", _secrets_dir=secrets, **given)  # type: ignore[call-arg]  # pydantic-settings' own arguments
    except ValidationError as error:
        raise SettingsError(*_problems(error)) from None
    except UnicodeDecodeError:
        raise SettingsError(".env: is not UTF-8 text") from None


def _problems(error: ValidationError) -> list[str]:
    parts = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else "settings"
        parts.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return parts


def require(settings: Settings, *names: str) -> None:
    """Raise SettingsError when one of the named settings is not set."""
    for name in names:
        if not getattr(settings, name):
            raise SettingsError(f"{name.upper()} is not set; see .env.example")


def in_a_container() -> bool:
    """True where the logs should be JSON lines by default."""
    markers = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return any(marker.exists() for marker in markers) or not sys.stderr.isatty()
