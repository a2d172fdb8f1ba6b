"""Sample events are what the receiver expects from Codat."""

from datetime import UTC, datetime

import pytest

from app.codat.webhooks.payloads import parse
from app.codat.webhooks.samples import EVENT_NAMES, Shape, sample_body, sign, sync_event_of
from app.codat.webhooks.signature import Verifier
from tests.codat.webhooks.test_signature import SECRET


@pytest.mark.parametrize("name", [*EVENT_NAMES, "failed", "Sync Failed", "STARTED"])
@pytest.mark.parametrize("shape", [None, "legacy"])
def test_a_sample_verifies_and_parses(name: str, shape: Shape | None) -> None:
    """In every spelling and shape."""
    event = sync_event_of(name)
    assert event is not None
    now = datetime.now(UTC)
    body, headers = sign(
        sample_body(event, company_id="c1", sync_id="s1", now=now, shape=shape), SECRET, now
    )
    raw_headers = [(key.encode(), value.encode()) for key, value in headers.items()]
    assert Verifier([SECRET]).verify(raw_headers, body).family == "webhook"
    payload = parse(body)
    assert (payload.event_type, payload.sync_id) == (f"sync.{event}", "s1")


def test_other_names_and_shapes_that_do_not_exist_are_refused() -> None:
    """A start has no new shape."""
    assert sync_event_of("Data sync completed") is None
    assert sync_event_of("connection.created") is None
    with pytest.raises(ValueError, match="no event for a started sync"):
        sample_body("started", company_id="c", sync_id="s", now=datetime.now(UTC), shape="new")
