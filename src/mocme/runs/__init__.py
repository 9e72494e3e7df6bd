"""A training from configuration to run folder, and a run opened again."""
