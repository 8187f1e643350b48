"""One file per provider: a table of endpoints and the pure functions that read them."""
