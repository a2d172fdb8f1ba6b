"""DATABASE_URL as it is copied from other places: it works, or the refusal names the part."""

import pytest

from app.db.address import PostgresqlAddress, parse, sqlite_file
from app.errors import SettingsError

PLAIN = {"user": "u", "password": "p", "host": "h", "dbname": "d"}


def parameters(url: str) -> dict[str, str]:
    address = parse(url)
    assert isinstance(address, PostgresqlAddress)
    assert "canary" not in repr(address)
    return address.parameters


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h/d", {}),  # Heroku
        ("postgresql+psycopg2://u:p@h/d", {}),  # SQLAlchemy
        ("postgresql+asyncpg://u:p@h/d?prepared_statement_cache_size=0&ssl=require",
         {"sslmode": "require"}),
        ("postgresql://u:p@h:6543/d?pgbouncer=true&connection_limit=1", {"port": "6543"}),
        ("postgresql://u:p@h/d?schema=public&pool_timeout=10", {}),  # Prisma
        ("postgresql://u:p@h/d?schema=Own", {"options": '-csearch_path="Own"'}),
        ("postgres://u:p@h/d?sslmode=require&supa=base-pooler.x", {"sslmode": "require"}),
        ("postgresql://u:p@h/d?sslmode=require&channel_binding=require",  # Neon
         {"sslmode": "require", "channel_binding": "require"}),
        ("postgresql://u:p@h/d?ssl=true", {"sslmode": "require"}),
        ("postgresql://u:p@h:1,i:2/d?target_session_attrs=read-write",
         {"host": "h,i", "port": "1,2", "target_session_attrs": "read-write"}),
        ("postgresql://u:p@/d?host=h:1&host=i:2", {"host": "h,i", "port": "1,2"}),
        ("postgresql://u:p@/d?host=h&host=i:2", {"host": "h,i", "port": ",2"}),
        ("postgresql://u:p@/d?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://u:p@%2Frun%2Fpostgresql/d", {"host": "/run/postgresql"}),
        ("postgresql://u:p@[::1]:5433/d", {"host": "::1", "port": "5433"}),
        ("postgresql://u:p%40%2F%25@h/d", {"password": "p@/%"}),
        ("postgresql://u:p#a?b:c@h/d", {"password": "p#a?b:c"}),  # libpq takes them as they are
        ("host=h dbname=d user=u password='p w'", {"password": "p w"}),
    ],
)  # fmt: skip
def test_addresses_from_elsewhere_work(url: str, expected: dict[str, str]) -> None:
    assert parameters(url) == PLAIN | expected


def test_an_address_can_leave_parts_to_libpq() -> None:
    """To PGHOST, PGPASSWORD, or a service file."""
    assert parameters("postgresql://u@/d") == {"user": "u", "dbname": "d"}
    assert parameters("postgresql:///?service=main") == {"service": "main"}


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://u:can@ary@h/d", "write @ in a password as %40"),
        ("postgresql://u:can/ary@h/d", "/ as %2F"),
        ("postgresql://u:100%canary@h/d", "% in a password as %25"),
        ("postgresql://u:canary%zz@h/d", "% in a password as %25"),
        ("postgresql://u:canary@h:port/d", "only a port may follow"),
        ("postgresql://u:canary@fe80::1/d", "only a port may follow"),
        ("postgresql://u:canary@h/d?sslaccept=strict", "sslaccept. Write sslmode=verify-full"),
        ("postgresql://u:canary@h/d?ssl=perhaps", "sslmode="),
        ("postgresql://u:canary@h/d?currentSchema=x", "Write options=-csearch_path"),
        ("postgresql://u:canary@h/d?charset=latin1", "charset. Remove it"),
        ("postgresql://u:canary@h/d?nonsense=1", "parameter nonsense. Remove it"),
        ("postgresql://u:canary@h/d?can ary=1", "in the query"),
        ("host=h canary", "name=value"),
        ("sqlite:///canary.db?journal=x", "`?`"),
        ("sqlite://canary:port/x.db", "cannot be read"),
    ],
)
def test_what_cannot_work_is_named_without_the_password(url: str, part: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(url)
    text = str(caught.value)
    assert text.startswith("DATABASE_URL")
    assert part in text
    assert "\n" not in text
    assert not any(piece in text for piece in ("canary", "ary@", "can@"))


def test_only_sqlite_has_a_file() -> None:
    assert sqlite_file("postgresql://h/d") is None
    assert sqlite_file("sqlite:///x.db") is not None
