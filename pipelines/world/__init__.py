"""A drawn world whose every picture has an exact truth: samples of nearly all tasks, for training and for checks."""
