"""Where weights come from: hub, folder or URI to verified local files. Knows no mathematics."""
