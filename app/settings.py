"""The settings, and the only reader of the environment.

A setting comes from the environment, else from `.env`, else from a file of its name in
SECRETS_DIR. Empty counts as not set; blanks and quotes around a value are removed. A wrong value
stops the start with one line that names the setting, and shows values that cannot be secret.
"""

import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.errors import SettingsError

SECRETS_DIR = Path("/run/secrets")
REQUIRED = ("codat_webhook_secrets", "codat_api_key", "api_keys")
"""What `serve` needs."""
MIN_API_KEY_LENGTH = 16
_API_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_URL_SEPARATOR = re.compile(r"[\s,]*\s[\s,]*|,+(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_DATABASE_URL = re.compile(
    r"sqlite(\+pysqlite)?:///\S|postgres(ql)?(\+(psycopg\w*|asyncpg|aiopg|pg8000))?://\S"
    r"|(host|hostaddr|port|dbname|user|password|service)\s*=\s*\S"  # libpq's other form
)
_IN_MEMORY = re.compile(r"sqlite[^/]*:///(:memory:|\?|.*[?&]mode=memory)")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)*)\1""", re.DOTALL)
_NOT_SECRET = frozenset(
    {"host", "log_level", "log_format", "secrets_dir", "forwarded_allow_ips", "root_path"}
)
_LONGEST_SHOWN = 60
# What other programs' users write
_LOG_LEVELS = {
    **dict.fromkeys(("trace", "verbose", "silly", "all", "notset", "0", "5", "10"), "debug"),
    **dict.fromkeys(("information", "informational", "notice", "20"), "info"),
    **dict.fromkeys(("warn", "30"), "warning"),
    **dict.fromkeys(("err", "fatal", "critical", "crit", "alert", "emerg", "40", "50"), "error"),
}
_CENTURY_DAYS = 36_500  # adding more than this to a date overflows
_CENTURY_MINUTES = _CENTURY_DAYS * 24 * 60


def _split(value: Any) -> Any:
    """`a, b`, or one a line, as ("a", "b"), without blanks and empty parts."""
    if isinstance(value, str):
        return tuple(filter(None, map(_clean, re.split(r"[,\r\n]", value))))
    return value


def _split_urls(value: Any) -> Any:
    """Split at blanks, and at commas that are followed by another URL: URLs may contain commas."""
    if isinstance(value, str):
        return tuple(part for part in _URL_SEPARATOR.split(value.strip(" ,\t\n")) if part)
    return value


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_signing_secret(value: str) -> bool:
    """True for `whsec_` and the base64 of 24 to 64 bytes (Standard Webhooks specification)."""
    try:
        key = b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return value.startswith("whsec_") and 24 <= len(key) <= 64


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _log_level(value: Any) -> Any:
    return _LOG_LEVELS.get(str(value).lower(), _lower(value))


def _clean(value: str) -> str:
    """Without blanks, a byte order mark, and quotes, which `docker run --env-file` keeps."""
    value = value.strip("\ufeff \t\r\n")
    quoted = _QUOTED.fullmatch(value)
    return quoted[2].strip() if quoted else value


def _check(is_valid: Callable[[str], object], message: str) -> AfterValidator:
    """Refuse a text or secret that is not valid. The message follows the setting's name."""

    def check(value: str | SecretStr) -> str | SecretStr:
        if not is_valid(value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _is_host(value: str) -> bool:
    try:
        return bool(value.encode("idna")) and "/" not in value  # as the resolver does
    except UnicodeError:
        return False


def _is_codat_key(value: str) -> bool:
    scheme, _, key = value.strip().rpartition(" ")
    return key.isascii() and key.isprintable() and scheme.strip().lower() in ("", "basic")


def _check_body_budget(value: int, info: ValidationInfo) -> int:
    if value < info.data.get("max_body_bytes", 0):
        raise ValueError("must be at least MAX_BODY_BYTES")
    return value


def _is_public_url(value: str) -> bool:
    parts = urlsplit(value)
    is_plain = not parts.query and not parts.fragment and _ROOT_PATH.fullmatch(parts.path)
    return bool(is_plain) and not parts.path.endswith("/webhooks/codat")


def _is_addresses(value: str) -> bool:
    try:
        return value == "*" or all(map(ip_network, filter(None, re.split(r",\s*", value))))
    except ValueError:
        return False


def _check_root_path(value: str, info: ValidationInfo) -> str:
    """The path of PUBLIC_URL, which may be written out."""
    public_path = urlsplit(info.data.get("public_url") or "").path
    if value and public_path and value != public_path:
        raise ValueError("must be the path of PUBLIC_URL")
    return value or public_path


def _check_signing_secrets(
    value: tuple[SecretStr, ...], info: ValidationInfo
) -> tuple[SecretStr, ...]:
    is_needed = info.data.get("notify_webhook_urls") or info.data.get("retry_webhook_url")
    if is_needed and not value:
        raise ValueError("is required when NOTIFY_WEBHOOK_URLS or RETRY_WEBHOOK_URL is set")
    if not all(is_signing_secret(secret.get_secret_value()) for secret in value):
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key for our own API and pages, and the name of its user in timelines and logs.

    `spellings` are what callers may send: the key, and `name:key` as it is in the setting, so that
    a key with a colon from before there were names stays valid.
    """

    name: str | None
    key: SecretStr = field(repr=False)

    @property
    def spellings(self) -> tuple[bytes, ...]:
        """The key as bytes, alone and after its name."""
        key = self.key.get_secret_value().encode()
        return (key,) if self.name is None else (key, b"%s:%s" % (self.name.encode(), key))


def _read_api_key(entry: str | ApiKey) -> ApiKey:
    """Read `key` or `name:key`."""
    if isinstance(entry, ApiKey):
        return entry
    before, colon, after = entry.partition(":")
    name, key = (before.strip(), after.strip()) if colon else ("", entry)
    if colon and not _API_KEY_NAME.fullmatch(name):
        raise ValueError(
            "must have a name of 1 to 32 letters, digits, dots, hyphens or underscores before "
            "each colon, as in support:KEY; a key without a name must not contain a colon"
        )
    if len(key) < MIN_API_KEY_LENGTH:
        raise ValueError(
            f"must be keys of at least {MIN_API_KEY_LENGTH} characters, not counting names"
        )
    return ApiKey(name or None, SecretStr(key))


def _check_api_key_names(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
    names: dict[str, str | None] = {}
    for key in keys:
        if names.setdefault(key.key.get_secret_value(), key.name) != key.name:
            raise ValueError("must not contain the same key with two names")
    return keys


T = TypeVar("T")
SecretList = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
UrlList = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split_urls)]
DatabaseUrl = Annotated[
    str,
    _check(_DATABASE_URL.match, "must start with sqlite:/// or postgresql://"),
    _check(
        lambda value: not _IN_MEMORY.match(value),
        "must name a file: acknowledged webhooks must survive a restart",
    ),
]
BaseUrl = Annotated[
    str,
    _check(
        lambda value: _is_http_url(value) and urlsplit(value).username is None,
        "must be an http(s) URL without user name or password",
    ),
    AfterValidator(lambda value: value.rstrip("/")),
]
CodatKey = Annotated[
    SecretStr,
    _check(_is_codat_key, "must be the API key, or `Basic` and its base64, as in the Portal"),
    _check(
        lambda value: " " not in value.strip() or _BASE64.fullmatch(value.split()[-1]),
        "must have base64 after `Basic`",
    ),
]
ApiKeys = Annotated[
    SecretList[Annotated[ApiKey, PlainValidator(_read_api_key)]],
    AfterValidator(_check_api_key_names),
]
PublicUrl = Annotated[
    BaseUrl,
    _check(_is_public_url, "must be the address of the pages, without query or /webhooks/codat"),
]
TrustedAddresses = Annotated[
    str, _check(_is_addresses, "must be IP addresses and networks, comma separated, or *")
]
RootPath = Annotated[
    str,
    AfterValidator(lambda value: f"/{value.strip('/')}" if value.strip("/") else ""),
    _check(_ROOT_PATH.fullmatch, "must be a path such as /codat-sync"),
]
Host = Annotated[
    str,
    AfterValidator(lambda value: value.strip("[]")),
    _check(_is_host, "must be an IP address or a host name"),
]
WebhookUrl = Annotated[SecretStr, _check(_is_http_url, "must be an http(s) URL")]
AppriseUrl = Annotated[
    SecretStr, _check(_ANY_URL.fullmatch, "must be Apprise addresses, for example slack://…")
]
Minutes = Annotated[int, Field(le=_CENTURY_MINUTES)]
Days = Annotated[int, Field(ge=0, le=_CENTURY_DAYS)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_log_level)]
LogFormat = Annotated[Literal["json", "console"] | None, BeforeValidator(_lower)]


class Settings(BaseSettings):
    """What an operator can set. Names are the environment's, in lower case.

    `.env.example` describes each setting.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: DatabaseUrl = Field("sqlite:///data/syncs.db", repr=False)
    codat_webhook_secrets: SecretList[SecretStr] = ()
    codat_api_key: CodatKey | None = None
    codat_base_url: BaseUrl = "https://api.codat.io"
    api_keys: ApiKeys = ()
    host: Host = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    public_url: PublicUrl | None = None
    root_path: Annotated[RootPath, AfterValidator(_check_root_path)] = Field(
        "", validate_default=True
    )
    forwarded_allow_ips: TrustedAddresses = "127.0.0.1"
    keep_alive_seconds: int = Field(75, ge=1, le=3600)  # longer than a load balancer's 60
    drain_seconds: int = Field(2, ge=0, le=4)
    worker_in_web: bool = True
    worker_metrics_port: int | None = Field(None, ge=1, le=65535)
    max_body_bytes: int = Field(1_048_576, ge=1024)
    max_unverified_body_bytes: Annotated[int, AfterValidator(_check_body_budget)] = Field(
        67_108_864, ge=1024, validate_default=True
    )
    reconcile_every_minutes: Minutes = Field(15, ge=0)
    stuck_after_minutes: Minutes = Field(60, ge=1)
    codat_calls_per_minute: int = Field(800, ge=10)  # Codat allows 1000 per address
    fetch_max_attempts: int = Field(12, ge=1)
    notify_webhook_urls: UrlList[WebhookUrl] = ()
    retry_webhook_url: WebhookUrl | None = None
    notify_signing_secret: Annotated[
        SecretList[SecretStr], AfterValidator(_check_signing_secrets)
    ] = Field((), validate_default=True)
    notify_urls: UrlList[AppriseUrl] = ()
    causes_file: Path | None = None
    keep_events_days: Days = 30
    keep_changes_days: Days = 30
    log_level: LogLevel = "info"
    log_format: LogFormat = None
    secrets_dir: Path = SECRETS_DIR

    @model_validator(mode="before")
    @classmethod
    def _clean_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        cleaned = {k: _clean(v) if isinstance(v, str) else v for k, v in values.items()}
        return {name: value for name, value in cleaned.items() if value != ""}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # ours names what it cannot read
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the files in SECRETS_DIR, which the other sources may set."""
        sources = (init_settings, env_settings, dotenv_settings)
        present = {**dotenv_settings(), **env_settings(), **init_settings()}
        files = InitSettingsSource(settings_cls, _read_secrets(present))
        return (*sources, files)


def _read_secrets(present: dict[str, Any]) -> dict[str, Any]:
    """The files of our settings in SECRETS_DIR, without those that are `present` elsewhere.

    Raises SettingsError for a file that cannot be read, and for a folder that was set and is none.
    """
    folder = Path(present.get("secrets_dir") or SECRETS_DIR)
    try:
        files = {file.name.lower(): file for file in folder.iterdir()}
    except OSError as error:
        if folder == SECRETS_DIR:  # the default, which need not exist
            return {}
        raise SettingsError(f"SECRETS_DIR {folder} cannot be read: {error.strerror}.") from None
    names = (files.keys() & Settings.model_fields.keys()) - present.keys()
    return {name: _read_secret(name, files[name]) for name in names}


def _read_secret(name: str, file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "must be UTF-8 text"
    raise SettingsError(f"{name.upper()}: the file {file} {problem}.")


def load_settings(
    *, env_file: str | None = ".env", required: Sequence[str] = (), **overrides: Any
) -> Settings:
    """Load the settings of this process.

    Raises one SettingsError for all that are wrong, and for all of `required` that are not set.
    """
    source: dict[str, Any] = {"_env_file": env_file, "_env_file_encoding": "utf-8-sig"}
    problems: list[str] = []
    try:
        try:
            settings = Settings(**source, **overrides)
        except ValidationError as error:
            problems = list(dict.fromkeys(map(_problem, error.errors())))
            wrong = {str(detail["loc"][0]) for detail in error.errors()}
            required = [name for name in required if name not in wrong]
            usable = {
                name: field.default
                for name, field in Settings.model_fields.items()
                if name not in (*required, "secrets_dir")
            }
            settings = Settings(**source, **overrides | usable)
        if missing := _missing(settings, required):
            problems.append(missing)
        if problems:
            raise SettingsError(*problems)
        return settings
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} must be UTF-8 text.") from None
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}.") from None


def _problem(detail: ErrorDetails) -> str:
    """A sentence that begins with the setting's name and has no part of a secret."""
    name = str(detail["loc"][0])
    if detail["type"] == "value_error":
        expected = detail["msg"].removeprefix("Value error, ")
    elif detail["type"] == "literal_error":
        expected = f"must be {detail['ctx']['expected'].replace(chr(39), '')}"
    else:
        expected = f"must be {_expected(name)}"
    annotation = Settings.model_fields[name].annotation
    if name in _NOT_SECRET or annotation in (int, bool, int | None):
        value = str(detail["input"])
        expected += f", not {value if value.isprintable() else ascii(value)}"[:_LONGEST_SHOWN]
    return f"{name.upper()} {expected}."


def _expected(name: str) -> str:
    """The values that a setting can have, in words."""
    field = Settings.model_fields[name]
    if field.annotation is bool:
        return "true or false"
    least = next((rule.ge for rule in field.metadata if hasattr(rule, "ge")), None)
    most = next((rule.le for rule in field.metadata if hasattr(rule, "le")), None)
    if least is None:
        return "text"
    return f"a number of at least {least}" if most is None else f"a number from {least} to {most}"


def setting_names(problems: Iterable[str]) -> set[str]:
    """The fields of Settings that the problems of a SettingsError name."""
    words = (word.lower() for word in re.findall(r"[A-Z_]+", " ".join(problems)))
    return {word for word in words if word in Settings.model_fields}


def require(settings: Settings, *names: str) -> None:
    """Raise one SettingsError that names every one of these settings that is not set."""
    if missing := _missing(settings, names):
        raise SettingsError(missing)


def _missing(settings: Settings, names: Iterable[str]) -> str | None:
    missing = [name.upper() for name in names if not getattr(settings, name)]
    if not missing:
        return None
    hint = " .env is a folder, not a file." if Path(".env").is_dir() else ""
    if settings.secrets_dir.is_dir() and not os.access(settings.secrets_dir, os.R_OK | os.X_OK):
        hint += f" {settings.secrets_dir} cannot be read."
    return f"Missing settings: {', '.join(missing)}. See .env.example.{hint}"


def wants_traces() -> bool:
    """True when OpenTelemetry's own variables ask for traces."""
    read = os.environ.get
    if read("OTEL_SDK_DISABLED", "").lower() == "true" or read("OTEL_TRACES_EXPORTER") == "none":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(map(read, (*endpoints, "OTEL_TRACES_EXPORTER")))


def in_a_container() -> bool:
    """True in a container of Docker or Podman."""
    return any(Path(marker).exists() for marker in ("/.dockerenv", "/run/.containerenv"))
