"""Receivers that the webhook endpoint is measured against."""
