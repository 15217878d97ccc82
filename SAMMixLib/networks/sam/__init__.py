"""SAM's image encoders, prompt encoder and mask decoder."""
