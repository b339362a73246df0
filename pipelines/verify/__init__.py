"""Is a run store whole? What its files and records say, compared; findings, and what mends them."""
