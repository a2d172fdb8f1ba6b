"""Documented bodies and answers of Codat's, one per file; `index.json` says what each means."""
