"""A run's directory: what is written, in which format, and how it is read again."""
