"""Causes: the team's own rules, and the duty that applies changed rules to what is kept."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from app.db import causes
from app.db.engine import Database
from app.domain.causes.classifier import Rules
from app.domain.causes.loader import BadCauses, read_own, shipped
from app.errors import SettingsError

AT_ONCE = 200
MOST_STEPS = 100


def team_rules(file: Path | None) -> Rules:
    """The rules of CAUSES_FILE before those of this service; without a file only these.

    Raises SettingsError, one line, when the file cannot be read or used.
    """
    if file is None:
        return shipped()
    try:
        return read_own(file.read_text(encoding="utf-8"), shipped())
    except OSError as error:
        raise SettingsError(f"CAUSES_FILE: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError("CAUSES_FILE: is not UTF-8") from None
    except BadCauses as error:
        raise SettingsError(f"CAUSES_FILE: {error}") from None


@dataclass(frozen=True, slots=True)
class Reclassifier:
    """Decides kept causes anew after the rules have changed, a few rows per transaction."""

    database: Database

    async def run(self) -> str:
        """At most 20,000 rows a time; the rest is for the next time."""
        done = 0
        for _ in range(MOST_STEPS):
            step = await asyncio.to_thread(self._step)
            done += step
            if not step:
                break
        return f"{done} causes decided anew"

    def _step(self) -> int:
        with self.database.reading() as connection:
            if not causes.is_outdated(connection):
                return 0
        with self.database.writing() as connection:
            return causes.decide_anew(connection, AT_ONCE)
