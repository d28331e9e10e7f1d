"""The browser page, built from `web/`, and what serves it. No words and no keys: it hands out files."""
