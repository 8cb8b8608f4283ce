"""Where world, learner and meter meet: the reinforcement loop, the supervised loop and what they record."""
