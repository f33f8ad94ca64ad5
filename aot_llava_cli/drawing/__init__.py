"""What `aot-llava visualize` draws: a picture of all frames, and a page to step through them."""
