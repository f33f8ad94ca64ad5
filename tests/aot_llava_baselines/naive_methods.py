"""The methods before the model written token by token, from the pages that specify them: no batches, no masks.

A video is `tokens` (F, P, D); a result is a list of tokens, or of (place, token).
"""

import math

import torch


def cosine(a, b):
    return float(a @ b / max(float(a.norm()) * float(b.norm()), 1e-30))


def first_greatest(scores, count):
    """Places of the greatest scores, the earlier of equal ones first."""
    return sorted(range(len(scores)), key=lambda place: (-float(scores[place]), place))[:count]


def nearest(point, others, distance):
    return min(range(len(others)), key=lambda place: (distance(point, others[place]), place))


def euclid(a, b):
    return float((a - b).norm()) / len(a) ** 0.5


def peaks(points, neighbours):
    """DPC-KNN scores."""
    distances = [[euclid(a, b) for b in points] for a in points]
    density = [math.exp(-sum(sorted(d * d for d in row)[:neighbours]) / neighbours) for row in distances]
    largest = max(map(max, distances))
    scores = []
    for i in range(len(points)):
        denser = [distances[i][j] for j in range(len(points)) if (density[j], -j) > (density[i], -i)]
        scores.append(density[i] * min(denser, default=largest))
    return scores


