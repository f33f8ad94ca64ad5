"""The model card of the mini checkpoint: what it is, how it was made, how well it answers, and what it cannot do."""

from mini_checkpoint.training.recipe import Recipe

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: video-text-to-text
language: en
tags: [llava-onevision, video, synthetic]
---

# Mini LLaVA-OneVision

A LLaVA-OneVision of {parameters:.1f} million parameters that answers seven kinds of question about short synthetic
clips: coloured circles, squares, triangles and crosses that move, appear, vanish and change colour before a textured
background. It is for tests and for measuring in miniature what the reduction of video tokens costs; it knows nothing
of the real world.

The classes are the stock ones of Transformers: `LlavaOnevisionForConditionalGeneration` with a SigLIP tower
({vision_layers} layers of width {vision_width}, 27 x 27 patches) and a Qwen2 language model ({text_layers} layers of
width {text_width}). Weights are stored in half precision and loaded in float32.

## How it was trained

By `python -m mini_checkpoint.training` of the AOT repository, with seed {seed}, on full video tokens only.{continued}

1. The vision tower, on {vision_scenes:,} scenes, {vision_steps:,} steps: each patch tells colour, shape, size, centre
   and outline of its object, its own place, and how many objects of each shape the frame shows.
2. Projector and language model, on the frozen tower's output for {clips:,} clips, {language_steps:,} of
   {language_planned:,} steps, single frames first: the answers, and those to further short questions about everything
   that a clip shows. Three kinds of loss were used in training alone, computed from what the generator knows: what a
   video token is to tell about its object's past, where names of objects are to look, and what they are to find there.
   The number of frames ({fewest} to {most}) and the distances between the tokens' positions differ from step to step.
   Two attention heads of the lowest layer, which tell the time, were set by hand and did not learn.
3. In the last {mixed_steps:,} of these steps, with longer clips, two kinds of noise. Each video token got a share of
   the mean of a few others, up to {largest_mixture:.0%}, that differs from clip to clip: so the model can read tokens
   that are averages, as pooling and merging make them. And in the last {hidden_steps:,}, each attention head missed a
   random share of the video tokens, up to {largest_hidden_share:.0%} (DropKey): so none counts on one token that
   stands for many. The weights that these last steps left were averaged with those they began with, which make up
   {beginning_share:.0%} (WiSE-FT). All this was chosen by what AOT at its defaults kept of the right answers at 10 %
   of the tokens, on clips that are used for nothing else, the two kinds of noise among six: its share is flattered by
   that, and so is that of any method that drops or merges tokens.

No step saw a {withheld}; every held-out clip
shows at least one of these.

## Held-out accuracy

{questions:,} questions about {held_out_clips:,} held-out clips of {held_out_frames} frames, all video tokens, greedy
decoding; an answer counts if it is exactly right.

{table}

## What it cannot do

Anything else. Questions in other words, real videos, images, several videos and longer answers are outside of what it
was trained on, and it answers them with confident nonsense. Its vocabulary of whole words is that of its questions;
any other text is read byte by byte, which it never learnt.
"""

CONTINUED = """
The last stage began with the checkpoint that the stages before it made, in half precision (`--last-stage-of`)."""


def model_card(
    recipe: Recipe,
    results: dict,
    num_parameters: int,
    withheld: list[str],
    language_steps: int,
    is_continued: bool,
) -> str:
    """Writes the card.

    Args:
        results: of the final evaluation: `accuracy` by type, `chance`, and `questions` by type.
        withheld: the looks that training never shows, such as "red triangle".
        language_steps: how many steps the language model has been trained.
        is_continued: whether the last stage began with a checkpoint, not with the state that the others left.
    """
    frames = [count for stage in recipe.language for _, weights in stage.frame_counts for count, _ in weights]
    return CARD.format(
        parameters=num_parameters / 1e6,
        vision_layers=recipe.shape.vision_layers,
        vision_width=recipe.shape.vision_width,
        text_layers=recipe.shape.text_layers,
        text_width=recipe.shape.text_width,
        seed=recipe.seed,
        vision_scenes=recipe.vision.scenes,
        vision_steps=recipe.vision.schedule.steps,
        clips=recipe.features.clips + sum(recipe.features.long_clips),
        language_steps=language_steps,
        language_planned=sum(stage.schedule.steps for stage in recipe.language),
        mixed_steps=sum(stage.schedule.steps for stage in recipe.language if stage.largest_mixture),
        largest_mixture=max(stage.largest_mixture for stage in recipe.language),
        hidden_steps=sum(stage.schedule.steps for stage in recipe.language if stage.largest_hidden_share),
        largest_hidden_share=max(stage.largest_hidden_share for stage in recipe.language),
        beginning_share=recipe.language[-1].beginning_share,
        continued=CONTINUED if is_continued else "",
        fewest=min(frames),
        most=max(frames),
        withheld=f"{', '.join(withheld[:-1])} or {withheld[-1]}",
        questions=results["questions"]["all"],
        held_out_clips=results["clips"],
        held_out_frames=results["frames"],
        table=_table(results),
    )


def _table(results: dict) -> str:
    lines = ["| question | how many | right | chance |", "|---|---|---|---|"]
    for kind in sorted(results["accuracy"], key=lambda kind: (kind == "all", kind)):
        name = f"**{kind}**" if kind == "all" else kind
        right, chance = results["accuracy"][kind], results["chance"][kind]
        lines.append(f"| {name} | {results['questions'][kind]:,} | {right:.1%} | {chance:.1%} |")
    return "\n".join(lines)
