"""A page to draw on: what it does, which knows nothing of a browser, and below `page` what it looks like."""
