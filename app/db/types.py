"""Column types and the naming convention of constraints."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, DateTime, Integer, MetaData, Text, TypeDecorator
from sqlalchemy.engine import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases.

    PostgreSQL takes and returns aware times (every session's zone is UTC, `app.db.engine`) and
    needs no conversion. SQLite itself stores no zone.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        """Convert for SQLite only, once for the rows of a statement that have the same time."""
        if dialect.name == "postgresql":
            return None
        convert = super().bind_processor(dialect)
        return lru_cache(maxsize=64)(convert) if convert else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Convert for SQLite only."""
        if dialect.name == "postgresql":
            return None
        return super().result_processor(dialect, coltype)

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert to UTC, without the zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        return None if value is None else value.replace(tzinfo=UTC)


# SQLite generates ids only for a plain INTEGER primary key.
Key = BigInteger().with_variant(Integer, "sqlite")

# Ordered by code point on both databases, so that a prefix is a range of an index.
Folded = Text().with_variant(Text(collation="C"), "postgresql")
