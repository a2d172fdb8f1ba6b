"""The background work: projecting events, fetching, delivering messages, periodic tasks."""
