"""The paper's formulas as naive loops over Python floats. Nothing here imports the code under test."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def ranking_loss(
    chosen: Sequence[float],
    rejected: Sequence[float],
    label: Sequence[float],
    margin: Sequence[float],
    weight: Sequence[float],
) -> float:
    """arXiv 2401.06080, eq 2, 5 and 6 in one: a soft label against the margin-shifted logit, averaged over pairs."""
    total = 0.0
    for c, r, p, m, w in zip(chosen, rejected, label, margin, weight, strict=True):
        z = c - r - m
        total += -w * (p * log_sigmoid(z) + (1 - p) * log_sigmoid(-z))
    return total / len(chosen)


# Section METRICS: losses beside the ranking loss, and metrics over pairs.


def centering_loss(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """arXiv 2312.09244: the mean over pairs of (r_c + r_r)^2."""
    return sum((c + r) ** 2 for c, r in zip(chosen, rejected, strict=True)) / len(chosen)


def plackett_luce(rewards: Sequence[float]) -> float:
    """Minus the log of prod_i exp(r_i) / sum_{j >= i} exp(r_j), of rewards best response first."""
    total = 0.0
    for i in range(len(rewards) - 1):
        top = max(rewards[i:])
        total += top + math.log(sum(math.exp(r - top) for r in rewards[i:])) - rewards[i]
    return total


def response_rank(margins: Sequence[float], strengths: Sequence[float]) -> float:
    """arXiv 2512.25023: margins of one group, strongest first, ranked above each other and above 0; the mean."""
    ranked = [d for _, d in sorted(zip(strengths, margins, strict=True), reverse=True)]
    total = 0.0
    for i in range(len(ranked)):
        top = max(0.0, *ranked[i:])
        total += top + math.log(math.exp(-top) + sum(math.exp(d - top) for d in ranked[i:])) - ranked[i]
    return total / len(ranked)


def ordinal(margin: float, level: int, thresholds: Sequence[float]) -> float:
    """Minus the log of P(z >= level) - P(z >= level + 1), each from its own threshold."""

    def at_least(k: int) -> float:
        if k > len(thresholds):
            return 0.0
        if k <= -len(thresholds):
            return 1.0
        return sigmoid(margin - thresholds[k - 1]) if k > 0 else sigmoid(margin + thresholds[-k])

    return -math.log(at_least(level) - at_least(level + 1))


def cross_entropy(logits: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    """Mean of log(sum_v exp(logit_v)) - logit_target."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        top = max(row)
        total += top + math.log(sum(math.exp(x - top) for x in row)) - row[target]
    return total / len(targets)


def credit(difference: float, target: float) -> float:
    if difference == 0:
        return 0.5
    return float((difference > 0) == (target > 0.5))


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / math.sqrt(sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys))


def mean_and_std(xs: Sequence[float]) -> tuple[float, float]:
    mean = sum(xs) / len(xs)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in xs) / len(xs))


