"""Secrets in other libraries' trainers: how many bits an episode of theirs stores.

`recorder` writes what happened as an ordinary run directory, whoever trains; the other modules are its ears
in one library each, and import it. docs/integrations.md has examples.
"""
