"""The module under whose name the verifiers library finds the environment.

The library takes an id for a top-level module, and asks it for one class of each kind.
"""

from memory_rl.integrations.verifiers import SecretEnv, SecretHarness, SecretTaskset

__all__ = ["SecretEnv", "SecretHarness", "SecretTaskset"]
