"""From a run store to a data set that training tools read as it is."""
