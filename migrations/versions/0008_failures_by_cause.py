"""Failures filed by cause, and their sums by day

What is filed here is filed of the rows as they are. What the journal still holds is worked off
later, and compared with this. Ids that would not fit into PostgreSQL's index rows, of which an
older version may have kept some, are left out. The old code goes on serving while this runs and
files nothing; the daily recount, which is also the first thing a new worker does, makes that good.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

# Each transaction's last failure of a cause and message on each day, the next such day, and whether
# nothing has cured it since. Of the messages of a day the last counts for the cause: it comes last
# there, so what follows it is of another day.
TRANSACTIONS = """
    INSERT INTO filed_failures (company_id, unit, cause, fingerprint, day, next_day, cause_next_day,
        first_at, last_at, sync, transactions, open, syncs)
    WITH failed AS (
        SELECT s.company_id, t.transaction_id, t.cause, t.fingerprint, s.day, s.occurred_at, s.id,
            row_number() OVER (
                PARTITION BY s.company_id, t.transaction_id, t.cause, s.day
                ORDER BY s.occurred_at DESC, s.id DESC, t.position DESC
            ) AS in_cause,
            row_number() OVER (
                PARTITION BY s.company_id, t.transaction_id, t.cause, t.fingerprint, s.day
                ORDER BY s.occurred_at DESC, s.id DESC, t.position DESC
            ) AS in_group,
            min(s.occurred_at) OVER (
                PARTITION BY s.company_id, t.transaction_id, t.cause, t.fingerprint, s.day
            ) AS first_at
        FROM transactions t JOIN syncs s ON s.id = t.sync
        WHERE t.failed AND t.cause IS NOT NULL AND t.fingerprint IS NOT NULL
        AND t.transaction_id IS NOT NULL
        AND length(s.company_id) + length(t.transaction_id) <= 580
    ), chained AS (
        SELECT *, lead(day, 1, '') OVER (
            PARTITION BY company_id, transaction_id, cause, fingerprint ORDER BY day
        ) AS next_day, lead(day, 1, '') OVER (
            PARTITION BY company_id, transaction_id, cause ORDER BY day, in_cause DESC
        ) AS cause_next_day FROM failed WHERE in_group = 1
    )
    SELECT f.company_id, 't' || f.transaction_id, f.cause, f.fingerprint, f.day, f.next_day,
        CASE WHEN f.in_cause = 1 THEN f.cause_next_day END,
        f.first_at, f.occurred_at, f.id, 1,
        CASE WHEN EXISTS (
            SELECT 1 FROM open_failures n
            WHERE n.company_id = f.company_id AND n.transaction_id = f.transaction_id
        ) AND NOT EXISTS (
            SELECT 1 FROM transactions o JOIN syncs later ON later.id = o.sync
            WHERE o.transaction_id = f.transaction_id AND later.company_id = f.company_id
            AND (later.occurred_at, later.id) > (f.occurred_at, f.id)
            AND lower(trim(o.status)) = 'completed'
            AND NOT EXISTS (
                SELECT 1 FROM transactions beside
                WHERE beside.sync = o.sync AND beside.transaction_id = o.transaction_id
                AND coalesce(lower(trim(beside.status)), '') <> 'completed'
            )
        ) THEN 1 ELSE 0 END,
        0
    FROM chained f
"""
# Failed rows that name no transaction, which nothing can cure, by their sync.
NAMELESS = """
    INSERT INTO filed_failures (company_id, unit, cause, fingerprint, day, next_day, cause_next_day,
        first_at, last_at, sync, transactions, open, syncs)
    SELECT s.company_id, 's' || s.sync_id, t.cause, t.fingerprint, s.day, '', '', s.occurred_at,
        s.occurred_at, s.id, count(*), count(*), 0
    FROM transactions t JOIN syncs s ON s.id = t.sync
    WHERE t.transaction_id IS NULL AND t.cause IS NOT NULL AND t.fingerprint IS NOT NULL
    AND length(s.company_id) + length(s.sync_id) <= 580
    GROUP BY s.company_id, s.sync_id, t.cause, t.fingerprint, s.day, s.occurred_at, s.id
