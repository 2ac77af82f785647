"""Examples -> checkpoints: what is learned, in what order. One loop serves the three stages."""
