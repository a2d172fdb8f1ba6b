"""Why a transaction or a sync failed."""