def folded_calibration_error(margins: Sequence[float], label: Sequence[float], num_bins: int) -> float:
    """arXiv 1706.04599, eq 3, on confidence max(p, 1 - p) and the preferred response's probability to be right."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(num_bins)]
    for margin, target in zip(margins, label, strict=True):
        p = sigmoid(margin)
        confidence = max(p, 1 - p)
        right = 0.5 if margin == 0 else target if margin > 0 else 1 - target
        bins[min(int((confidence - 0.5) * 2 * num_bins), num_bins - 1)].append((confidence, right))
    error = 0.0
    for pairs in bins:
        if pairs:
            confidence, right = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            error += len(pairs) / len(margins) * abs(right - confidence)
    return error


def pair_metrics(
    chosen: Sequence[float],
    rejected: Sequence[float],
    label: Sequence[float],
    clean: Sequence[float | None],
    chosen_length: Sequence[int],
    rejected_length: Sequence[int],
    num_bins: int = 10,
) -> dict[str, float]:
    """Every metric of `PairMetrics` over whole lists; `clean` is None where nobody knows."""
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    longer = [c - r for c, r in zip(chosen_length, rejected_length, strict=True)]
    sided = [i for i, p in enumerate(label) if p != 0.5]
    known = [(m, p) for m, p in zip(margins, clean, strict=True) if p is not None]
    rewards, lengths = [*chosen, *rejected], [*chosen_length, *rejected_length]
    margin, margin_std = mean_and_std(margins)
    reward_mean, reward_std = mean_and_std(rewards)
    ones, zeros = [1.0] * len(margins), [0.0] * len(margins)
    metrics = {
        "accuracy": sum(credit(margins[i], label[i]) for i in sided) / len(sided),
        "tie_rate": sum(m == 0 for m in margins) / len(margins),
        "nll": ranking_loss(chosen, rejected, label, zeros, ones),
        "brier": sum((sigmoid(m) - p) ** 2 for m, p in zip(margins, label, strict=True)) / len(margins),
        "calibration_error": folded_calibration_error(margins, label, num_bins),
        "margin": margin,
        "margin_std": margin_std,
        "reward_mean": reward_mean,
        "reward_std": reward_std,
        "length_correlation": pearson(rewards, lengths),
        "length_accuracy": sum(credit(longer[i], label[i]) for i in sided) / len(sided),
        "num_pairs": len(margins),
    }
    return metrics | ({"clean_accuracy": sum(credit(m, p) for m, p in known) / len(known)} if known else {})


# Section DATAMODULE: batches.


def mean(xs: Sequence[float]) -> float:
    return sum(xs) / len(xs)


def grid_tokens(lengths: Sequence[int], layout: str) -> int:
    """Cells of the grid that holds sequences of these lengths: a row each, or one row for all."""
    total = 0
    for length in lengths:
        total += max(lengths) if layout == "padded" else length
    return total


# Section SOURCES: where a prompt ends, and what votes say.


def num_shared_turns(first: Sequence[object], second: Sequence[object]) -> int:
    """Leading turns that two conversations share; at least one turn of each is left."""
    shared = 0
    for a, b in zip(first[:-1], second[:-1], strict=False):
        if a != b:
            return shared
        shared += 1
    return shared


def shared_lines(first: str, second: str) -> str:
    """The longest run of whole lines, line breaks included, that both texts begin with and go on after."""
    shared = ""
    for end in range(1, min(len(first), len(second))):
        if first[:end] == second[:end] and first[end - 1] == "\n":
            shared = first[:end]
    return shared


def vote_strength(chosen: Sequence[float], rejected: Sequence[float]) -> tuple[float, float]:
    """arXiv 2401.06080, eq 4: mean and population standard deviation of the voters' margins."""
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    mean = sum(margins) / len(margins)
    return mean, math.sqrt(sum((m - mean) ** 2 for m in margins) / len(margins))


# Section STRENGTH ANALYSIS.


def group_means(mean: Sequence[float], values: Sequence[float], num_groups: int) -> list[float]:
    """Mean of the values of each group of pairs; groups are cut by rank of the mean, the weakest first."""
    order = sorted(range(len(mean)), key=lambda i: mean[i])
    groups: list[list[float]] = [[] for _ in range(num_groups)]
    for rank, i in enumerate(order):
        groups[rank * num_groups // len(mean)].append(values[i])
    return [sum(group) / len(group) for group in groups]


def auroc(score: Sequence[float], wrong: Sequence[bool]) -> float:
    """The chance that a wrong pair scores below a right one, over all pairs of the two; a tie counts 1/2."""
    total, count = 0.0, 0
    for low, is_wrong in zip(score, wrong, strict=True):
        for high, other_is_wrong in zip(score, wrong, strict=True):
            if is_wrong and not other_is_wrong:
                total += 1.0 if low < high else 0.5 if low == high else 0.0
                count += 1
    return total / count


def average_precision(score: Sequence[float], wrong: Sequence[bool]) -> float:
    """Precision times gain in recall, over the distinct scores from the lowest up."""
    total, recall = 0.0, 0.0
    for cut in sorted(set(score)):
        flagged = [is_wrong for value, is_wrong in zip(score, wrong, strict=True) if value <= cut]
        precision, new_recall = sum(flagged) / len(flagged), sum(flagged) / sum(wrong)
        total += precision * (new_recall - recall)
        recall = new_recall
    return total


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; tied values share the mean of the ranks that they take up."""
    return [sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2 for value in values]


# Section STRENGTH: votes, strengths and what treatments make of them.


def strength(votes: Sequence[float]) -> tuple[float, float]:
    """arXiv 2401.06080, eq 4: the mean of M margins, and the root of their mean square distance from it."""
    mean = sum(votes) / len(votes)
    return mean, math.sqrt(sum((vote - mean) ** 2 for vote in votes) / len(votes))


def quantile(means: Sequence[float], i: int) -> float:
    """The share of all pairs that rank below pair i; of equal ones those that stand before it."""
    below = sum(mean < means[i] or (mean == means[i] and j < i) for j, mean in enumerate(means))
    return below / len(means)


def recipe_loss(
    name: str, chosen: Sequence[float], rejected: Sequence[float], means: Sequence[float], alpha: float = 0.2
) -> float:
    """The four recipes of arXiv 2401.06080, section 2.5, with responses that truly change places on a flip."""
    total = 0.0
    for i, (c, r, m) in enumerate(zip(chosen, rejected, means, strict=True)):
        if name in ("flip", "flip_margin") and quantile(means, i) < 0.1:
            c, r, m = r, c, -m
        z = c - r - (0.0 if name == "flip" else m)
        a = alpha if name == "soft_label_margin" and m < 0 else 0.0
        total -= (1 - a) * log_sigmoid(z) + a * log_sigmoid(-z)
    return total / len(chosen)


# Section CONTRAST: SimCSE, SwAV and Sinkhorn-Knopp, and MetaRM's difference loss.

Matrix = Sequence[Sequence[float]]


def unit(x: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in x))
    return [value / length for value in x]


def cosine(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(unit(x), unit(y), strict=True))


def simcse(first: Matrix, second: Matrix, temperature: float, weight: Matrix | None = None) -> float:
    """arXiv 2401.06080, eq 9: -log of the own view's share among all second views; `weight` counts terms."""
    total = 0.0
    for i, own in enumerate(first):
        terms = [math.exp(cosine(own, other) / temperature) for other in second]
        if weight is not None:
            terms = [w * term for w, term in zip(weight[i], terms, strict=True)]
        total -= math.log(terms[i] / sum(terms))
    return total / len(first)


def sinkhorn(scores: Matrix, epsilon: float, iterations: int) -> list[list[float]]:
    """SwAV's own steps (arXiv 2006.09882, listing 1): Q = exp(scores / eps) transposed, rows and columns normalised."""
    num_samples, num_prototypes = len(scores), len(scores[0])
    q = [[math.exp(scores[n][k] / epsilon) for n in range(num_samples)] for k in range(num_prototypes)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / sum(row) / num_prototypes for value in row] for row in q]
        columns = [sum(row[n] for row in q) for n in range(num_samples)]
        q = [[value / columns[n] / num_samples for n, value in enumerate(row)] for row in q]
    return [[q[k][n] * num_samples for k in range(num_prototypes)] for n in range(num_samples)]


