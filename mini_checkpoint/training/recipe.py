"""Every number of the training run."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Schedule:
    """Steps of one phase: linear warm-up to the peak, then a cosine down to almost nothing.

    With a `matrix_learning_rate`, Muon trains the matrices within the layers, at that rate.
    """

    steps: int
    peak_learning_rate: float
    warmup_steps: int
    evaluate_every: int
    weight_decay: float = 0.05
    matrix_learning_rate: float | None = None


@dataclass(frozen=True)
class VisionRecipe:
    """Single-frame pretraining of the vision tower.

    Attributes:
        batch_size: frames a step.
        sparse_share: share of the steps, the first ones, that see `sparse_patches` patches of a frame alone (the
            objects' and some of the background); attention costs the square of their number. The rest see all.
        full_batch_size: frames a step then.
        grey_share: share of the frames that are shown without colour.
        scenes, frames_a_scene: of the frames that are drawn from.
    """

    schedule: Schedule = Schedule(steps=2600, peak_learning_rate=2e-3, warmup_steps=100, evaluate_every=200)
    batch_size: int = 32
    sparse_patches: int = 192
    sparse_share: float = 0.87
    full_batch_size: int = 12
    grey_share: float = 0.25
    scenes: int = 2000
    frames_a_scene: int = 8
    held_out_scenes: int = 24
    held_out_frames_a_scene: int = 4


@dataclass(frozen=True)
class FeatureRecipe:
    """Clips whose tower output is cached while the language model learns.

    Attributes:
        clips, frames: those of which there are most, and their frames.
        long_clips, long_frames: longer ones, others in each stage; held-out clips are as long.
    """

    clips: int = 1700
    frames: int = 8
    long_clips: tuple[int, ...] = (300, 700, 700)
    long_frames: int = 16
    held_out_clips: int = 40
    final_clips: int = 160


@dataclass(frozen=True)
class LanguageStage:
    """Projector, newline and language model on cached features, with a schedule of its own.

    Attributes:
        tokens_a_step: tokens of a batch, those of the questions included; a step has as many clips as fit.
        frame_counts: (until this share of the run, ((frames of a clip, weight), ...)) in ascending order.
        smallest_position_scale: distances between the positions of video tokens are multiplied by a random factor
            from this to 1, but for a share `unscaled_share` of the clips.
        tracking_weight: of the training-only loss on the video tokens, see `tracking`; 0 for none.
        pointing_weight: of the training-only loss on where names of objects and answers look, see `pointing`.
        finding_weight: of the training-only loss on what names of objects find there; 0 for none.
        grounding_questions: (until this share of the run, further questions a clip), see `grounding`.
        largest_mixture: the most that a video token gets of others, see `token_mixing`.
        largest_hidden_share: the most of the video tokens that a head does not see, see `key_dropout`.
        beginning_share: of the weights that the stage began with, in their average with the learnt ones that it leaves
            behind (WiSE-FT, Wortsman et al., CVPR 2022): so a short stage forgets less; 0 for none.
    """

    schedule: Schedule
    frame_counts: tuple
    grounding_questions: tuple
    largest_mixture: float = 0.0
    largest_hidden_share: float = 0.0
    beginning_share: float = 0.0
    tokens_a_step: int = 3640
    smallest_position_scale: float = 0.1
    unscaled_share: float = 0.4
    tracking_weight: float = 0.5
    pointing_weight: float = 0.3
    finding_weight: float = 0.5


# From single frames to clips; then on with more long clips and noise, the learning rate being raised again; at last
# with other clips and heads that do not see all of them.
LANGUAGE_STAGES = (
    LanguageStage(
        schedule=Schedule(
            steps=3600, peak_learning_rate=1e-3, warmup_steps=60, evaluate_every=250, matrix_learning_rate=0.007
        ),
        frame_counts=(
            (0.07, ((1, 1),)),
            (0.3, ((1, 1), (2, 2), (4, 2))),
            (0.8, ((4, 1), (6, 1), (8, 4))),
            (1.0, ((8, 3), (16, 2))),
        ),
        grounding_questions=((0.5, 8), (0.85, 6), (1.0, 2)),
    ),
    LanguageStage(
        schedule=Schedule(
            steps=5200, peak_learning_rate=7e-4, warmup_steps=60, evaluate_every=250, matrix_learning_rate=0.005
        ),
        frame_counts=((1.0, ((4, 1), (8, 2), (16, 3))),),
        grounding_questions=((1.0, 2),),
        largest_mixture=0.65,
    ),
    LanguageStage(
        schedule=Schedule(
            steps=1600, peak_learning_rate=6e-4, warmup_steps=60, evaluate_every=400, matrix_learning_rate=0.004
        ),
        frame_counts=((1.0, ((4, 1), (8, 2), (16, 3))),),
        grounding_questions=((1.0, 2),),
        largest_mixture=0.65,
        largest_hidden_share=0.9,
        beginning_share=0.5,
        smallest_position_scale=0.03,
        unscaled_share=0.3,
        # No checkpoint has the heads that these losses need, and this stage may begin with one.
        tracking_weight=0.0,
        finding_weight=0.0,
    ),
)


@dataclass(frozen=True)
class Shape:
    """Layer sizes of the model.

    Seven vision layers are the least in which AOT's default layers 5 and -2 exist; here they are the same one.
    """

    vision_width: int = 96
    vision_layers: int = 7
    vision_heads: int = 3
    vision_mlp: int = 192
    text_width: int = 128
    text_layers: int = 6
    text_heads: int = 4
    text_mlp: int = 384


@dataclass(frozen=True)
class Recipe:
    """The whole run."""

    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    vision: VisionRecipe = field(default_factory=VisionRecipe)
    features: FeatureRecipe = field(default_factory=FeatureRecipe)
    language: tuple[LanguageStage, ...] = LANGUAGE_STAGES

    def as_dict(self) -> dict:
        """Everything, as JSON takes it."""
        return asdict(self)
