"""Sound from a trained run: new sounds, and reconstructions of given ones."""
