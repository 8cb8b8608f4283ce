"""The same worlds in the shapes that other libraries ask for: thin adapters on task/ alone, one module a
library.

Each module imports its library, and nothing else here does. See docs/integrations.md.
"""
