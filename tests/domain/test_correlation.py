"""What an item's error message carries besides its words."""

import pytest

from app.domain.correlation import correlation_id

GUID = "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (f"An error occurred. Correlation ID: {GUID}. Message:  Feed Connection failed(409)", GUID),
        (f"An error occurred. Correlation ID:  {GUID}. Message: x", GUID),
        (f"correlationId={GUID.upper()}", GUID),
        (f'"correlationId": "{GUID}"', GUID),
        (f"Correlation Id: {GUID.replace('-', '')}", GUID.replace("-", "")),
        (f"a {GUID} that is no correlation id", None),
        ("Correlation ID: none", None),
        ("", None),
        (None, None),
        ("Correlation ID: " * 100_000, None),
    ],
)
def test_the_correlation_id_is_found_where_codat_writes_it(
    message: str | None, found: str | None
) -> None:
    """For the ticket to Codat's support; other ids in the text are not taken for it."""
    assert correlation_id(message) == found
