"""Features back to sound."""
