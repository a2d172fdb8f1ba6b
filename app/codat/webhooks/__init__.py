"""Codat's webhooks: signature, payloads, samples."""
