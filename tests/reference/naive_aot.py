"""Token reduction by optimal transport in float64, written like the formulas.

This is the truth the tests compare the package with. It shares no code with the package: Python
loops over frames, windows and tokens, vectors only where a formula has vectors. Sections and
equations are those of the paper (arXiv 2603.01400); "released" is what the authors' released
program computes where that differs.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import torch

# Sec. 7: retention ratio -> anchors a frame on the 27x27 grid of LLaVA-OneVision.
ANCHORS_BY_RATIO = [(0.0, 0), (0.10, 126), (0.15, 144), (0.20, 196), (0.25, 205), (1.0, 729)]


def round_half_up(number):
    return math.floor(number + Fraction(1, 2))


def clamp(number, low, high):
    return max(low, min(number, high))


def highest_first(scores):
    """Indices by falling score; of equal scores the lower index comes first."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def lowest_first(scores):
    """Indices by rising score; of equal scores the lower index comes first."""
    return sorted(range(len(scores)), key=lambda index: (scores[index], index))


# --------------------------------------------------------------------------- the budget (Sec. 7)


@dataclass(frozen=True)
class NaiveBudget:
    num_video_tokens: int
    clip_lengths: tuple
    patch_anchors: int
    pooled_anchors: int
    kept_per_frame: tuple


def naive_patch_anchors(ratio, num_patches):
    """M from the retention ratio: the paper's five operating points, linear in between (Sec. 7).

    A float ratio means the decimal number it prints as: 0.1 is one tenth.
    """
    ratio = Fraction(str(ratio)) if isinstance(ratio, float) else Fraction(ratio)
    for (low, at_low), (high, at_high) in pairwise(ANCHORS_BY_RATIO):
        low, high = Fraction(str(low)), Fraction(str(high))
        if low <= ratio <= high:
            anchors = at_low + (at_high - at_low) * (ratio - low) / (high - low)
            return max(1, round_half_up(anchors * num_patches / 729))
    raise ValueError(f"no retention ratio: {ratio}")


def naive_uniform_clips(num_frames, num_clips):
    """Sec. 3.3: runs of consecutive frames, lengths differing by at most one, longer ones first."""
    shorter, longer_clips = divmod(num_frames, num_clips)
    return tuple(shorter + 1 if clip < longer_clips else shorter for clip in range(num_clips))


def naive_kept_per_frame(budget, pooled_anchors, clip_lengths):
    """M_p for a clip's first frame; the rest shared evenly over later frames, earlier ones more."""
    num_later_frames = sum(clip_lengths) - len(clip_lengths)
    rest = budget - len(clip_lengths) * pooled_anchors
    kept, later_frame = [], 0
    for length in clip_lengths:
        kept.append(pooled_anchors)
        for _ in range(length - 1):
            share, remainder = divmod(rest, num_later_frames)
            kept.append(share + 1 if later_frame < remainder else share)
            later_frame += 1
    return tuple(kept)


