"""Mixtures of Gaussians, many at a time, for the entropy of distributions that are known by samples."""

import math
from typing import NamedTuple

import torch as th

#: Added to the diagonal of covariances.
REGULARIZATION = 1e-6
#: Iterations of k-means before the first of EM.
KMEANS_ITERATIONS = 10
#: Most iterations of EM, and the rise of the mean log-likelihood below which it ends.
MAX_ITERATIONS, TOLERANCE = 100, 1e-3


class Mixtures(NamedTuple):
    """As many mixtures as there are sets of points."""

    #: Shape (n_sets, n_components).
    weights: th.Tensor
    #: Shape (n_sets, n_components, dim).
    means: th.Tensor
    #: Shape (n_sets, n_components, dim, dim).
    covariances: th.Tensor


def fit_mixtures(points: th.Tensor, n_components: int) -> Mixtures:
    """
    Fit a mixture with full covariances to each set of points, by k-means and then EM.

    :param points: shape (n_sets, n_points, dim)
    :param n_components: Gaussians in a mixture
    :return: the mixtures, in float64
    """
    points = points.to("cpu" if points.device.type == "mps" else points.device, th.float64)
    mixtures = _maximize(points, _cluster(points, n_components))
    bound = th.full(points.shape[:1], -math.inf).to(points)
    for _ in range(MAX_ITERATIONS):
        before, joint = bound, _log_joint(points, mixtures)
        bound = joint.logsumexp(dim=2).mean(dim=1)
        if (bound - before < TOLERANCE).all():
            break
        mixtures = _maximize(points, joint.softmax(dim=2))
    return mixtures


def mixture_entropies(weights: th.Tensor, covariances: th.Tensor) -> th.Tensor:
    """
    ``-sum w log w + sum w (d / 2 (1 + log 2 pi) + log det S / 2)``, which bounds the entropy from above.

    :param weights: shape (..., n_components)
    :param covariances: ``S``, shape (..., n_components, dim, dim)
    :return: shape (...)
    """
    of_components = 0.5 * (covariances.shape[-1] * (1.0 + math.log(2.0 * math.pi)) + covariances.logdet())
    return (weights * of_components - th.xlogy(weights, weights)).sum(dim=-1)


def _cluster(points: th.Tensor, n_components: int) -> th.Tensor:
    """The members of clusters by k-means, as zeros and ones, shape (n_sets, n_points, n_components)."""
    centres = points[:, th.randperm(points.shape[1], device=points.device)[:1]]
    for _ in range(n_components - 1):  # k-means++: far points are likely to be the next centres
        distances = th.cdist(points, centres).amin(dim=2).square() + REGULARIZATION
        chosen = distances.multinomial(1)[..., None].expand(-1, 1, points.shape[2])
        centres = th.cat([centres, points.gather(1, chosen)], dim=1)
    members = th.zeros(*points.shape[:2], n_components).to(points)
    for _ in range(KMEANS_ITERATIONS):
        nearest = th.cdist(points, centres).argmin(dim=2, keepdim=True)
        members = th.zeros_like(members).scatter(2, nearest, 1.0)
        sizes = members.sum(dim=1)[..., None]
        centres = th.where(sizes > 0, members.mT @ points / sizes.clamp(min=1.0), centres)
    return members


def _maximize(points: th.Tensor, shares: th.Tensor) -> Mixtures:
    """The M-step, from the share of each component in each point, shape (n_sets, n_points, n_components)."""
    sizes = shares.sum(dim=1) + 10 * th.finfo(points.dtype).eps
    means = shares.mT @ points / sizes[..., None]
    centred = points[:, None] - means[:, :, None]
    covariances = centred.mT @ (centred * shares.mT[..., None]) / sizes[..., None, None]
    identity = th.eye(points.shape[2]).to(points)
    return Mixtures(sizes / sizes.sum(dim=1, keepdim=True), means, covariances + REGULARIZATION * identity)


def _log_joint(points: th.Tensor, mixtures: Mixtures) -> th.Tensor:
    """``log w_k N(x; m_k, S_k)`` for each point and component, shape (n_sets, n_points, n_components)."""
    factors, _ = th.linalg.cholesky_ex(mixtures.covariances)
    centred = points[:, None] - mixtures.means[:, :, None]
    whitened = th.linalg.solve_triangular(factors, centred.mT, upper=False)
    log_dets = 2.0 * factors.diagonal(dim1=2, dim2=3).log().sum(dim=2)
    constants = mixtures.weights.log() - 0.5 * (points.shape[2] * math.log(2.0 * math.pi) + log_dets)
    joint: th.Tensor = constants[..., None] - 0.5 * whitened.square().sum(dim=2)
    return joint.mT
