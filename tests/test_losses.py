import math

import pytest
import torch

from miue.errors import InputError
from miue.losses import agreement_term, distance_term, information_term, mi_ue_loss, similarity_term
from miue.mi import mi_kde


def literal(z, y, tau, zeta):
    """The formula of the paper, pair by pair, self-pairs included."""
    n, d = z.shape
    similarity = distance = 0.0
    for i in range(n):
        cosine = [float(torch.dot(z[i], z[j]) / z[i].norm() / z[j].norm()) for j in range(n)]
        own = [j for j in range(n) if y[j] == y[i]]
        similarity -= math.log(sum(math.exp(cosine[j] / tau) for j in own) / sum(math.exp(c / tau) for c in cosine))
        distance += math.log(1 + sum(float((z[i] - z[j]).norm()) for j in own) / d)
    return (similarity + zeta * distance) / n


@pytest.mark.parametrize(("tau", "zeta"), [(0.1, 0.1), (0.5, 0.0), (1.0, 2.0)])
def test_equals_the_formula_pair_by_pair(tau, zeta):
    torch.manual_seed(0)
    z, y = torch.randn(24, 7, dtype=torch.float64) + 3, torch.randint(0, 4, (24,))
    assert float(mi_ue_loss(z, y, tau, zeta)) == pytest.approx(literal(z, y, tau, zeta), rel=1e-9)


def test_balanced_counts_each_class_once():
    """Copies of the images of a class change no similarity; distances are those of B / C images of each class."""
    torch.manual_seed(0)
    z, y = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3
    for term in (similarity_term, distance_term, mi_ue_loss):
        assert float(term(z, y, balanced=True)) == pytest.approx(float(term(z, y)), rel=1e-9)
    copied = torch.cat([torch.arange(12), (y == 1).nonzero()[:, 0], (y == 1).nonzero()[:, 0]])
    z_more, y_more = z[copied], y[copied]
    assert float(similarity_term(z_more, y_more, balanced=True)) == pytest.approx(float(similarity_term(z, y)))
    assert float(similarity_term(z_more, y_more)) != pytest.approx(float(similarity_term(z, y)), rel=1e-3)
    mean = torch.stack([(z_more[y_more == c] - z[i]).norm(dim=1).mean() for i, c in enumerate(y)])
    by_hand = torch.log1p(20 / 3 * mean / 5).mean()
    assert float(distance_term(z_more, y_more, balanced=True)) == pytest.approx(float(by_hand))


def test_balanced_gives_rare_classes_gradients_of_the_size_of_the_others():
    """Of 400 and 8 images, drawn alike."""
    torch.manual_seed(0)
    y = torch.arange(10).repeat_interleave(torch.tensor([400, 200, 100, 60, 40, 30, 20, 16, 12, 8]))
    z = torch.randn(len(y), 16, dtype=torch.float64, requires_grad=True)
    pulls = []
    for balanced in (False, True):
        (slope,) = torch.autograd.grad(similarity_term(z, y, balanced=balanced), z)
        pulls.append(torch.stack([slope[y == c].norm(dim=1).sum() for c in range(10)]))
    rare = [float(pull[-1] / pull[0]) for pull in pulls]
    assert rare[0] < 0.05 and 0.2 < rare[1] < 5


