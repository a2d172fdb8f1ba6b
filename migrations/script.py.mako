"""${message}

Policy: this runs while the old code still serves. Add, never rename or drop in the same release;
build an index on a large table in a release of its own. Every statement waits at most five seconds
for a lock (set in app/db/migrations.py). It must run on SQLite and on PostgreSQL.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Bring the schema to this revision."""
    ${upgrades if upgrades else "pass"}
