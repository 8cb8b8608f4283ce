"""The name under which the verifiers library finds the environment: it takes an id for a module at the top
level, and asks it for one class of each kind.
"""

from memory_rl.integrations.verifiers import SecretEnv, SecretHarness, SecretTaskset

__all__ = ["SecretEnv", "SecretHarness", "SecretTaskset"]
