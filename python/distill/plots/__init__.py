"""Pictures of training runs, latent spaces and sounds."""
