"""The journal: what was changed, to be told in the feed and counted a moment later

The old code goes on telling and counting by itself while this runs, and after it: both ways agree.
Going back, `python -m app migrate` first works off what the journal holds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "journal",
        sa.Column("id", KEY, nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
    )
    if op.get_bind().dialect.name == "postgresql":
        # its rows live for a second: to compress them costs more than to write them
        op.execute("ALTER TABLE journal ALTER COLUMN told SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Bring it back to the one before."""
    op.drop_table("journal")
