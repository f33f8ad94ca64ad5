"""The model card of a variant: what the Hub and its readers are told."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .base import Base
from .operating_point import OperatingPoint
from .repository import base_model_id
from .variants import Variant

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TAGS = ["aot", "video", "token-reduction", "optimal-transport", "llava_onevision", "arxiv:2603.01400"]

_USAGE = """
model = AutoModelForImageTextToText.from_pretrained(
    model_id, {revision}trust_remote_code=True, dtype="auto", device_map="auto"
)
processor = AutoProcessor.from_pretrained(model_id, {revision}trust_remote_code=True)

conversation = [
    {{
        "role": "user",
        "content": [
            {{"type": "video", "path": "clip.mp4"}},
            {{"type": "text", "text": "What happens in this video?"}},
        ],
    }}
]
inputs = processor.apply_chat_template(
    conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
).to(model.device, model.dtype)
output = model.generate(**inputs, max_new_tokens=100)
print(processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])"""


def model_card(
    base: Base,
    variant: Variant,
    point: OperatingPoint,
    repo_id: str,
    revision: str | None = None,
    branches: Mapping[str, OperatingPoint] | None = None,
) -> str:
    """Renders the card.

    Args:
        base: where the weights come from.
        variant: what the card describes.
        point: what it costs.
        repo_id: the repository, or the folder, that the usage code loads.
        revision: the branch that it loads, if it is not the main one.
        branches: the repository's other branches, for the card of the main one.
    """
    base_model = base_model_id(base, variant)
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        base_model=base_model,
        tags=_TAGS,
        **base.card_fields,
    )
    flops = {branch: readable_flops(other.flops_after) for branch, other in (branches or {}).items()}
    card = ModelCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        title=variant.name,
        base_model=base_model,
        base_name=base_model.split("/")[-1],
        origin=_origin(base),
        variant=variant,
        settings=_settings(variant),
        point=point,
        ratio=f"{point.tokens_after / point.tokens_before:.0%}".replace("%", " %"),
        tokens_after=_tokens_after(point),
        flops_before=readable_flops(point.flops_before),
        flops_after=readable_flops(point.flops_after),
        flops_ratio=f"{point.flops_after / point.flops_before:.1%}".replace("%", " %"),
        branches=[(branch, _tokens_after(other), flops[branch]) for branch, other in (branches or {}).items()],
        usage=usage_code(repo_id, revision),
        serving=serving_command(repo_id, revision, point.num_frames),
    )
    return str(card).rstrip("\n") + "\n"


def usage_code(repo_id: str, revision: str | None = None) -> str:
    """From the Hub to an answer about `clip.mp4`."""
    names = [f'model_id = "{repo_id}"', *([f'revision = "{revision}"'] if revision else [])]
    usage = _USAGE.format(revision="revision=revision, " if revision else "")
    return "\n".join(["from transformers import AutoModelForImageTextToText, AutoProcessor", "", *names]) + usage


def serving_command(repo_id: str, revision: str | None, num_frames: int) -> str:
    """Starts a server of the OpenAI protocol."""
    options = ["--trust-remote-code", *([f"--revision {revision}"] if revision else [])]
    # vLLM reads the video files itself, and knows nothing of the processor's number of frames.
    frames = f"""--media-io-kwargs '{{"video": {{"num_frames": {num_frames}}}}}'"""
    return f"vllm serve {shlex.quote(repo_id)} {' '.join(options)} \\\n  {frames}"


def loading_lines(repo_id: str, revision: str | None = None) -> list[str]:
    """The three lines of Python that load model and processor."""
    arguments = [f'"{repo_id}"', *([f'revision="{revision}"'] if revision else []), "trust_remote_code=True"]
    return [
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        f"model = AutoModelForImageTextToText.from_pretrained({', '.join(arguments)})",
        f"processor = AutoProcessor.from_pretrained({', '.join(arguments)})",
    ]


def readable_flops(flops: float) -> str:
    """Like `40.8 TFLOPs`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if flops >= size:
            return f"{flops / size:.1f} {unit}FLOPs"
    return f"{flops:.0f} FLOPs"


def _tokens_after(point: OperatingPoint) -> str:
    return f"{'' if point.has_fixed_token_count else 'about '}{point.tokens_after:,}"


def _origin(base: Base) -> str:
    if base.is_on_hub:
        url = f"https://huggingface.co/{base.location}/tree/{base.revision}"
        return f"The weights are byte for byte those of commit [`{base.revision[:7]}`]({url})."
    return "The weights are those of a local checkpoint of this kind, unchanged."


def _settings(variant: Variant) -> str:
    fields = variant.fields
    # Without a number of its own, a variant has the anchors that its ratio asks for, also of a call with another one.
    anchors = fields.get("num_anchors")
    settings = [
        f"`retention_ratio={fields['retention_ratio']}`",
        *([f"`num_anchors={anchors}`"] if anchors is not None else []),
        f"{fields['clip_segmentation']} clips (`num_clips={fields['num_clips']}`)",
        f'`recipe="{fields["recipe"]}"`',
    ]
    return ", ".join(settings)
