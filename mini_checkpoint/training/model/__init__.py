"""The mini LLaVA-OneVision before training: its layers, first weights, tokenizer and prompts."""
