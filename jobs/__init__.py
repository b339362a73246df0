"""Command lines, one thin file per job. They know argv and the cluster, and nothing of pixels."""
