"""Reclassification: applies changed rules to stored causes."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from app.db import reclassification
from app.db.engine import Database
from app.domain.causes.classifier import Classifier
from app.domain.causes.loader import InvalidCausesFile, load_builtin, load_custom
from app.errors import SettingsError
from app.worker.threads import read, write

EVERY = timedelta(minutes=1)
ROWS_PER_STEP = 200
MAX_STEPS = 100
PAUSE_S = 0.02


def load_classifier(file: Path | None) -> Classifier:
    """The rules of CAUSES_FILE, then the built-in ones; without a file only these.

    Raises SettingsError, one line, when the file cannot be read or is invalid.
    """
    if file is None:
        return load_builtin()
    try:
        return load_custom(file.read_text(encoding="utf-8"), load_builtin())
    except OSError as error:
        raise SettingsError(f"CAUSES_FILE cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError("CAUSES_FILE is not UTF-8") from None
    except InvalidCausesFile as error:
        raise SettingsError(f"CAUSES_FILE: {error}") from None


async def reclassify_outdated(database: Database, clock: Callable[[], datetime]) -> str:
    """Decide outdated causes again, a few syncs per transaction.

    Makes up to `MAX_STEPS` steps; the rest is left for the next run.
    """
    syncs = 0
    for _ in range(MAX_STEPS):
        outdated = await read(database, reclassification.list_outdated, ROWS_PER_STEP)
        if not outdated:
            break
        for step in outdated:
            await write(database, reclassification.reclassify, *step, now=clock())
            syncs += len(step.sync_pks)
        await asyncio.sleep(PAUSE_S)
    return f"{syncs} syncs were reclassified"