def naive_budget(num_frames, grid, *, retention_ratio=0.1, num_anchors=None, num_clips=8, num_video_tokens=None):
    """Sec. 7, the whole box of formulas; `num_video_tokens` is the prompt's own B."""
    num_patches, pooled = grid**2, math.ceil(grid / 2) ** 2
    all_tokens = num_frames * pooled
    clips = max(1, min(num_clips, num_frames // 2))
    wanted = round_half_up(Fraction(str(retention_ratio)) * all_tokens)
    budget = min(all_tokens, max(clips, wanted))
    ratio = retention_ratio
    if num_video_tokens is not None:
        if num_video_tokens != budget:
            ratio = Fraction(num_video_tokens, all_tokens)
        budget = num_video_tokens
        clips = min(clips, budget)

    anchors = num_anchors if num_anchors is not None else naive_patch_anchors(ratio, num_patches)
    if num_frames == 1:
        pooled_anchors = budget
    else:
        pooled_anchors = clamp(
            round_half_up(Fraction(anchors * pooled, num_patches)),
            math.ceil(budget / num_frames),
            budget // clips,
        )
    clip_lengths = naive_uniform_clips(num_frames, clips)
    kept = naive_kept_per_frame(budget, pooled_anchors, clip_lengths)
    return NaiveBudget(budget, clip_lengths, anchors, pooled_anchors, kept)


# ------------------------------------------------------------------ attention and anchors (3.2)


def naive_attention_received(queries, keys, scale):
    """Sec. 3.2, Eq. 6-7: mean over heads and queries of each patch's column of the softmax."""
    num_frames, num_heads, num_patches, _ = queries.shape
    received = torch.zeros(num_frames, num_patches, dtype=torch.float64)
    for frame in range(num_frames):
        for head in range(num_heads):
            for query in queries[frame, head].double():
                weights = [math.exp(scale * float(query @ key)) for key in keys[frame, head].double()]
                for patch, weight in enumerate(weights):
                    received[frame, patch] += weight / sum(weights) / (num_heads * num_patches)
    return received


def naive_windows(grid, window_size):
    """The patches of every window, window by window, each in raster order (Eq. 8)."""
    starts = range(0, grid, window_size)
    windows = []
    for top in starts:
        for left in starts:
            rows = range(top, min(top + window_size, grid))
            columns = range(left, min(left + window_size, grid))
            windows.append([row * grid + column for row in rows for column in columns])
    return windows


def naive_anchors(local_scores, global_scores, num_anchors, window_size, local_ratio, recipe="paper"):
    """Sec. 3.2, Eq. 8, one frame: the sets of local and of global anchors."""
    local_scores, global_scores = local_scores.tolist(), global_scores.tolist()
    grid = math.isqrt(len(local_scores))
    windows = naive_windows(grid, window_size)
    local_share = math.floor(num_anchors * local_ratio)
    per_window = local_share // len(windows)

    local_anchors = set()
    for window in windows:
        by_score = highest_first([local_scores[patch] for patch in window])
        local_anchors.update(window[position] for position in by_score[:per_window])

    num_global = num_anchors - (local_share if recipe == "released" else len(local_anchors))
    others = [patch for patch in highest_first(global_scores) if patch not in local_anchors]
    return local_anchors, set(others[:num_global])


# ---------------------------------------------------------------------- optimal transport (3.1)


def naive_cosine(x, y):
    """cos(x, y); a zero vector has cosine 0 with everything."""
    if not x.any() or not y.any():
        return torch.zeros((), dtype=torch.float64)
    return (x @ y) / (torch.sqrt(x @ x) * torch.sqrt(y @ y))


def naive_cosines(rows, columns):
    """All cosines as a matrix (rows, columns)."""
    units = []
    for vector in columns:
        units.append(vector / torch.sqrt(vector @ vector) if vector.any() else vector)
    units = torch.stack(units)
    cosines = []
    for vector in rows:
        unit = vector / torch.sqrt(vector @ vector) if vector.any() else vector
        cosines.append(units @ unit)
    return torch.stack(cosines)


def naive_sinkhorn(cost, epsilon=0.1, max_iterations=100, tolerance=0.01, sources_first=False):
    """Sec. 3.1, Eq. 5, one problem: the plan, and how many iterations it took.

    The paper updates the anchors' scaling first, the released program the sources'.
    """
    num_sources, num_anchors = cost.shape
    kernel = torch.exp(-cost / epsilon)
    u = torch.ones(num_sources, dtype=torch.float64)
    v = torch.ones(num_anchors, dtype=torch.float64)
    for iteration in range(1, max_iterations + 1):
        previous = u
        if sources_first:
            u = (1 / num_sources) / (kernel @ v)
            v = (1 / num_anchors) / (kernel.T @ u)
        else:
            v = (1 / num_anchors) / (kernel.T @ u)
            u = (1 / num_sources) / (kernel @ v)
        if iteration == max_iterations or (u - previous).abs().mean() < tolerance:
            return u[:, None] * kernel * v[None, :], iteration
    raise ValueError("at least one iteration")


def naive_weighted_update(anchors, sources, weights, strength):
    """Eq. 11 and Eq. 16: anchors pulled towards the sources, by mass-normalised weights."""
    updated = []
    for j, anchor in enumerate(anchors):
        total, mass = weights[:, j] @ sources, weights[:, j].sum()
        updated.append((anchor + strength * total) / (1 + strength * mass))
    return torch.stack(updated)


def naive_nearest_mean(anchors, sources, cosines):
    """Table 4, cosine merging: each anchor's mean with the sources most similar to it."""
    members = [[anchor] for anchor in anchors]
    for i, source in enumerate(sources):
        members[highest_first(cosines[i].detach().tolist())[0]].append(source)
    return torch.stack([torch.stack(group).sum(dim=0) / len(group) for group in members])


# ----------------------------------------------------------------- intra-frame transport (3.3)


def naive_grid_distance(patch, other, grid):
    """Distance of two patches on the unit square, positions linspace(0, 1, G) on each axis."""
    step = 1 / (grid - 1) if grid > 1 else 0.0
    rows = (patch // grid - other // grid) * step
    columns = (patch % grid - other % grid) * step
    return math.hypot(rows, columns)


def naive_intra_frame(tokens, anchor_set, options):
    """Sec. 3.3, Eq. 9-12 (Algorithm 1), one frame: the grid with the anchors updated in place."""
    grid = math.isqrt(len(tokens))
    anchor_places = sorted(anchor_set)
    source_places = [place for place in range(len(tokens)) if place not in anchor_set]
    if options["intra_frame_aggregation"] == "none" or not source_places:
        return tokens
    anchors = torch.stack([tokens[place] for place in anchor_places])
    sources = torch.stack([tokens[place] for place in source_places])
    cosines = naive_cosines(sources, anchors)
    nearest_mean = naive_nearest_mean(anchors, sources, cosines)
    if options["intra_frame_aggregation"] == "cosine":
        updated = nearest_mean
    else:
        released = options["recipe"] == "released"
        cost = 1 - cosines
        if released:
            distances = [
                [naive_grid_distance(place, anchor, grid) for anchor in anchor_places] for place in source_places
            ]
            cost = cost + 0.5 * torch.tensor(distances, dtype=torch.float64)
        plan, _ = naive_sinkhorn(cost, **naive_sinkhorn_options(options))
        updated = naive_weighted_update(anchors, sources, plan, options["intra_frame_weight"])
        if released:
            updated = 0.9 * updated + 0.1 * nearest_mean

    rows = list(tokens)
    for place, row in zip(anchor_places, updated, strict=True):
        rows[place] = row
    return torch.stack(rows)


def naive_sinkhorn_options(options):
    return {
        "epsilon": options["sinkhorn_epsilon"],
        "max_iterations": options["sinkhorn_iterations"],
        "tolerance": options["sinkhorn_tolerance"],
        "sources_first": options["recipe"] == "released",
    }


# ------------------------------------------------------------------------ pooling (base model)


def naive_axis_taps(grid, pooled_side):
    """Bilinear, align_corners=False, no antialias: for each output its two (input, weight) taps."""
    taps = []
    for position in range(pooled_side):
        centre = (position + Fraction(1, 2)) * Fraction(grid, pooled_side) - Fraction(1, 2)
        centre = max(Fraction(0), centre)
        low = math.floor(centre)
        high = min(low + 1, grid - 1)
        taps.append([(low, 1 - (centre - low)), (high, centre - low)])
    return taps


def naive_pooling_taps(grid):
    """For each pooled position, in raster order, its (patch, exact weight) taps."""
    axis = naive_axis_taps(grid, math.ceil(grid / 2))
    return [[(y * grid + x, wy * wx) for y, wy in row for x, wx in column] for row in axis for column in axis]


def naive_pool(values, taps):
    """The base model's spatial pooling of one frame's grid."""
    return torch.stack([sum(float(weight) * values[patch] for patch, weight in position) for position in taps])


def naive_kept_positions(anchor_set, global_scores, taps, pooled_anchors, recipe):
    """Which pooled positions stay, in raster order.

    paper: those of greatest coverage, then of greatest pooled global score, then the first ones.
    released: those at least half covered. Coverage is exact (fractions), so equal means equal.
    """
    coverage = [sum(w for patch, w in position if patch in anchor_set) for position in taps]
    if recipe == "released":
        return [place for place, covered in enumerate(coverage) if covered >= Fraction(1, 2)]
    scores = naive_pool(global_scores.double(), taps).tolist()
    order = sorted(range(len(taps)), key=lambda place: (-coverage[place], -scores[place], place))
    return sorted(order[:pooled_anchors])


# ------------------------------------------------------------------------- frame clips (3.3, 8)


def naive_dynamic_clips(frame_features, num_clips, similarity_threshold, max_clips):
    """Sec. 8 (DySeg): cut at the K-1 smallest similarities and below the threshold.

    At most `max_clips` clips: the least dissimilar cuts give way first.
    """
    features = frame_features.double()
    similarities = [float(naive_cosine(x, y)) for x, y in pairwise(features)]
    cuts = []
    for rank, place in enumerate(lowest_first(similarities)):
        if rank < num_clips - 1 or similarities[place] < similarity_threshold:
            cuts.append(place)
    cuts = sorted(cuts[: max_clips - 1])
    edges = [0] + [cut + 1 for cut in cuts] + [len(features)]
    return tuple(end - start for start, end in pairwise(edges))


# ----------------------------------------------------------------- inter-frame transport (3.3)


def naive_inter_frame_cost(cosines, frame_distance, recipe):
    """Eq. 13; released: shifted to zero and weakened for frames near the clip's first."""
    if recipe == "paper":
        return 1 - cosines
    cost = 1 - cosines.clamp(-(1 - 1e-6), 1 - 1e-6)
    return (cost - cost.min()) * (1 - math.exp(-(frame_distance**2) / (2 * 1.5**2)))


def naive_quantile(values, fraction):
    """The quantile with linear interpolation between the two neighbouring values."""
    values = sorted(values)
    position = fraction * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


def naive_kept_tokens(confidences, quota, options):
    """Which tokens of a later frame stay, in order: those that changed (low q)."""
    if options["recipe"] == "released":
        threshold = naive_quantile(confidences, options["keep_ratio"])
    elif options["temporal_threshold"] is not None:
        threshold = options["temporal_threshold"]
    else:
        return sorted(lowest_first(confidences)[:quota])
    return [i for i, q in enumerate(confidences) if q < threshold]


def naive_inter_frame_step(anchors, sources, frame_distance, quota, options):
    """Eq. 13-16, one later frame: (plan, indices of the tokens kept, the anchors updated).

    A released frame may be empty. Then no q is strictly below the others, and no token is kept.
    """
    if not len(anchors) or not len(sources):
        return anchors.new_zeros(len(sources), len(anchors)), [], anchors
    cosines = naive_cosines(sources, anchors)
    cost = naive_inter_frame_cost(cosines, frame_distance, options["recipe"])
    plan, _ = naive_sinkhorn(cost, **naive_sinkhorn_options(options))
    assignment = torch.stack([row / row.sum() for row in plan])
    confidences = assignment.detach().max(dim=1).values.tolist()
    kept = naive_kept_tokens(confidences, quota, options)
    aggregated = [i for i in range(len(sources)) if i not in kept]
    if options["inter_frame_aggregation"] == "none" or not aggregated:
        return plan, kept, anchors
    if options["inter_frame_aggregation"] == "cosine":
        return plan, kept, naive_nearest_mean(anchors, sources[aggregated], cosines[aggregated])
    weights, strength = assignment[aggregated], options["inter_frame_weight"]
    return plan, kept, naive_weighted_update(anchors, sources[aggregated], weights, strength)


def naive_clip(frames, quotas, options):
    """Algorithm 2, one clip: its output tokens, and the tokens kept in each frame."""
    first = anchors = frames[0]
    kept_tokens, kept_indices = [], [[]]
    for distance in range(1, len(frames)):
        sources, quota = frames[distance], quotas[distance]
        _, kept, anchors = naive_inter_frame_step(anchors, sources, distance, quota, options)
        kept_tokens.append(sources[kept])
        kept_indices.append(kept)
    if options["recipe"] == "released":
        merged = [anchors] if len(frames) > 1 else []
        return torch.cat([first, *kept_tokens, *merged]), kept_indices
    return torch.cat([anchors, *kept_tokens]), kept_indices


# ------------------------------------------------------------------------------- the whole path


@dataclass
class NaiveVideo:
    tokens: torch.Tensor
    local_anchors: torch.Tensor
    global_anchors: torch.Tensor
    intra_merged: torch.Tensor
    pooled: torch.Tensor
    pooled_kept: torch.Tensor
    temporal_kept: torch.Tensor
    clip_lengths: tuple


DEFAULTS = {
    "recipe": "paper",
    "retention_ratio": 0.1,
    "num_anchors": None,
    "local_anchor_ratio": 0.5,
    "local_window_size": 9,
    "sinkhorn_epsilon": 0.1,
    "sinkhorn_iterations": 100,
    "sinkhorn_tolerance": 0.01,
    "intra_frame_weight": 1.0,
    "inter_frame_weight": 1.0,
    "intra_frame_aggregation": "transport",
    "inter_frame_aggregation": "transport",
    "num_clips": 8,
    "clip_segmentation": "uniform",
    "dynamic_similarity_threshold": 0.8,
    "temporal_threshold": None,
    "keep_ratio": None,
}


def naive_frame_anchors(local_attention, global_attention, num_anchors, options):
    """Masks (F, N) of the local and the global anchors of every frame."""
    local_mask = torch.zeros(local_attention.shape, dtype=torch.bool)
    global_mask = torch.zeros_like(local_mask)
    for frame in range(len(local_attention)):
        local, other = naive_anchors(
            local_attention[frame],
            global_attention[frame],
            num_anchors,
            options["local_window_size"],
            options["local_anchor_ratio"],
            options["recipe"],
        )
        local_mask[frame, sorted(local)] = True
        global_mask[frame, sorted(other)] = True
    return local_mask, global_mask


def naive_clips(budget, frame_features, options):
    """Sec. 3.3 and 8: the clips' lengths, never more clips than the budget can anchor."""
    if options["clip_segmentation"] == "uniform":
        return budget.clip_lengths
    return naive_dynamic_clips(
        frame_features,
        len(budget.clip_lengths),
        options["dynamic_similarity_threshold"],
        budget.num_video_tokens // budget.pooled_anchors,
    )


def naive_compress(
    features,
    local_attention,
    global_attention,
    *,
    frame_features=None,
    num_video_tokens=None,
    anchor_mask=None,
    **fields,
):
    """Sections 1-7 from patch tokens to video tokens; `fields` are the config's, `DEFAULTS` else.

    `anchor_mask` (F, N) gives the anchors where they are random (Table 8).
    """
    options = {**DEFAULTS, **fields}
    num_frames, num_patches, _ = features.shape
    grid = math.isqrt(num_patches)
    taps = naive_pooling_taps(grid)
    budget = naive_budget(
        num_frames,
        grid,
        retention_ratio=options["retention_ratio"],
        num_anchors=options["num_anchors"],
        num_clips=options["num_clips"],
        num_video_tokens=num_video_tokens,
    )
    if anchor_mask is None:
        local_mask, global_mask = naive_frame_anchors(local_attention, global_attention, budget.patch_anchors, options)
    else:
        local_mask, global_mask = torch.zeros_like(anchor_mask), anchor_mask

    merged, pooled, pooled_kept = [], [], torch.zeros(num_frames, len(taps), dtype=torch.bool)
    for frame in range(num_frames):
        anchor_set = set(torch.nonzero((local_mask | global_mask)[frame]).flatten().tolist())
        merged.append(naive_intra_frame(features[frame].double(), anchor_set, options))
        pooled.append(naive_pool(merged[frame], taps))
        places = naive_kept_positions(
            anchor_set, global_attention[frame], taps, budget.pooled_anchors, options["recipe"]
        )
        pooled_kept[frame, places] = True

    clip_lengths = naive_clips(budget, frame_features, options)
    quotas = naive_kept_per_frame(budget.num_video_tokens, budget.pooled_anchors, clip_lengths)
    tokens, temporal_kept, start = [], torch.zeros_like(pooled_kept), 0
    for length in clip_lengths:
        frames = range(start, start + length)
        places = [torch.nonzero(pooled_kept[frame]).flatten() for frame in frames]
        rows = [pooled[frame][place] for frame, place in zip(frames, places, strict=True)]
        clip_tokens, kept = naive_clip(rows, quotas[start : start + length], options)
        tokens.append(clip_tokens)
        for frame, place, indices in zip(frames, places, kept, strict=True):
            temporal_kept[frame, place[indices]] = True
        start += length

    return NaiveVideo(
        tokens=torch.cat(tokens),
        local_anchors=local_mask,
        global_anchors=global_mask,
        intra_merged=torch.stack(merged),
        pooled=torch.stack(pooled),
        pooled_kept=pooled_kept,
        temporal_kept=temporal_kept,
        clip_lengths=clip_lengths,
    )
