"""Codat's webhooks: signatures, payloads, event types, samples."""
