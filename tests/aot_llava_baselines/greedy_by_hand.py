"""Greedy decoding written naively: no cache, no `generate`."""

import torch

NEW_TOKENS = 6


def greedy_by_hand(model, embeds, positions):
    """The tokens that follow embeddings, (1, n, D), with these position ids, (1, n)."""
    written = []
    for _ in range(NEW_TOKENS):
        # Without a mask, gaps between positions would be taken for borders between packed prompts.
        mask = torch.ones_like(positions)
        output = model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
        logits = output.logits[0, -1]
        written.append(int(logits.argmax()))
        embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor([written[-1:]]))], dim=1)
        positions = torch.cat([positions, positions[:, -1:] + 1], dim=1)
    return written
