"""Pictures of features, of a training run, of a latent space, and of sounds."""
