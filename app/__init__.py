"""The receiver of Codat Sync for Expenses webhooks: keeps every sync and every push error."""