def test_sets_of_one_label_are_classes_and_pairs_count_by_what_they_share():
    torch.manual_seed(0)
    z, y = torch.randn(12, 5, dtype=torch.float64), torch.arange(12) % 3
    alone = torch.nn.functional.one_hot(y).bool()
    for self_pairs in (True, False):
        assert float(similarity_term(z, alone, self_pairs=self_pairs)) == float(
            similarity_term(z, y, self_pairs=self_pairs)
        )
    assert float(mi_ue_loss(z, alone)) == pytest.approx(float(mi_ue_loss(z, y)), rel=1e-12)

    sets = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]]).bool()
    jaccard = torch.tensor([[1, 1, 1 / 3, 1 / 2], [1, 1, 1 / 3, 1 / 2], [1 / 3, 1 / 3, 1, 0], [1 / 2, 1 / 2, 0, 1]])
    z = torch.randn(4, 5, dtype=torch.float64)
    unit = z / z.norm(dim=1, keepdim=True)
    weights = (unit @ unit.T / 0.1).exp()
    similar = -((weights * jaccard.double()).sum(1) / weights.sum(1)).log().mean()
    distant = torch.log1p((torch.cdist(z, z) * jaccard).sum(1) / 5).mean()
    assert float(mi_ue_loss(z, sets, zeta=0.5)) == pytest.approx(float(similar + 0.5 * distant), rel=1e-6)
    with pytest.raises(InputError, match="balanced: True with sets of labels"):
        mi_ue_loss(z, sets, balanced=True)


def test_gradient_equals_finite_differences():
    torch.manual_seed(0)
    z, y = torch.randn(10, 4, dtype=torch.float64, requires_grad=True), torch.arange(10) % 3
    assert torch.autograd.gradcheck(lambda z: mi_ue_loss(z, y), (z,))


def test_gradient_is_finite_where_features_coincide():
    z = torch.ones(8, 5, requires_grad=True)
    mi_ue_loss(z, torch.arange(8) % 2).backward()
    assert z.grad.isfinite().all()


def collapsed(spread, centres):
    """Ten classes around these centres (10, 64), in float32, and their labels."""
    g, y = torch.Generator().manual_seed(0), torch.arange(250) % 10
    return centres[y] + spread * torch.randn(250, 64, generator=g), y


def by_differences(z, y):
    """The distance term and its gradient from float64 differences, pair by pair."""
    z = z.double().requires_grad_()
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist") * (y[:, None] == y)
    value = (1 + distance.sum(1) / z.shape[1]).log().mean()
    return value.item(), torch.autograd.grad(value, z)[0]


def value_and_gradient(term, z, y):
    z = z.clone().requires_grad_()
    value = term(z, y)
    return value.item(), torch.autograd.grad(value, z)[0]


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-6])
def test_distances_keep_their_digits_as_classes_collapse(spread):
    z, y = collapsed(spread, torch.randn(10, 64, generator=torch.Generator().manual_seed(1)).relu())
    value, gradient = value_and_gradient(distance_term, z, y)
    true_value, true_gradient = by_differences(z, y)
    assert value == pytest.approx(true_value, rel=1e-3)
    assert (gradient - true_gradient).norm() < 1e-3 * true_gradient.norm()
    assert (gradient.sign() == true_gradient.sign()).all()


def test_a_far_member_costs_its_class_no_digits():
    """The first of a class lies at 1, the others within 1e-6 of each other."""
    z, y = collapsed(1e-6, torch.zeros(10, 64))
    z[0] = 1.0
    value, gradient = value_and_gradient(distance_term, z, y)
    true_value, true_gradient = by_differences(z, y)
    assert value == pytest.approx(true_value, rel=1e-3)
    assert (gradient - true_gradient)[1:].norm() < 1e-3 * true_gradient[1:].norm()


@pytest.mark.parametrize("centres", [torch.ones(10, 64), torch.eye(10, 64)], ids=["one point", "one for each class"])
def test_angles_keep_their_digits_as_classes_collapse(centres):
    z, y = collapsed(1e-6, centres)
    value, gradient = value_and_gradient(similarity_term, z, y)
    true_value, true_gradient = value_and_gradient(similarity_term, z.double(), y)
    assert value == pytest.approx(true_value, rel=1e-5)
    assert (gradient - true_gradient).norm() < 1e-3 * true_gradient.norm()


def test_coincident_rows_pull_with_no_force():
    z, y = collapsed(1e-3, torch.ones(10, 64))
    z[y == 3] = z[3].clone()
    z[14] = z[4]
    value, gradient = value_and_gradient(distance_term, z, y)
    assert gradient.isfinite().all() and (gradient[y == 3] == 0).all()
    assert value == pytest.approx(by_differences(z, y)[0], rel=1e-3)


