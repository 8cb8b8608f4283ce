"""Where world, learner and meter meet: the training loop, its sampling, and what it records."""
