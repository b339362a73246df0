"""Recipes: a source table of captions and images -> the rows of a manifest that refer to one another."""
