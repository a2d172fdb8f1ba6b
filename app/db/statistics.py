"""What SQLite must know of its tables to choose an index. PostgreSQL sees to that by itself.

Without it SQLite takes any index that fits a question, and for the failures of a large database it
reads a hundred times as much as it must. Of a small one it must know nothing: what it then knows
would be wrong soon, and until it looks again it would rather read a whole table.
"""

from datetime import timedelta

from sqlalchemy import func, select

from app.db.engine import Database
from app.db.tables import syncs

EVERY = timedelta(minutes=15)
WORTH_IT = 5_000  # syncs
# Rows that are looked at; writers wait for half a second at most. With such a limit SQLite notes
# numbers and no samples of what is in the rows, in which an erased company would live on.
OF_EACH_INDEX = 100_000


def look_over(database: Database) -> bool:
    """Note how many rows the parts of each index lead to; True when that was worth it.

    A connection knows what was noted when it was opened, so none is kept for long
    (`database.RENEWED_AFTER_S`). Raises StorageUnavailable.
    """
    if not database.is_sqlite:
        return False
    with database.reading() as connection:
        last = connection.execute(select(func.max(syncs.c.id))).scalar() or 0
    if last < WORTH_IT:
        return False
    with database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA analysis_limit={OF_EACH_INDEX}")
        connection.exec_driver_sql("ANALYZE")
    return True
