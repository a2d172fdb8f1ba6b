"""Schema of version 0.3.0: additions only, so that 0.2.0 keeps running beside it."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what version 0.3.0 needs."""