def test_features_far_from_the_origin_lose_no_precision():
    torch.manual_seed(0)
    z, y = torch.randn(32, 16), torch.arange(32) % 4
    assert float(distance_term(z + 1000, y)) == pytest.approx(float(distance_term(z, y)), rel=1e-3)


def test_known_values():
    one_point, y = torch.ones(12, 3), torch.arange(12) % 4
    assert float(similarity_term(one_point, y)) == pytest.approx(math.log(4))
    assert float(distance_term(one_point, y)) == pytest.approx(0)
    perfect = torch.eye(4)[y]
    assert float(similarity_term(perfect, y, 0.01)) == pytest.approx(0, abs=1e-6)
    # Two points a distance of 6 apart, width 3: each sum holds one pair and itself.
    pair = torch.tensor([[0.0, 0, 0], [6, 0, 0]])
    assert float(distance_term(pair, torch.zeros(2))) == pytest.approx(math.log(3))


def test_similarity_without_self_pairs_is_its_formula_and_leaves_single_images_out():
    z, y = torch.rand(7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 1, 1, 2])
    cosine = torch.cosine_similarity(z[:, None].double(), z[None].double(), dim=2)
    weight = (cosine / 0.2).exp().fill_diagonal_(0)
    expected = [-math.log(weight[i][y == y[i]].sum() / weight[i].sum()) for i in range(6)]
    assert float(similarity_term(z, y, 0.2, self_pairs=False)) == pytest.approx(sum(expected) / 6)
    z.requires_grad_()
    similarity_term(z, y, 0.2, self_pairs=False).backward()
    assert z.grad.isfinite().all()
    assert float(similarity_term(z.detach(), torch.arange(7), self_pairs=False)) == 0


def test_agreement_is_low_where_perturbed_features_point_at_the_clean_ones_of_their_class():
    clean, y = torch.eye(3)[[0, 0, 1, 1, 2, 2]], torch.tensor([0, 0, 1, 1, 2, 2])
    assert float(agreement_term(clean, clean, y)) < 1e-3
    assert float(agreement_term(clean.roll(2, 0), clean, y)) > 5
    cosine = torch.cosine_similarity(clean.roll(1, 0)[:, None].double(), clean[None].double(), dim=2)
    weight = (cosine / 0.5).exp()
    expected = sum(-math.log(weight[i][y == y[i]].sum() / weight[i].sum()) for i in range(6)) / 6
    assert float(agreement_term(clean.roll(1, 0), clean, y, 0.5)) == pytest.approx(expected)


def test_the_information_term_is_the_kernel_estimate_of_each_pair_of_slices():
    torch.manual_seed(0)
    clean = torch.randn(300, 6, dtype=torch.float64)
    shown = clean + 0.7 * torch.randn(300, 6, dtype=torch.float64)
    directions = torch.randn(2, 4, 6)
    seen, true = shown @ directions[0].double().T, clean @ directions[1].double().T
    expected = mi_kde(seen.T, true.T, scale="values", evaluation="exact", bandwidth=300 ** (-1 / 6))
    assert float(information_term(shown, clean, directions)) == pytest.approx(expected.value, abs=1e-9)


def test_descent_on_the_information_term_takes_information_away():
    torch.manual_seed(0)
    clean = torch.randn(200, 4)
    shown = (clean + 0.1 * torch.randn(200, 4)).requires_grad_()
    same = torch.randn(4, 4).expand(2, 4, 4)
    before = float(information_term(shown.detach(), clean, same))
    for _ in range(30):
        (slope,) = torch.autograd.grad(information_term(shown, clean, same), shown)
        shown = (shown - 0.1 * slope.sign()).detach().requires_grad_()
    assert float(information_term(shown.detach(), clean, same)) < before - 0.5 and before > 1
    collapsed = information_term(torch.ones(20, 4, requires_grad=True), clean[:20], same)
    assert collapsed.isfinite()
