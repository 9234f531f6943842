"""Features back to a waveform."""