"""
WHOLES = """
    INSERT INTO filed_failures (company_id, unit, cause, fingerprint, day, next_day, cause_next_day,
        first_at, last_at, sync, transactions, open, syncs)
    SELECT company_id, 's' || sync_id, cause, fingerprint, day, '', '', occurred_at, occurred_at,
        id, 0, 0, 1
    FROM syncs WHERE cause IS NOT NULL AND fingerprint IS NOT NULL
    AND length(company_id) + length(sync_id) <= 580
    ON CONFLICT DO NOTHING
"""
DAYS = """
    INSERT INTO filed_days (company_id, cause, fingerprint, next_day, day, transactions, open,
        syncs)
    SELECT company_id, cause, fingerprint, next_day, day, sum(transactions), sum(open), sum(syncs)
    FROM filed_failures GROUP BY company_id, cause, fingerprint, next_day, day
    UNION ALL
    SELECT company_id, cause, '', cause_next_day, day, sum(transactions), sum(open), sum(syncs)
    FROM filed_failures WHERE cause_next_day IS NOT NULL
    GROUP BY company_id, cause, cause_next_day, day
"""
TOTALS = """
    INSERT INTO filed_totals (cause, fingerprint, next_day, day, transactions, open, syncs)
    SELECT cause, fingerprint, next_day, day, sum(transactions), sum(open), sum(syncs)
    FROM filed_days GROUP BY cause, fingerprint, next_day, day
"""
SPANS = """
    INSERT INTO filed_spans (cause, fingerprint, company_id, first_at, last_at)
    SELECT cause, fingerprint, company_id, min(first_at), max(last_at)
    FROM filed_failures GROUP BY cause, fingerprint, company_id
    UNION ALL
    SELECT cause, '', company_id, min(first_at), max(last_at)
    FROM filed_failures GROUP BY cause, company_id
"""


def upgrade() -> None:
    """Bring the schema to this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")
    _make_failures()
    _make_sums()
    for statement in (TRANSACTIONS, NAMELESS, WHOLES, DAYS, TOTALS, SPANS):
        op.execute(statement)


def _make_failures() -> None:
    op.create_table(
        "filed_failures",
        *(_text(name) for name in ("company_id", "unit", "cause", "fingerprint", "day")),
        _text("next_day"),
        sa.Column("cause_next_day", sa.Text(), nullable=True),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("sync", KEY, nullable=False),
        sa.Column("transactions", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("syncs", sa.Integer(), nullable=False),
        _key("filed_failures", "company_id", "unit", "cause", "fingerprint", "day"),
    )
    group = ["company_id", "cause", "fingerprint"]
    op.create_index("ix_filed_failures_first", "filed_failures", [*group, "first_at"])
    op.create_index("ix_filed_failures_last", "filed_failures", [*group, "last_at"])
    newest = ["cause", "fingerprint", "last_at"]
    op.create_index("ix_filed_failures_newest", "filed_failures", newest)
    op.create_table(
        "filed_spans",
        *(_text(name) for name in ("cause", "fingerprint", "company_id")),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        _key("filed_spans", "cause", "fingerprint", "company_id"),
    )
    op.create_index("ix_filed_spans_company", "filed_spans", ["company_id", "cause"])
    for which in ("first", "last"):
        columns = ["cause", "fingerprint", f"{which}_at"]
        op.create_index(f"ix_filed_spans_{which}", "filed_spans", columns)


def _make_sums() -> None:
    amounts = ("transactions", "open", "syncs")
    key = ("cause", "fingerprint", "next_day", "day")
    for name, keys in (("filed_days", ("company_id", *key)), ("filed_totals", key)):
        op.create_table(
            name,
            *(_text(each) for each in keys),
            *(sa.Column(each, sa.BigInteger(), nullable=False) for each in amounts),
            _key(name, *keys),
        )
    group = ["cause", "fingerprint", "day", "company_id"]
    op.create_index("ix_filed_days_day", "filed_days", group)
    op.create_index("ix_filed_totals_day", "filed_totals", ["day"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _key(name: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{name}")


def downgrade() -> None:
    """Bring it back to the one before."""
    for name in ("filed_spans", "filed_totals", "filed_days", "filed_failures"):
        op.drop_table(name)