def visionzip(tokens, attention, keys, kept):
    result = []
    for frame, scores, of_frame in zip(tokens, attention, keys):
        dominant = sorted(first_greatest(scores, int(kept * 54 / 64)))
        rest = [place for place in range(len(frame)) if place not in dominant]
        number = kept - len(dominant)
        targets = rest[:: max(1, len(rest) // number)][:number]
        members = {target: [] for target in targets}
        for place in rest:
            if place not in targets:
                best = first_greatest([cosine(of_frame[place], of_frame[target]) for target in targets], 1)[0]
                members[targets[best]].append(frame[place])
        result += [frame[place] for place in dominant]
        result += [frame[t] + torch.stack(members[t]).mean(0) if members[t] else frame[t] for t in targets]
    return result


def merged(anchors, pool, beta):
    if not anchors:
        return []
    members = [[] for _ in anchors]
    for token in pool:
        members[first_greatest([cosine(token, anchor) for anchor in anchors], 1)[0]].append(token)
    return [
        anchor
        if not of_anchor
        else (weight := max(beta, 1 / (len(of_anchor) + 1))) * anchor + (1 - weight) * torch.stack(of_anchor).mean(0)
        for anchor, of_anchor in zip(anchors, members)
    ]


def fastvid(tokens, attention, segments, ratio, share, step, beta):
    places = tokens.shape[1]
    retained = int(places * ratio)
    context = int(retained * share)
    result, first = [], 0
    for length in segments:
        rest = {}
        for frame in range(first, first + length):
            salient = first_greatest(attention[frame], retained - context)
            result += [(frame * places + place, tokens[frame, place]) for place in salient]
            rest[frame] = [place for place in range(places) if place not in salient]
        frames = [first + i for i in range(length) if (length - 1 - i) % step == 0]
        per_frame = context * length // len(frames)
        for frame in frames:
            own = [tokens[frame, place] for place in rest[frame]]
            chosen = first_greatest(peaks(own, min(4, len(own))), per_frame) if own else []
            everyone = [tokens[other, place] for other in rest for place in rest[other]]
            pool = own if per_frame == context else everyone
            out = merged([own[place] for place in chosen], pool, beta)
            result += [(frame * places + rest[frame][place], token) for place, token in zip(chosen, out)]
        first += length
    return sorted(result, key=lambda kept: kept[0])


def fastvid_llava_video(tokens, attention, segments, newline, ratio, share, step, beta):
    places = tokens.shape[1]
    side = math.isqrt(places)
    retained = int(places * ratio)
    result, first = [], 0
    for length in segments:
        context = int(retained * length * share)
        salient, result_frames = {}, range(first, first + length)
        for frame, count in zip(result_frames, _even(retained * length - context, length)):
            salient[frame] = first_greatest(attention[frame], count)
            result += [(frame * places + place, tokens[frame, place]) for place in salient[frame]]
        anchor_frames = [first + i for i in range(length) if (length - 1 - i) % step == 0]
        for frame, count in zip(anchor_frames[::-1], _even(context, len(anchor_frames))):
            rest = [place for place in range(places) if place not in salient[frame]]
            own = [tokens[frame, place] for place in rest]
            chosen = sorted(rest[i] for i in first_greatest(peaks(own, min(4, len(own))), count)) if own else []
            pool = [
                tokens[other, place]
                for other in result_frames
                for place in range(places)
                if place not in salient[other] and not (other == frame and place in chosen)
            ]
            out = merged([tokens[frame, place] for place in chosen], pool, beta)
            result += [(frame * places + place, token) for place, token in zip(chosen, out)]
        first += length
    rows = {place // side for place, _ in result}
    with_newlines = [(place + place // side, token) for place, token in result]
    with_newlines += [(row * (side + 1) + side, newline) for row in rows]
    return sorted(with_newlines, key=lambda kept: kept[0])


def _even(total, parts):
    return [total // parts + (part < total % parts) for part in range(parts)]


def prunevid(tokens, threshold, segment_ratio, cluster_ratio):
    features = [frame.mean(0) for frame in tokens]
    count = max(1, int(len(features) * segment_ratio))
    centres = first_greatest(peaks(features, min(7, len(features))), count)
    labels = [nearest(feature, [features[c] for c in centres], euclid) for feature in features]
    for label, centre in enumerate(centres):
        labels[centre] = label
    labels = _refined(labels)
    borders = [0, *(t for t in range(1, len(labels)) if labels[t] != labels[t - 1]), len(labels)]
    result = []
    for start, end in zip(borders, borders[1:]):
        frames = tokens[start:end]
        pairs = [(i, j) for i in range(len(frames)) for j in range(len(frames)) if i != j]
        static = [
            place
            for place in range(tokens.shape[1])
            if pairs and sum(cosine(frames[i, place], frames[j, place]) for i, j in pairs) / len(pairs) > threshold
        ]
        result += _clusters([frames[:, place].mean(0) for place in static], cluster_ratio)
        for frame in frames:
            dynamic = [frame[place] for place in range(len(frame)) if place not in static]
            result += _clusters(dynamic, cluster_ratio)
    return result


def _refined(labels):
    runs = _runs(labels)
    longest = {label: max(length for other, _, length in runs if other == label) for label, _, _ in runs}
    free = list(labels)
    for label, start, length in runs:
        if length < longest[label] or longest[label] == 1:
            free[start : start + length] = [None] * length
    while None in free:
        runs = _runs(free)
        number = next(number for number, run in enumerate(runs) if run[0] is None)
        neighbours = [runs[other] for other in (number - 1, number + 1) if 0 <= other < len(runs)]
        taken = max(neighbours, key=lambda run: run[2])[0] if neighbours else 0
        _, start, length = runs[number]
        free[start : start + length] = [taken] * length
    return free


def _runs(labels):
    starts = [t for t in range(len(labels)) if t == 0 or labels[t] != labels[t - 1]]
    return [(labels[start], start, end - start) for start, end in zip(starts, [*starts[1:], len(labels)])]


def _clusters(tokens, ratio):
    if len(tokens) <= 14:
        return tokens
    centres = first_greatest(peaks(tokens, 7), max(1, int(len(tokens) * ratio)))
    members = [[tokens[centre]] for centre in centres]
    for place, token in enumerate(tokens):
        if place not in centres:
            members[nearest(token, [tokens[centre] for centre in centres], euclid)].append(token)
    return [torch.stack(of_centre).mean(0) for of_centre in members]


def flashvid_segments(tokens, threshold, least):
    means = [frame.mean(0) for frame in tokens]
    similarity = [cosine(a, b) for a, b in zip(means, means[1:])]
    cuts = [t for t, value in enumerate(similarity) if value < threshold]
    while len(cuts) + 1 < least and len(cuts) < len(similarity):
        cuts.append(min((t for t in range(len(similarity)) if t not in cuts), key=lambda t: (similarity[t], t)))
    borders = [0, *(cut + 1 for cut in sorted(cuts)), len(tokens)]
    return [end - start for start, end in zip(borders, borders[1:])]


def flashvid(tokens, attention, segments, budget, num_chosen, threshold, merging):
    """(place, token) of each kept token."""
    places = tokens.shape[1]
    result, first = [], 0
    for length in segments:
        frames = tokens[first : first + length]
        mean = frames.reshape(-1, tokens.shape[-1]).mean(0)
        chosen = [
            _distinct(frame, [1e6 * float(a) * float(x @ mean) for a, x in zip(of_frame, frame)], num_chosen)
            for frame, of_frame in zip(frames, attention[first : first + length])
        ]
        for t in range(length):
            result += [((first + t) * places + p, 0, frames[t][p]) for p in chosen[t]]
        merged_count = budget - num_chosen
        if merged_count and threshold < 1:
            roots = (
                {0: list(enumerate(frames[0]))} if length == 1 else _trees(frames, chosen, budget, threshold, merging)
            )
            share = merged_count * length / sum(map(len, roots.values()))
            for t, of_frame in roots.items():
                count = math.ceil(len(of_frame) * share)
                if share < 1 and count:
                    of_frame = _strict_clusters(of_frame, count)
                result += [((first + t) * places + p, 1, token) for p, token in of_frame]
        first += length
    return [(place, token) for place, _, token in sorted(result, key=lambda kept: kept[:2])]


def _distinct(frame, weights, count):
    distance = [[(1 - cosine(a, b)) * weights[j] for j, b in enumerate(frame)] for a in frame]
    chosen = []
    for _ in range(count):
        rows = chosen or range(len(frame))

        def far(j, rows=rows):
            column = sorted(distance[i][j] for i in rows)
            return column[min(1, len(column) - 1)] if not chosen else column[0]

        chosen.append(max((j for j in range(len(frame)) if j not in chosen), key=lambda j: (far(j), -j)))
    return sorted(chosen)


def _trees(frames, chosen, budget, threshold, merging):
    length, places = frames.shape[:2]
    parent, similarity = {}, {}
    for t in range(1, length):
        for p in range(places):
            if p not in chosen[t]:
                candidates = [q for q in range(places) if q not in chosen[t - 1]]
                values = [cosine(frames[t][p], frames[t - 1][q]) for q in candidates]
                best = first_greatest(values, 1)[0]
                parent[t, p], similarity[t, p] = (t - 1, candidates[best]), values[best]
    most = length * places - budget * length
    if sum(value > threshold for value in similarity.values()) > most:
        others = [-1.0] * (length * places - len(similarity))
        ranked = sorted([*similarity.values(), *others], reverse=True)
        threshold = max(ranked[most - 1], -1 + 1e-6) if most else math.inf
    children = {}
    for place, value in similarity.items():
        if value > threshold:
            children.setdefault(parent[place], []).append(place)
    joined = {place for of_parent in children.values() for place in of_parent}

    def tree(place):
        return [place, *(below for child in children.get(place, []) for below in tree(child))]

    roots = {}
    for t in range(length):
        roots[t] = []
        for p in range(places):
            if p not in chosen[t] and (t, p) not in joined:
                members = tree((t, p))
                number = len(members) if merging == "mean" else 1 + len(children.get((t, p), []))
                roots[t].append((p, sum(frames[i][j] for i, j in members) / number))
    return roots


def _strict_clusters(tokens, count):
    points = [token for _, token in tokens]
    distances = [[euclid(a, b) for b in points] for a in points]
    neighbours = min(7, count)
    density = [math.exp(-sum(sorted(d * d for d in row)[:neighbours]) / neighbours) for row in distances]
    largest = max(map(max, distances))
    scores = [
        density[i] * min((distances[i][j] for j in range(len(points)) if density[j] > density[i]), default=largest)
        for i in range(len(points))
    ]
    # Of equal scores, as where one neighbour makes all densities 1, torch's choice.
    centres = torch.tensor(scores).topk(count).indices.tolist()
    members = [[points[centre]] for centre in centres]
    for place, point in enumerate(points):
        if place not in centres:
            members[nearest(point, [points[centre] for centre in centres], euclid)].append(point)
    return [(tokens[centre][0], torch.stack(of_one).mean(0)) for centre, of_one in zip(centres, members)]


def vidcom2(tokens, ratio, exact):
    """Kept places, (frame, place)."""
    frames, places, width = tokens.shape
    flat = tokens.reshape(-1, width)
    variance = [float(((flat[:, c] - flat[:, c].mean()) ** 2).mean()) for c in range(width)]
    quiet = sorted(sorted(range(width), key=lambda c: (variance[c], c))[: width // 2])
    units = [[token[quiet] / token[quiet].norm() for token in frame] for frame in tokens]
    video = sum(unit for frame in units for unit in frame) / (frames * places)

    def kernel(a, b):
        return sum(math.exp(-float(((a - b) ** 2).sum()) / (2 * width)) for width in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    ordinary = [sum(kernel(unit, video) for unit in frame) / places for frame in units]
    powers = [math.exp((min(ordinary) - value) / 0.01) for value in ordinary]
    scores, kept = {}, []
    for f, frame in enumerate(units):
        share = min(ratio * (1 + powers[f] / sum(powers) - 1 / frames), 1)
        own = sum(frame) / places
        of_frame = [kernel(unit, video) + kernel(unit, own) for unit in frame]
        scores.update({(f, p): score for p, score in enumerate(of_frame)})
        kept += [(f, p) for p in first_greatest([-s for s in of_frame], max(1, round(share * places)))]
    if exact:
        kept = sorted(scores, key=lambda place: (place not in kept, scores[place], place))[
            : max(frames, math.floor(frames * places * (1.0 - (1 - ratio))))
        ]
    return sorted(kept)


def holitom(tokens, attention, ratio, threshold, beta):
    frames, places = tokens.shape[:2]
    similar = [[cosine(tokens[t, p], tokens[t + 1, p]) > threshold for p in range(places)] for t in range(frames - 1)]

    def static(first, last):
        return [p for p in range(places) if first < last and all(similar[t][p] for t in range(first, last))]

    best, back = [], []
    for last in range(frames):
        best.append(best[-1] if last else 0)
        back.append(last)
        for first in range(last - 1, -1, -1):
            gain = (best[first - 1] if first else 0) + len(static(first, last)) * (last - first)
            if gain > best[last]:
                best[last], back[last] = gain, first
    windows, last = [], frames - 1
    while last >= 0:
        windows.insert(0, (back[last], last))
        last = back[last] - 1
    share = min(ratio / ((frames * places - best[-1]) / (frames * places)), 1)
    result = []
    for first, last in windows:
        still = static(first, last)
        means = [tokens[first : last + 1, p].mean(0) for p in still]
        count = round(len(means) * share)
        if count:
            centres = sorted(first_greatest(peaks(means, min(7, count)), count))
            members = {centre: [] for centre in centres}
            for place, token in enumerate(means):
                if place not in centres:
                    members[centres[nearest(token, [means[c] for c in centres], euclid)]].append(token)
            result += [
                beta * means[c] + (1 - beta) * torch.stack(members[c]).mean(0) if members[c] else means[c]
                for c in centres
            ]
        moving = [p for p in range(places) if p not in still]
        for frame in range(first, last + 1):
            chosen = first_greatest([attention[frame, p] for p in moving], math.ceil(len(moving) * share))
            result += [tokens[frame, moving[place]] for place in sorted(chosen)]
    return result
