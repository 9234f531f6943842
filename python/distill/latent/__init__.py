"""Analysis of a run's latent space: which axes it has, and what they do to a sound."""
