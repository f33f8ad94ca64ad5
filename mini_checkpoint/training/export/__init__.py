"""What is left in the end: the checkpoint folder and its model card."""
