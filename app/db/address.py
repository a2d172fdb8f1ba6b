"""DATABASE_URL: what it means to the driver, or which part of it cannot be used.

Addresses are copied from many places: libpq, SQLAlchemy, Prisma, Heroku, the consoles of hosting
providers. libpq itself reads them, so every parameter that it knows works, several hosts and Unix
sockets included. No error shows any part that may belong to a password.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import SettingsError

_LIBPQ = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
# What other clients' pools and caches are configured with; it means nothing here.
_IGNORED = frozenset({
    "pgbouncer", "connection_limit", "pool_timeout", "pool_size", "max_overflow", "pool_mode",
    "socket_timeout", "statement_cache_size", "prepared_statement_cache_size", "prepare_threshold",
    "prepared_statements", "async_fallback", "single_use_connections", "max_connection_lifetime",
    "max_idle_connection_lifetime", "supa", "workaround", "uselibpqcompat",
})  # fmt: skip
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_INSTEAD = {
    "sslaccept": "Write sslmode=verify-full, or sslmode=require to accept any certificate.",
    "sslidentity": "Write sslcert=FILE&sslkey=FILE.",
    "ssl_mode": "Write sslmode=….",
    "search_path": "Write options=-csearch_path%3DNAME.",
    "currentSchema": "Write options=-csearch_path%3DNAME.",
    "charset": "Remove it: the service always uses UTF-8.",
    "encoding": "Remove it: the service always uses UTF-8.",
}
_SQLITE_PARAMETERS = frozenset({"timeout", "cached_statements", "uri"})
_LOGIN = re.compile(r"[^@/]*@")
_HOST = re.compile(r"(\[[^][]*\]|[^][:]*)(:\d*)?")
_HOST_AND_PORT = re.compile(r"(\[[^][]*\]|[^][:/]+):(\d+)")
_SEARCH_PATH = re.compile(r"search_path\s*=\s*((?:\\.|[^\s\\])+)")


@dataclass(frozen=True, slots=True)
class PostgresqlAddress:
    """The driver's parameters; `is_pooled` when the address says that a pooler answers."""

    parameters: dict[str, str] = field(repr=False)
    is_pooled: bool = False

    @property
    def search_path(self) -> str | None:
        """The schemas that `options` select, as `SHOW search_path` prints them without blanks."""
        found = _SEARCH_PATH.search(self.parameters.get("options", ""))
        return re.sub(r'[\\"]', "", found[1]) if found else None


def parse(url: str) -> URL | PostgresqlAddress:
    """The address of an SQLite file, or of a PostgreSQL. Raises SettingsError."""
    if url.startswith("sqlite"):
        return _parse_sqlite(url)
    _scheme, separator, rest = url.partition("://")
    if not separator:
        return PostgresqlAddress(_read(url))
    login = _LOGIN.match(rest)
    address, _, query = rest[login.end() if login else 0 :].partition("?")
    hosts = address.partition("/")[0]
    if "@" in address:
        raise SettingsError(
            "DATABASE_URL: write @ in a password as %40 and / as %2F, "
            "or leave the password out and set PGPASSWORD."
        )
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise SettingsError(
            "DATABASE_URL cannot be read as an address: after the host, only a port may follow `:`."
        )
    parts = [part.partition("=") for part in query.split("&") if part]
    pairs = [(unquote(name), unquote(value)) for name, _, value in parts]
    return PostgresqlAddress(
        _read(f"postgresql://{login[0] if login else ''}{address}", _read_query(pairs)),
        is_pooled=("pgbouncer", "true") in pairs,  # Prisma's and Supabase's way to say so
    )


def _read(text: str, parameters: dict[str, str] | None = None) -> dict[str, str]:
    """What libpq reads. Its own error texts may contain the password."""
    try:
        found = conninfo_to_dict(text, **parameters or {})
    except (ProgrammingError, UnicodeDecodeError):
        raise SettingsError(
            "DATABASE_URL cannot be read as an address: write % in a password as %25."
            if "://" in text
            else "DATABASE_URL cannot be read as `name=value` pairs."
        ) from None
    return {name: str(value) for name, value in found.items()}


def _read_query(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The parameters for libpq. Raises SettingsError for what would be lost."""
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name == "schema":
            _add_schema(parameters, value)
        elif name == "ssl":  # JDBC, asyncpg, node-postgres
            parameters["sslmode"] = _ssl_mode(value)
        elif name == "host":
            _add_hosts(parameters, value)
        elif name in _LIBPQ:
            parameters[name] = value
        elif name not in _IGNORED:
            known = name if name.isidentifier() and len(name) < 40 else "in the query"
            raise SettingsError(
                f"DATABASE_URL: PostgreSQL's client does not know the parameter {known}. "
                + _INSTEAD.get(name, "Remove it.")
            )
    return parameters


def _add_schema(parameters: dict[str, str], value: str) -> None:
    """Prisma's parameter; `public` is its default, and PostgreSQL's."""
    if value not in ("", "public"):
        name = re.sub(r"([\\\s])", r"\\\1", value)
        options = parameters.get("options", "")
        parameters["options"] = f'{options} -csearch_path="{name}"'.strip()


def _ssl_mode(value: str) -> str:
    if value in ("true", "1", ""):
        return "require"
    if value not in _SSL_MODES:
        raise SettingsError(f"DATABASE_URL: write sslmode={'|'.join(_SSL_MODES)} instead of ssl.")
    return value


def _add_hosts(parameters: dict[str, str], value: str) -> None:
    """SQLAlchemy repeats `host` for each one, with its port."""
    for host in value.split(","):
        pair = _HOST_AND_PORT.fullmatch(host)
        hosts = [parameters["host"]] if "host" in parameters else []
        parameters["host"] = ",".join([*hosts, pair[1] if pair else host])
        if pair or "port" in parameters:
            ports = [parameters["port"]] if "port" in parameters else [""] * len(hosts)
            parameters["port"] = ",".join([*ports, pair[2] if pair else ""])


def _parse_sqlite(url: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("DATABASE_URL cannot be read as an address.") from None
    unknown = set(address.query) - _SQLITE_PARAMETERS
    if unknown and "uri" not in address.query:
        raise SettingsError("DATABASE_URL: leave out what follows the `?`.")
    return address


def sqlite_file(url: str) -> Path | None:
    """The absolute path of SQLite's file; None for another database, or one in memory."""
    address = parse(url)
    if isinstance(address, PostgresqlAddress) or address.database in (None, "", ":memory:"):
        return None
    return Path(str(address.database)).resolve()
