"""The words of failure: error texts as accounting software and Codat really phrase them."""

import random
import uuid

FEED_CONNECTED = (
    "Feed Connection failed(409): The AccountToken, AccountId or AccountNumber is already "
    "connected to another Xero Bank Account in the selected Xero Organization."
)

PUSH_REASONS = (
    FEED_CONNECTED,
    "The document date cannot be before the period lock date: the period 2026-09 is closed.",
    "Account code '429' is not active and cannot be used for new transactions.",
    "Business Validation Error: Invalid Tax Rate specified. A tax rate is required for this line.",
    "Duplicate Document Number Error: You must specify a different number. This reference has "
    "already been used.",
    "Invalid Reference Id: Vendor assigned to this transaction has been deleted.",
    "The request timed out while waiting for the accounting software (504).",
)

VALIDATION_REASONS = (
    "The line item total -208.10((-195.01 + -1.09) + (-10.01 + -1.99)) must equal the transaction "
    "total -1.1",
    "Account 'b0d5ba3d-0c3c-4c9b-b5d3-56b4a43b62e4' could not be found in the chart of accounts.",
    "Tax rate 'STANDARD-20' could not be found. Choose one of the tax rates of the company.",
    "Currency rate is required because the currency EUR differs from the base currency GBP.",
    "Issue date 2019-04-01 is earlier than the start date of the sync configuration.",
)


def new_id(rng: random.Random) -> str:
    """A version 4 GUID in the usual dashed form, from the given generator."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def downstream(rng: random.Random, reason: str) -> str:
    """Codat's wrapping of a platform's error, as in its sync status samples.

    The blanks after `Message:` number two in older pages and one in newer ones.
    """
    blanks = rng.choice(("  ", " "))
    correlation = new_id(rng)
    return (
        f"An error occurred in a downstream service. Correlation ID: {correlation}. "
        f"Message:{blanks}{reason}"
    )


def already_processed(transaction_id: str) -> str:
    """The text for an expense that is in the books already (docs.codat.io/expenses/faq)."""
    return f"One or more transactions have previously been processed: {transaction_id}"


def about_sync(code: int, rng: random.Random, company_id: str, platform: str, reason: str) -> str:
    """The `errorMessage` of a whole sync that ended with this status code; "" on success.

    `reason` is what the platform said, used by the codes that pass it on.
    """
    texts = {
        4000: "Configuration error: the bank account of the company's sync configuration was not "
        f"found in {platform}. Save the configuration again.",
        4040: f"Company {company_id} was deleted or its connection to {platform} de-authorized.",
        4220: f"No valid set of connections for company {company_id}: reconnect {platform}.",
        4260: f"The {platform} subscription has ended or there was a billing problem.",
        5000: "An unexpected error occurred while syncing. "
        f"Correlation ID: {new_id(rng)}. Please try again later.",
        5080: reason,
        5120: f"One or more transactions could not be processed. {reason}",
    }
    if code < 4000:
        return ""
    return texts[code] if code in texts else downstream(rng, reason)
