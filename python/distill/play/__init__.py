"""`distill play`: a page in the browser on which a trained run is played like an instrument, and the API behind it."""
