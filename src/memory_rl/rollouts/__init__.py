"""Rollouts of other people's training: read from what trainers leave on disk, and accounted for in bits."""
