"""HTTP: the webhook endpoint, the REST API, Codat's read paths, the pages."""
