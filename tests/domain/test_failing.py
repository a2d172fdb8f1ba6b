"""What a transaction's history says: is it open, and what does it count as."""

from app.domain.failing import Filed, Told, judged

LOCKED, MISSING, LOST = ("locked", "f1"), ("missing", "f2"), ("missing", "f3")


def told(at: int, why: tuple[str, str] | None = None, *, completed: bool = False) -> Told:
    """A row of the sync of this hour: failed for a reason, completed, or neither."""
    cause, fingerprint = why or (None, None)
    return Told(at, at, f"day {at}", why is not None, completed, cause, fingerprint)


def filed(
    at: int, again: int | None = None, *, first: int | None = None, is_open: bool = True,
    cause_again: int | str | None = "",
) -> Filed:  # fmt: skip
    """Its last failure of a day, the days that follow, and its first failure of that day."""
    of_cause = f"day {cause_again}" if isinstance(cause_again, int) else cause_again
    if again and cause_again == "":
        of_cause = f"day {again}"
    began = at if first is None else first
    return Filed(f"day {again}" if again else "", of_cause, began, at, at, 1, int(is_open), 0)


def on(day: int, why: tuple[str, str]) -> tuple[str, str, str]:
    return (*why, f"day {day}")


def test_each_day_names_the_next_on_which_it_failed_so_again() -> None:
    """However often it was tried, and in whatever order the rows come."""
    assert judged([told(3, LOCKED), told(1, LOCKED)]) == (
        True, {on(1, LOCKED): filed(1, 3), on(3, LOCKED): filed(3)},
    )  # fmt: skip
    same_day = [told(4, LOCKED)._replace(day="day 3"), told(3, LOCKED)]
    assert judged(same_day) == (True, {on(3, LOCKED): filed(4, first=3)})


def test_a_later_sync_that_completes_it_cures_it() -> None:
    """An earlier one does not, and neither does the sync in which it fails."""
    assert judged([told(1, LOCKED), told(2, completed=True)]) == (
        False, {on(1, LOCKED): filed(1, is_open=False)},
    )  # fmt: skip
    for elsewhere in (1, 0):
        again = [told(1, LOCKED), told(elsewhere, completed=True)]
        assert judged(again) == (True, {on(1, LOCKED): filed(1)})


def test_only_a_sync_that_completes_all_its_rows_cures_it() -> None:
    """One row per integration type: while one is pending, nothing is known."""
    history = [told(1, LOCKED), told(2, completed=True), told(2)]
    assert judged(history)[0]


def test_of_two_messages_of_one_cause_the_newest_of_a_day_counts_for_it() -> None:
    """The cause as a whole counts the transaction once, in whatever range."""
    history = [told(1, MISSING), told(1, LOST), told(2, LOST), told(3, LOCKED), told(4, MISSING)]
    assert judged(history) == (
        True,
        {
            on(1, MISSING): filed(1, 4, cause_again=None),
            on(1, LOST): filed(1, 2),
            on(2, LOST): filed(2, cause_again=4),
            on(3, LOCKED): filed(3),
            on(4, MISSING): filed(4),
        },
    )


def test_what_it_failed_of_before_a_cure_is_not_open_for_what_comes_after() -> None:
    """A transaction that fails anew is open for its new reason only."""
    history = [told(1, MISSING), told(2, completed=True), told(3, LOCKED)]
    assert judged(history) == (
        True, {on(1, MISSING): filed(1, is_open=False), on(3, LOCKED): filed(3)},
    )  # fmt: skip


def test_a_failed_row_without_a_cause_is_open_and_not_filed() -> None:
    """It was kept before there were causes, and is decided a moment later."""
    undecided = Told(1, 1, "day 1", True, False, None, None)
    assert judged([undecided]) == (True, {})
    assert judged([undecided, told(2, completed=True)]) == (False, {})
    assert judged([]) == (False, {})
