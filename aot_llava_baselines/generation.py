"""Runs a method on a LLaVA-OneVision or LLaVA-Video model through the ordinary `generate`, one prompt at a time."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_aot_llava.call_videos import ENCODED_TOKENS, CallVideos
from modeling_aot_llava.placeholder_spans import find_placeholder_spans

from .encoding import encode_video, newline_position_of
from .interface import Baseline, PromptSpan, ReducedVideo
from .pooling_head import PoolingHead
from .registry import BASELINES


class BaselineGenerator:
    """The base model, reading videos as one method does.

    ```python
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(...)
    generator = BaselineGenerator(model, build_baseline("fastvid", retention_ratio=0.1))
    output = generator.generate(**processor(text=..., videos=..., return_tensors="pt"), max_new_tokens=20)
    ```
    """

    def __init__(
        self,
        model: LlavaOnevisionForConditionalGeneration,
        method: Baseline,
        pooling_head: PoolingHead | None = None,
    ):
        """The model itself is never changed.

        Args:
            model: the stock model; or AOT's with `retention_ratio=1.0`, which reads LLaVA-Video checkpoints, too.
            pooling_head: for FastVID, `PoolingHead.from_pretrained()`; see `encode_video` for what it does without.

        Raises:
            ValueError: as `check_defined_for`.
        """
        check_defined_for(method, model.config)
        self.model = model
        self.method = method
        self.pooling_head = pooling_head

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values_videos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_video_frames: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Answers each row's prompt about its video, row by row.

        Args:
            input_ids: (rows, columns) with the placeholders of all tokens of one video a row, newlines included.
            pixel_values_videos: (rows, F, channels, height, width).
            attention_mask: (rows, columns), 0 where a row is padded.
            num_video_frames: (rows,), how many frames of each video are no padding; None for all.
            options: of `generate`.

        Returns:
            (rows, columns + longest answer): each row as it came, and its answer, padded on the right.

        Raises:
            ValueError: if there is not one video a row, it was encoded before, the placeholders do not fit it, or the
                cache is off.
        """
        if options.get(ENCODED_TOKENS) is not None:
            raise ValueError(f"`{ENCODED_TOKENS}` are what AOT made of a video: give a method the video itself.")
        if pixel_values_videos is None:
            return self.model.generate(input_ids=input_ids, attention_mask=attention_mask, **options)
        if len(pixel_values_videos) != len(input_ids):
            raise ValueError(
                f"There are {len(pixel_values_videos)} videos for {len(input_ids)} prompts, but the methods take one "
                "video a prompt."
            )
        if options.get("use_cache") is False:
            raise ValueError("use_cache is False, but the methods need a cache: leave it out.")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        videos = CallVideos(pixel_values_videos, num_video_frames=num_video_frames)
        videos.check()
        answers = []
        for row, pixels, num_frames, row_mask in zip(input_ids, pixel_values_videos, videos.num_frames, mask):
            prompt = row[row_mask.bool()].unsqueeze(0)
            video = encode_video(self.model, pixels[None, :num_frames], self.pooling_head, self.method)
            answers.append(self.answer(prompt, self.method.reduce(video), video.num_placeholders, **options))
        padding = self.model.generation_config.pad_token_id or 0
        padded = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=padding)
        return torch.cat([input_ids, padded], dim=1)

    def answer(self, prompt: Tensor, video: ReducedVideo, num_placeholders: int, **options: Any) -> Tensor:
        """Answers one prompt about a video that has been encoded and reduced.

        Args:
            prompt: (1, n), unpadded.
            video: of `method.reduce`.
            num_placeholders: of the encoded video, that the prompt has to have.
            options: of `generate`.

        Returns:
            (written,), the answer alone.
        """
        (placeholders,) = find_placeholder_spans(prompt == self.model.config.video_token_id, 1)
        if placeholders.length != num_placeholders:
            raise ValueError(
                f"The prompt has {placeholders.length} video placeholders, but this video needs {num_placeholders}, "
                "newlines included. Make prompt and pixels with one call of the processor, with all tokens."
            )
        span = PromptSpan(placeholders.start, len(video.tokens))
        ids, positions = fit_prompt(prompt, span.start, num_placeholders, video)
        newline = self.model.model.image_newline.to(video.tokens)
        features = torch.cat([video.tokens, newline.unsqueeze(0)]).to(self.model.dtype).unsqueeze(0)
        model = self._model_for(span, video)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions,
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=features)},
            **options,
        )
        return output[0, ids.shape[1] :]

    def _model_for(self, span: PromptSpan, video: ReducedVideo) -> LlavaOnevisionForConditionalGeneration:
        language_model = self.method.wrap(self.model.model.language_model, span, video)
        return self.model if language_model is None else with_language_model(self.model, language_model)


def check_defined_for(method: Baseline, config: LlavaOnevisionConfig) -> None:
    """Raises ValueError if the method is not defined for the model, or AOT takes tokens away before it.

    A method is defined for some places of newlines, and needs the layers that it works at.
    """
    position = newline_position_of(config)
    if position not in method.newline_positions:
        raise ValueError(
            f"{method.name} is not defined for a model with {position!r} newlines, only for "
            f"{' and '.join(map(repr, method.newline_positions))}. There run {', '.join(_defined_for(position))}."
        )
    method.check_model(config)
    ratio = getattr(config, "retention_ratio", 1)
    if ratio < 1:
        raise ValueError(
            f"The model's retention_ratio is {ratio}, so AOT leaves the method only a part of the tokens: load the "
            "model with retention_ratio=1.0."
        )


def _defined_for(newline_position: str) -> list[str]:
    return [name for name, kind in BASELINES.items() if newline_position in kind.newline_positions]


def fit_prompt(prompt: Tensor, start: int, num_full: int, video: ReducedVideo) -> tuple[Tensor, Tensor]:
    """The prompt with as many placeholders as there are tokens, and its position ids.

    Args:
        prompt: (1, n), with `num_full` placeholders from `start`.

    Returns:
        Two of (1, m).
    """
    columns = torch.arange(prompt.shape[1], device=prompt.device)
    rows = columns[: len(video.tokens) + 1]  # with the newline that ends the video
    if video.places is not None:
        rows = torch.cat([video.places.to(columns), columns.new_tensor([video.end])])
    kept = torch.cat([columns[:start], start + rows, columns[start + num_full :]])
    positions = columns[: len(kept)] if video.places is None else kept
    return prompt[:, kept], positions.unsqueeze(0)


def with_language_model(
    model: LlavaOnevisionForConditionalGeneration, language_model: nn.Module
) -> LlavaOnevisionForConditionalGeneration:
    """The same model, weights shared, with another language model; the given one stays as it is."""
    outer, inner = _shallow_copy(model), _shallow_copy(model.model)
    inner.language_model = language_model
    outer.model = inner
    return outer


def _shallow_copy(module: nn.Module) -> nn.Module:
    duplicate = copy.copy(module)
    # A copy shares the dictionary in which modules are registered.
    duplicate._modules = dict(module._modules)
    return duplicate
