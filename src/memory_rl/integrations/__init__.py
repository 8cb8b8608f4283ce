"""The same worlds in the forms that other libraries expect: thin adapters to task/, one module per library.

Each module imports its library, and nothing else here does. docs/integrations.md has examples.
"""
