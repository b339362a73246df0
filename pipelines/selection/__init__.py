"""Which images of a run store make a data set: filters, best of a row, quotas, splits. Knows no scorers and no Ray."""
