import numpy as np

from pipelines.stages.mixtures import fit_mixture, nowhere


def test_mixtures_find_clusters_and_marginals():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(m, 2, (400, 3)) for m in (0, 40, 90)]).astype(np.float32)
    mixture = fit_mixture(points, np.ones(1200, np.float32), 3, 8, np.ones(3, np.float32), None)
    assert np.allclose(np.sort(mixture.means[:, 0]), (0, 40, 90), atol=1)
    assert np.allclose(np.exp(mixture.log_weights), 1 / 3, atol=0.02)
    # The density integrates to one: its mean over uniform points times the volume.
    box = rng.uniform(-15, 105, (400_000, 3)).astype(np.float32)
    assert abs(np.exp(mixture.log_density(box)).mean() * 120**3 - 1) < 0.15
    marginal = mixture.first_dimensions(1)
    line = np.linspace(-20, 110, 4000, dtype=np.float32)[:, None]
    assert abs(np.exp(marginal.log_density(line)).sum() * (130 / 4000) - 1) < 0.02
    assert (nowhere(3).log_density(points) < mixture.log_density(points) - 50).all()
