"""How good is an image of a store? Scorers, the list of those that come with the package, and near-duplicates."""
