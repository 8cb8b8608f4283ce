"""Where parameters live: the policy protocol and its implementations."""
