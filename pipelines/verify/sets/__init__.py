"""Is a data set whole: an export of ours, or one of others? Readers of each format, and checks over their rows."""
