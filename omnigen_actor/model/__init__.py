"""What computes: the transformer, its conditions and steps, the autoencoder, weights in memory. Knows no tables."""
