"""What breaks under load, small: the long runs are `make breakage`.

Every delivery is answered with 204 or 503 within twelve seconds; what was acknowledged is there
afterwards; SIGTERM is followed by an end within ten seconds; SIGKILL loses nothing.
"""

from collections.abc import Iterator

import pytest

from bench import kills
from bench.breakage import HARMS, REASONS, UNREADY, endure, terminate
from bench.ground import playing
from bench.kills import Figures, deaths, kill_often
from tests.planted import POINTS
from tests.processes import Stage

pytestmark = pytest.mark.timeout(400)
TWICE_AS_LONG_AS_AN_ANSWER_MAY_TAKE = 26
BRIEF = 4
FINDS_THE_PARENT = 0  # the seed of a random kill
HANGS = {"locked", "frozen"}
EACH = [(kind, name) for kind, harms in HARMS.items() for name in harms]


@pytest.fixture(scope="module")
def grounds() -> Iterator[dict[str, Stage]]:
    """A stage on each kind of database; the server is its own, for it is broken."""
    with playing("sqlite") as on_file, playing("postgresql") as on_server:
        yield {"sqlite": on_file, "postgresql": on_server}


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_a_database_that_breaks_costs_time_and_nothing_else(
    grounds: dict[str, Stage], kind: str, name: str
) -> None:
    """Gone, restarted, full, locked, slow, frozen; and `/readyz` says when it cannot be asked."""
    seconds = TWICE_AS_LONG_AS_AN_ANSWER_MAY_TAKE if name in HANGS else BRIEF
    figures = endure(grounds[kind], name, HARMS[kind][name], seconds)
    assert figures.faults() == []
    assert figures.answers[204] > 50
    if name in UNREADY:
        assert figures.reasons
        assert figures.reasons <= REASONS


@pytest.mark.parametrize(
    ("kind", "name"), [("sqlite", "in peace"), ("postgresql", "in peace"), *EACH]
)
def test_sigterm_under_load_loses_nothing_and_ends_in_time(
    grounds: dict[str, Stage], kind: str, name: str
) -> None:
    """Exit code 0 within ten seconds, whatever the database is doing."""
    figures = terminate(grounds[kind], name, HARMS[kind].get(name))
    assert figures.faults() == []
    assert figures.answers[204] >= 50


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kill_9_loses_nothing_that_was_acknowledged(kind: str) -> None:
    """Once at each named point and a few times at random; then we are equal to Codat."""
    figures = Figures(3, kind)
    with playing(kind) as stage:
        kill_often(stage, figures, deaths(3, len(POINTS) + len(POINTS) // 3))
    assert figures.lost == set()
    assert [str(each) for each in figures.differences] == []
    assert figures.fine
    assert set(figures.deaths) == {"random"} | {*POINTS}
    assert figures.not_reached.total() <= 2


def test_kill_9_of_one_of_several_processes_loses_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A child at a named point, whose heir serves, and the parent at random."""
    monkeypatch.setattr(kills, "SYNCS", 6)
    figures = Figures(FINDS_THE_PARENT, "postgresql", processes=2)
    with playing("postgresql") as stage:
        kill_often(stage, figures, ["record-before-commit:1", ""])
    assert figures.fine
    assert set(figures.deaths) == {"record-before-commit", "random parent"}
    assert not figures.not_reached
