"""The hyperparameters of AOT (arXiv 2603.01400) as flat fields of a LLaVA-OneVision config."""

from typing import TYPE_CHECKING, Any

from transformers import LlavaOnevisionConfig

from .aot_fields import AOTFields, aot_fields_of, is_integer_within, require, require_choice
from .llava_video_checkpoint import config_of_original, is_original
from .plain_numbers import is_number
from .required_transformers import check_transformers
from .token_budget import FrameGrid, anchors_of_ratio, newline_places, pooled_grid_size

if TYPE_CHECKING:  # transformers too old for this code copies the modules named in this file alone; it shall say so
    from .error_texts import show as show

check_transformers()


class AOTLlavaOnevisionConfig(AOTFields, LlavaOnevisionConfig):
    r"""
    Configuration of [`AOTLlavaOnevisionForConditionalGeneration`]: a [`LlavaOnevisionConfig`] with the
    hyperparameters of AOT. The defaults are the paper's operating point on LLaVA-OneVision at 10 % of the video
    tokens. Sections and equations are those of arXiv 2603.01400.

    Fields may be changed at any time, on a loaded model too (`model.config.retention_ratio = 0.2`); they are checked
    again whenever they are used.

    Args:
        recipe (`str`, *optional*, defaults to `"paper"`):
            `"paper"`: Algorithms 1 and 2 as printed, under an exact token budget. `"released"`: what the authors'
            program computes; the number of tokens then depends on the video.
        retention_ratio (`float`, *optional*, defaults to 0.1):
            Share of the base model's pooled video tokens that reaches the language model (Sec. 4.1). 1 or more
            switches AOT off: the model is then the base model, bit for bit.
        num_anchors (`int`, *optional*):
            Token anchors a frame, M, counted on the patch grid (Sec. 7). By default interpolated from the ratio
            between the paper's values (at 10, 15, 20, 25 %: 126, 144, 196, 205 with bilinear pooling, 108, 144, 176,
            198 with average pooling). Another number is kept whatever ratio a call asks for.
        local_anchor_ratio (`float`, *optional*, defaults to 0.5):
            Share of the anchors that is chosen locally, window by window (Sec. 3.2).
        local_window_size (`int`, *optional*, defaults to 9):
            Side of a local window in patches (Sec. 3.2, Eq. 8).
        local_attention_layer (`int`, *optional*, defaults to 5):
            Vision layer, counted from 0 (negative: from the end), whose attention ranks the local anchors.
        global_attention_layer (`int`, *optional*, defaults to -2):
            Vision layer whose attention ranks the global anchors (Sec. 3.2, Eq. 6-7).
        anchor_selection (`str`, *optional*, defaults to `"attention"`):
            `"attention"`, or `"random"` for the ablation of Sec. 9 (Table 8).
        anchor_seed (`int`, *optional*, defaults to 0):
            Seed of the random anchors; unused with `anchor_selection="attention"`.
        sinkhorn_epsilon (`float`, *optional*, defaults to 0.1):
            Entropic regularisation of the transport (Sec. 3.1, Eq. 4-5; the paper's lambda there).
        sinkhorn_iterations (`int`, *optional*, defaults to 100):
            Largest number of Sinkhorn-Knopp iterations (Sec. 7).
        sinkhorn_tolerance (`float`, *optional*, defaults to 0.01):
            Sinkhorn stops once the mean absolute change of the sources' scaling is below it (Algorithm 1, line 10).
        intra_frame_weight (`float`, *optional*, defaults to 1.0):
            lambda_intra of Eq. 11.
        inter_frame_weight (`float`, *optional*, defaults to 1.0):
            lambda_inter of Eq. 16.
        intra_frame_aggregation (`str`, *optional*, defaults to `"transport"`):
            `"transport"`, `"cosine"` (Table 4) or `"none"` (Tables 4 and 5).
        inter_frame_aggregation (`str`, *optional*, defaults to `"transport"`):
            The same choice for the transport along time.
        num_clips (`int`, *optional*, defaults to 8):
            Frame clips, K; at most half the number of frames is used (Sec. 3.3).
        clip_segmentation (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"`, or `"dynamic"` for clips cut where the scene changes (Sec. 8). `"none"`, with the `"released"`
            recipe alone: frames are not compared with each other, as in the authors' script for LLaVA-Video.
        dynamic_similarity_threshold (`float`, *optional*, defaults to 0.8):
            Dynamic clips are also cut where the cosine similarity of neighbouring frames is below it (Sec. 8).
        temporal_threshold (`float`, *optional*):
            tau of Algorithm 2: a token of a later frame is kept where q < tau, as printed; the number of tokens then
            depends on the video. By default each frame keeps its quota of the budget, lowest q first.
        keep_ratio (`float`, *optional*):
            Share of a later frame's tokens that the `"released"` recipe keeps. By default the share that meets
            `retention_ratio` on average.
        frames_at_once (`int`, *optional*, defaults to 32):
            Frames that go through the vision tower at a time. Fewer take less memory, and on a GPU perhaps more time;
            tokens are the same.
        mm_spatial_pool_mode (`str`, *optional*, defaults to `"bilinear"`):
            The base model's spatial pooling, as LLaVA-NeXT calls it: `"bilinear"` (LLaVA-OneVision: 27 x 27 patches
            to 14 x 14 tokens) or `"average"` (LLaVA-Video as it is evaluated: to 13 x 13).
        mm_newline_position (`str`, *optional*, defaults to `"one_token"`):
            Where the base model has newline tokens, as LLaVA-NeXT calls it: `"one_token"` after the video
            (LLaVA-OneVision), `"grid"` after each row of each frame (LLaVA-Video), `"frame"` after each frame, or
            `"no_token"`. They are not counted by `retention_ratio`.
        aot_newline_position (`str`, *optional*):
            Where a compressed video has them: by default as the base model; or fewer, `"frame"`, `"one_token"` or
            `"no_token"`.
        kwargs:
            The fields of [`LlavaOnevisionConfig`].

    Raises:
        ValueError: where a field is out of range; the message names field, value and what is allowed.

    Example:

    ```python
    >>> from modeling_aot_llava import AOTLlavaOnevisionConfig

    >>> config = AOTLlavaOnevisionConfig(retention_ratio=0.2, clip_segmentation="dynamic")
    ```
    """

    model_type = "aot_llava_onevision"

    mm_spatial_pool_mode: str = "bilinear"
    mm_newline_position: str = "one_token"
    aot_newline_position: str | None = None

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Reads a config file; a stock LLaVA-OneVision config is welcome as the base of an AOT config.

        And so is the flat config of an original LLaVA-Video checkpoint.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_original(config_dict):
            return {**config_of_original(config_dict), "model_type": cls.model_type}, kwargs
        if config_dict.get("model_type") == LlavaOnevisionConfig.model_type:
            config_dict["model_type"] = cls.model_type
        return config_dict, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Like the parent's; see there.

        A number of anchors that is just that of the file's ratio, as earlier versions wrote it, is read as not set: it
        belongs to that ratio, and not to one that is given here or later.
        """
        loaded = super().from_dict(config_dict, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded  # with `return_unused_kwargs=True`
        ratio_of_file = config_dict.get("retention_ratio", cls.retention_ratio)
        if (
            "num_anchors" not in kwargs
            and config.num_anchors is not None
            and is_number(ratio_of_file)
            and config.num_anchors == anchors_of_ratio(config.frame_grid, ratio_of_file)
        ):
            config.num_anchors = None
        return loaded

    @property
    def patch_grid_size(self) -> int:
        """Side G of the vision tower's patch grid; a frame has N = G * G patch tokens."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def pooled_grid_size(self) -> int:
        """Side of the pooled grid; a frame has P = side * side pooled tokens."""
        return pooled_grid_size(self.patch_grid_size, self.mm_spatial_pool_mode)

    @property
    def frame_grid(self) -> FrameGrid:
        """The grid of every frame, and its pooling."""
        return FrameGrid((self.patch_grid_size, self.patch_grid_size), self.mm_spatial_pool_mode)

    @property
    def compressed_newline_position(self) -> str:
        """Where a compressed video has newline tokens."""
        return self.aot_newline_position or self.mm_newline_position

    def count_newlines(self, num_frames: int, is_compressed: bool) -> int:
        """Newline tokens of a video of this many frames."""
        position = self.compressed_newline_position if is_compressed else self.mm_newline_position
        return len(newline_places(num_frames, self.pooled_grid_size, position))

    @property
    def num_vision_layers(self) -> int:
        return self.vision_config.num_hidden_layers

    def validate_host(self) -> None:
        require_choice("mm_spatial_pool_mode", self.mm_spatial_pool_mode, ("bilinear", "average"))
        require_choice("mm_newline_position", self.mm_newline_position, _NEWLINES)
        self._validate_against_patch_grid()
        self._validate_newlines()

    def _validate_against_patch_grid(self) -> None:
        grid = self.patch_grid_size
        require(
            self.pooled_grid_size > 0,
            "mm_spatial_pool_mode",
            self.mm_spatial_pool_mode,
            f'"bilinear": the vision tower\'s patch grid is {grid} x {grid}',
        )
        require(
            is_integer_within(self.local_window_size, 1, grid),
            "local_window_size",
            self.local_window_size,
            f"an integer from 1 to {grid}, the side of the vision tower's patch grid",
        )
        require(
            self.num_anchors is None or is_integer_within(self.num_anchors, 1, grid * grid),
            "num_anchors",
            self.num_anchors,
            f"None or an integer from 1 to {grid * grid}, the patches of a frame",
        )

    def _validate_newlines(self) -> None:
        position = self.aot_newline_position
        if position is not None:
            # As many or more could not be told from the uncompressed prompt.
            fewer = _NEWLINES[: _NEWLINES.index(self.mm_newline_position)]
            require(
                position in fewer,
                "aot_newline_position",
                position,
                " or ".join(["None", *(f'"{choice}"' for choice in fewer)])
                + f': fewer newline tokens than mm_newline_position="{self.mm_newline_position}" gives',
            )
        if self.recipe == "released" and self.clip_segmentation != "none":
            require(
                self.compressed_newline_position in ("one_token", "no_token"),
                "clip_segmentation",
                self.clip_segmentation,
                f'"none" with recipe="released" and "{self.compressed_newline_position}" newlines: the authors\' '
                "program lets newline tokens take part in its transport along time and then keeps mostly them; their "
                'own script for LLaVA-Video switches it off. Or set aot_newline_position to "one_token"',
            )


AOT_FIELDS = aot_fields_of(AOTLlavaOnevisionConfig)

# Fewest first.
_NEWLINES = ("no_token", "one_token", "frame", "grid")

AOTLlavaOnevisionConfig.register_for_auto_class()

__all__ = ["AOTLlavaOnevisionConfig"]
