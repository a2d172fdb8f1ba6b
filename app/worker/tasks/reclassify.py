"""Reclassification: applies changed rules to stored causes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from app import logging as log
from app.db import reclassification, workers
from app.db.engine import Database
from app.domain.causes.classifier import Classifier
from app.domain.causes.loader import InvalidCausesFile, load_builtin, load_custom
from app.errors import SettingsError
from app.worker.threads import read, write

EVERY = timedelta(minutes=1)
ROWS_PER_STEP = 200
MAX_STEPS = 100
PAUSE_S = 0.02

_log = log.get(__name__)


def load_classifier(file: Path | None) -> Classifier:
    """The rules of CAUSES_FILE, then the built-in ones; without a file only these.

    Raises SettingsError, one line, when the file cannot be read or is invalid.
    """
    if file is None:
        return load_builtin()
    try:
        return load_custom(file.read_text(encoding="utf-8"), load_builtin())
    except OSError as error:
        raise SettingsError(
            f"CAUSES_FILE cannot be read: {error.strerror}: {error.filename}"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError("CAUSES_FILE is not UTF-8") from None
    except InvalidCausesFile as error:
        raise SettingsError(f"CAUSES_FILE: {error}") from None


@dataclass(slots=True)
class Reclassifier:
    """Decides outdated causes again by this worker's rules, unless another worker's are newer.

    Else two workers with different rules would undo each other's work.
    """

    database: Database
    clock: Callable[[], datetime]
    _versions: list[str] = field(default_factory=list, init=False)

    def may_run(self, connection: Any) -> bool:
        """True when no live worker has newer rules. Logs when workers begin or cease to differ."""
        in_use = workers.rules_in_use(connection, self.clock() - workers.LIVE_FOR)
        mine, versions = self.database.classifier.version, [rules.version for rules in in_use]
        is_newest = not versions or versions[0] == mine
        if len(versions) > 1 and versions != self._versions:
            fields = {"rules_version": mine, "applied_version": versions[0]}
            _log.warning("workers have different rules for causes; the newest apply", **fields)
        elif len(versions) == 1 and len(self._versions) > 1:
            _log.info("all workers have the same rules for causes", rules_version=mine)
        self._versions = versions
        return is_newest

    async def run(self) -> str:
        """Reclassify a few syncs per transaction, in up to `MAX_STEPS` steps.

        The rest is left for the next run.
        """
        syncs = 0
        for _ in range(MAX_STEPS):
            outdated = await read(self.database, reclassification.list_outdated, ROWS_PER_STEP)
            if not outdated:
                break
            for step in outdated:
                await write(self.database, reclassification.reclassify, *step, now=self.clock())
                syncs += len(step.sync_pks)
            await asyncio.sleep(PAUSE_S)
        return f"{syncs} syncs were reclassified"