def swav(first: Matrix, second: Matrix, first_codes: Matrix, second_codes: Matrix, temperature: float) -> float:
    """arXiv 2401.06080, eq 7 and 8, over scores: l(h_t, q_s) + l(h_s, q_t), averaged over samples."""

    def one(scores: Sequence[float], code: Sequence[float]) -> float:
        total = sum(math.exp(score / temperature) for score in scores)
        return -sum(q * math.log(math.exp(score / temperature) / total) for q, score in zip(code, scores, strict=True))

    total = sum(one(second[n], first_codes[n]) + one(first[n], second_codes[n]) for n in range(len(first)))
    return total / len(first)


def difference_loss(groups: Sequence[Sequence[float]]) -> float:
    """arXiv 2401.06080, eq 11: 2 / k^2 sum_{i<j} sigmoid(|r_i - r_j|), averaged over prompts."""
    total = 0.0
    for rewards in groups:
        k = len(rewards)
        total += 2 / k**2 * sum(sigmoid(abs(rewards[i] - rewards[j])) for i in range(k) for j in range(i + 1, k))
    return total / len(groups)


def meta_weights(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    groups: Sequence[Sequence[Sequence[float]]],
    head: Sequence[float],
    eta: float,
) -> tuple[list[float], list[float]]:
    """What each pair weighs in a meta step of a linear reward `head . x`: sigma(-z'), and <grad z, grad J>.

    The pair's margin is z = head . (chosen - rejected), its gradient chosen - rejected, and a step up J makes it
    `z' = z + eta <grad z, grad J>`. J's gradient is that of eq 11 by the chain rule, a pair of responses at a time.
    """
    slope = [0.0] * len(head)
    for group in groups:
        for i in range(len(group)):
            for j in range(i + 1, len(group)):
                apart = [a - b for a, b in zip(group[i], group[j], strict=True)]
                difference = dot(head, apart)
                steep = sigmoid(abs(difference)) * sigmoid(-abs(difference)) * (1 if difference > 0 else -1)
                for place, value in enumerate(apart):
                    slope[place] += 2 / len(group) ** 2 / len(groups) * steep * value
    weights, alignments = list[float](), list[float]()
    for chosen, rejected in pairs:
        apart = [a - b for a, b in zip(chosen, rejected, strict=True)]
        alignments.append(dot(apart, slope))
        weights.append(sigmoid(-(dot(head, apart) + eta * alignments[-1])))
    return weights, alignments


def dot(xs: Sequence[float], ys: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(xs, ys, strict=True))


def fewest_turns_cut(roles: list[str], lengths: list[int], max_tokens: int) -> list[int]:
    """The places of a prompt's turns that are left, the oldest dropped one user turn after the other until it fits."""
    first = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    system, left = list(range(first)), list(range(first, len(roles)))
    while sum(lengths[place] for place in system + left) > max_tokens:
        later = [place for place in left[1:] if roles[place] == "user"]
        if not later:
            break
        left = [place for place in left if place >= later[0]]
    return system + left
