"""What a transaction's history says: is it open, and what does it count as."""

from app.rules.failing import Filed, Told, judged

LOCKED, MISSING, LOST = ("locked", "f1"), ("missing", "f2"), ("missing", "f3")


def told(at: int, why: tuple[str, str] | None = None, *, completed: bool = False) -> Told:
    """A row of the sync of this hour: failed for a reason, completed, or neither."""
    cause, fingerprint = why or (None, None)
    return Told(at, at, f"day {at}", why is not None, completed, cause, fingerprint)


def filed(first: int, last: int, *, is_open: bool = True, leads: bool = True) -> Filed:
    return Filed(f"day {last}", first, last, last, 1, int(is_open), 0, leads)


def test_it_counts_at_its_newest_failure_of_a_kind() -> None:
    """However often it was tried, and in whatever order the rows come."""
    assert judged([told(3, LOCKED), told(1, LOCKED)]) == (True, {LOCKED: filed(1, 3)})


def test_a_later_sync_that_completes_it_cures_it() -> None:
    """An earlier one does not, and neither does the sync in which it fails."""
    assert judged([told(1, LOCKED), told(2, completed=True)]) == (
        False, {LOCKED: filed(1, 1, is_open=False)},
    )  # fmt: skip
    for elsewhere in (1, 0):
        again = [told(1, LOCKED), told(elsewhere, completed=True)]
        assert judged(again) == (True, {LOCKED: filed(1, 1)})


def test_only_a_sync_that_completes_all_its_rows_cures_it() -> None:
    """One row per integration type: while one is pending, nothing is known."""
    history = [told(1, LOCKED), told(2, completed=True), told(2)]
    assert judged(history)[0]


def test_of_two_messages_of_one_cause_the_newest_leads() -> None:
    """The cause as a whole counts the transaction once."""
    assert judged([told(1, MISSING), told(2, LOST), told(3, LOCKED)]) == (
        True, {MISSING: filed(1, 1, leads=False), LOST: filed(2, 2), LOCKED: filed(3, 3)},
    )  # fmt: skip


def test_what_it_failed_of_before_a_cure_is_not_open_for_what_comes_after() -> None:
    """A transaction that fails anew is open for its new reason only."""
    history = [told(1, MISSING), told(2, completed=True), told(3, LOCKED)]
    assert judged(history) == (True, {MISSING: filed(1, 1, is_open=False), LOCKED: filed(3, 3)})


def test_a_failed_row_without_a_cause_is_open_and_not_filed() -> None:
    """It was kept before there were causes, and is decided a moment later."""
    undecided = Told(1, 1, "day 1", True, False, None, None)
    assert judged([undecided]) == (True, {})
    assert judged([undecided, told(2, completed=True)]) == (False, {})
    assert judged([]) == (False, {})
