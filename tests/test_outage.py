"""Outages of the database under load, short: `make breakage` runs longer. SIGKILL is in test_chaos.

Every delivery is answered with 204 or 503 in time, and what was acknowledged is stored afterwards.
"""

from collections.abc import Iterator

import pytest

from bench import outage
from bench.database_faults import FAULTS, UNREADY
from bench.harness import DURABLE, migrated_stage
from bench.outage import endure, terminate
from tests.processes import Stage

HANGING = {"locked", "frozen"}
ALL_FAULTS = [(kind, name) for kind, faults in FAULTS.items() for name in faults]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, as long as Codat waits for an answer, and longer than the shutdown."""
    monkeypatch.setattr(outage, "ANSWER_WITHIN_S", 15.0)
    monkeypatch.setattr(outage, "STOPS_WITHIN_S", 15.0)


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    """A stage on a server of its own for each kind of database, because it is broken here."""
    with (
        migrated_stage("sqlite") as on_sqlite,
        migrated_stage("postgresql", DURABLE) as on_postgresql,
    ):
        yield {"sqlite": on_sqlite, "postgresql": on_postgresql}


@pytest.mark.parametrize(("kind", "name"), ALL_FAULTS)
def test_a_failing_database_delays_deliveries_and_loses_none(
    stages: dict[str, Stage], kind: str, name: str
) -> None:
    """Down, read-only, locked, full, frozen; `/readyz` shows it where no lock is the reason."""
    seconds = 13 if name in HANGING else 3
    result = endure(stages[kind], name, FAULTS[kind][name], seconds)
    assert result.failures == []
    assert result.answers[204] > 50
    assert bool(result.unready_reasons) is (name in UNREADY)


@pytest.mark.parametrize(("kind", "name"), [("sqlite", None), ("postgresql", "frozen")])
def test_sigterm_under_load_loses_nothing(
    stages: dict[str, Stage], kind: str, name: str | None
) -> None:
    """Exit code 0 within ten seconds, also while the database does not answer."""
    result = terminate(stages[kind], name or "no fault", FAULTS[kind][name] if name else None)
    assert result.failures == []
    assert result.answers[204] >= 50
