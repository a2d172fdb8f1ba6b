"""The HTML pages for support staff. Every page can be read without JavaScript."""
