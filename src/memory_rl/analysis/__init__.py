"""Statistics over recorded runs; it reads frames and configurations, never a policy."""
