"""Receives Codat Sync for Expenses webhooks and shows why each item failed."""

VERSION = "0.3.0"
