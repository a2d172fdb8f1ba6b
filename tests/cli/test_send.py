"""`send`: a signed sample event."""

import pytest

from app.cli.send import EVENT_HELP
from app.codat.webhooks.samples import EVENT_NAMES
from tests.cli.conftest import RunVerb
from tests.receiver import SIGNING_SECRET, receiver


@pytest.mark.parametrize(
    ("event", "options", "key", "value"),
    [
        ("SyncFailed", (), "eventType", "expenses.sync.unsuccessful"),
        ("expenses.sync.successful", ("--shape", "legacy"), "RuleType", "Sync Completed"),
        ("SyncStarted", (), "RuleType", "Sync Started"),
    ],
)
def test_it_posts_a_signed_event(
    run_verb: RunVerb, event: str, options: tuple[str, ...], key: str, value: str
) -> None:
    with receiver() as endpoint:
        to = ("--to", f"{endpoint.address}/in", "--sync", "s-1", "--company", "c-1")
        result = run_verb("send", event, *to, *options, CODAT_WEBHOOK_SECRETS=SIGNING_SECRET)
        [(path, message_id, body)] = endpoint.received
    assert (result.exit_code, path, body[key]) == (0, "/in", value)
    assert result.stdout == f"204 company=c-1 sync=s-1 {message_id}\n"


def test_another_answer_than_2xx_is_a_failure(run_verb: RunVerb) -> None:
    with receiver(failures=1) as endpoint:
        result = run_verb(
            "send", "SyncFailed", "--to", endpoint.address, "--secret", SIGNING_SECRET
        )
    assert result.exit_code == 1
    assert result.stderr == "error: The endpoint answered 500.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("Foo",), 2, "Unknown event 'Foo'."),
        (("SyncStarted", "--shape", "new"), 2, "no event for a started sync"),
        (("SyncFailed", "--secret", "whsec_canar"), 1, "error: The secret is invalid."),
        (("SyncFailed", "--to", "http://127.0.0.1:1"), 1, "error: Cannot reach http://127.0.0.1:1"),
    ],
)
def test_wrong_use_and_failures_are_explained(
    run_verb: RunVerb, arguments: tuple[str, ...], code: int, text: str
) -> None:
    result = run_verb("send", *arguments)
    assert result.exit_code == code
    assert text in " ".join(result.stderr.replace("│", " ").split())
    assert "canar" not in result.stderr


def test_the_help_lists_the_event_names() -> None:
    assert EVENT_HELP.replace(" or ", ", ").split(", ") == list(EVENT_NAMES)
