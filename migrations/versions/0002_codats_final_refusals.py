"""Codat's final refusals: when the answer to a fetch was final

Reconciliation leaves such a fetch alone for a day instead of putting the question at each pass.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("fetches", sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Take the schema back by this revision."""
    op.drop_column("fetches", "refused_at")
