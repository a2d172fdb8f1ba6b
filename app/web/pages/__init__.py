"""The HTML pages for support staff."""
