"""What is learnt from: frames with their targets, clips as cached features, questions for training alone."""
