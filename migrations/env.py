"""How Alembic reaches the database: on the connection `app.db.migrations` hands over.

That connection is already inside one transaction that holds the migration lock, so two hosts that
migrate at the same time do so one after the other, and a migration is applied completely or
not at all.
"""

from typing import Any, Literal

from alembic import context

from app.db.tables import metadata
from app.db.types import UtcTime


def _render(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Migrations name plain types, so that they keep working when ours move."""
    if kind == "type" and isinstance(item, UtcTime):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=_render,
    render_as_batch=False,
    compare_type=False,
)
with context.begin_transaction():
    context.run_migrations()
