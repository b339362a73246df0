"""Training: one batch of examples -> a step of the weights. Knows torch and the model, no Ray and no data sets."""
