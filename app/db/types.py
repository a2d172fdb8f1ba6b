"""What the tables are made of: their names' form, UTC times, keys that count up by themselves."""

from datetime import UTC, datetime
from functools import lru_cache

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
    """An aware UTC datetime on both databases (SQLite itself keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; without its zone where the database could not keep it."""
        if value is None:
            return None
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Always aware, always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@lru_cache(maxsize=1024)
def as_text(value: datetime) -> str:
    """A time as SQLite keeps it. Kept, because one moment stands in many columns of a batch."""
    return value.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


# SQLite counts up by itself only on a plain INTEGER primary key.
Key = BigInteger().with_variant(Integer, "sqlite")

# Ordered by code point on both databases, so that a word's beginning is a range of an index.
Folded = Text().with_variant(Text(collation="C"), "postgresql")
