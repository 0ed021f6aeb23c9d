"""What of a training batch each loss is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.retrieval.losses import (
    bpr,
    bsl,
    ccl,
    cm3,
    directau,
    in_batch_softmax,
    mann_whitney,
    mawu,
    psl,
    sampled_softmax,
    sl_at_k,
    top_k_threshold,
)
from recsys.retrieval.sampling.negatives import KnownPositives
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.objectives import (
    OBJECTIVES,
    example_losses,
    objective_of,
    training_loss,
)
from recsys.retrieval.training.options import LossSettings

SOFTMAX = objective_of("sampled_softmax")
B, C, D, N = 6, 4, 3, 8
SEED = 0


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Row r knows items r + 1 and r + 2.
KNOWN = KnownPositives(
    np.arange(0, 2 * B + 1, 2), np.array([i for r in range(B) for i in (r + 1, r + 2)]), N
)
POSITIVE = torch.tensor([1, 4, 2, 3, 6, 4])  # item 4 twice: equal vectors, equal log q
BATCH = Batch(
    query=drawn(B, D, seed=0),
    positive=drawn(N + 1, D, seed=1)[POSITIVE],
    negative=drawn(C, D, seed=2),
    row=torch.tensor([0, 3, 0, 2, 5, 3]),
    positive_index=POSITIVE,
    negative_index=torch.tensor([2, 8, 4, 3]),
    negative_log_q=drawn(C, seed=3),
    positive_log_q=drawn(N + 1, seed=4)[POSITIVE],
    known=KNOWN,
    weight=drawn(B, seed=5).abs(),
    settings=LossSettings(temperature=0.5, gamma=0.8),
    user_margin=drawn(B, seed=6),
    item_margin=drawn(B, seed=7),
    content=drawn(B, 2, seed=8),
)
HIDDEN = torch.tensor(
    [[n in (r + 1, r + 2) for n in (2, 8, 4, 3)] for r in (0, 3, 0, 2, 5, 3)]
)  # [B, C]
VECTORS = (BATCH.query, BATCH.positive, BATCH.negative)
SHARED = {"known_positive": HIDDEN, "weight": BATCH.weight}
CORRECTED = {**SHARED, "log_q": BATCH.negative_log_q}
WARM = {**CORRECTED, "temperature": 0.5}


def given_bpr() -> Tensor:
    """Each query meets the negative drawn for it; some of those are known positives."""
    place = torch.randint(C, (B,), generator=torch.Generator().manual_seed(SEED)).tolist()
    hidden = torch.tensor([bool(HIDDEN[i, place[i]]) for i in range(B)])
    assert 0 < int(hidden.sum()) < B
    return bpr(
        (BATCH.query * BATCH.positive).sum(1) / 0.5,
        (BATCH.query * BATCH.negative[place]).sum(1) / 0.5,
        weight=BATCH.weight * ~hidden,
    )


def given_sl() -> Tensor:
    threshold = top_k_threshold(
        BATCH.query, BATCH.negative, k=4, num_items=N, known_positive=HIDDEN
    )
    return sl_at_k(*VECTORS, threshold=threshold, threshold_temperature=0.7, **WARM)


SETTINGS = LossSettings(
    temperature=0.5,
    gamma=0.8,
    log_q_strength=0.5,
    focal_gamma=0.6,
    distinct_items=True,
    bsl_weight=1.4,
    bsl_shared_positives=True,
    psl_sigma="atan",
    sl_k=4,
    sl_temperature=0.7,
    ccl_margin=0.1,
    ccl_weight=2.0,
    mawu_user_gamma=0.3,
    mawu_item_gamma=0.9,
    max_sim=0.4,
)
WANTED: dict[str, Callable[[], Tensor]] = {
    "bpr": given_bpr,
    "bsl": lambda: bsl(*VECTORS, negative_weight=1.4, query_index=BATCH.row, **WARM),
    "ccl": lambda: ccl(*VECTORS, margin=0.1, negative_weight=2.0, **CORRECTED),
    "cm3": lambda: cm3(
        *VECTORS[:2], gamma=0.8, content=BATCH.content, max_sim=0.4, weight=BATCH.weight
    ),
    "directau": lambda: directau(
        *VECTORS[:2], gamma=0.8, candidate_index=BATCH.positive_index, weight=BATCH.weight
    ),
    "in_batch_softmax": lambda: in_batch_softmax(
        *VECTORS[:2],
        temperature=0.5,
        log_q=BATCH.positive_log_q / 2,
        candidate_index=BATCH.positive_index,
        known_positive=KNOWN.mask(BATCH.row, BATCH.positive_index),
        weight=BATCH.weight,
    ),
    "mann_whitney": lambda: mann_whitney(*VECTORS, temperature=0.5, **SHARED),
    "mawu": lambda: mawu(
        *VECTORS[:2],
        query_margin=BATCH.user_margin,
        candidate_margin=BATCH.item_margin,
        query_gamma=0.3,
        candidate_gamma=0.9,
        weight=BATCH.weight,
    ),
    "psl": lambda: psl(*VECTORS, sigma="atan", **WARM),
    "sampled_softmax": lambda: sampled_softmax(*VECTORS, focal_gamma=0.6, **WARM),
    "sl_at_k": given_sl,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_gets_its_part_of_the_batch(name: str) -> None:
    wanted = float(WANTED[name]())
    given = replace(BATCH, settings=SETTINGS, generator=torch.Generator().manual_seed(SEED))
    assert float(training_loss(objective_of(name), given)) == pytest.approx(wanted)


@pytest.mark.parametrize("grouped", [False, True])
def test_queries_and_items_of_a_batch_may_be_computed_once(grouped: bool) -> None:
    order = torch.argsort(BATCH.row, stable=True)
    row, item = BATCH.row[order], BATCH.positive_index[order]
    leaves = (drawn(B, D, seed=8).requires_grad_(), drawn(N + 1, D, seed=9).requires_grad_())
    asked, query_of = torch.unique_consecutive(row, return_inverse=True)
    distinct = leaves[0][: len(asked)]
    batch = replace(
        BATCH,
        query=distinct[query_of],
        positive=leaves[1][item],
        row=row,
        positive_index=item,
        positive_log_q=BATCH.positive_log_q[order],
        settings=SETTINGS,
        **(
            {"distinct_query": distinct, "distinct_row": asked, "query_of": query_of}
            if grouped
            else {}
        ),
    )
    plain = in_batch_softmax(
        batch.query,
        batch.positive,
        temperature=0.5,
        log_q=batch.positive_log_q / 2,
        candidate_index=item,
        known_positive=KNOWN.mask(row, item),
        weight=batch.weight,
    )
    one_by_one = example_losses(SOFTMAX, replace(batch, distinct_query=None, query_of=None))
    torch.testing.assert_close(example_losses(SOFTMAX, batch), one_by_one)
    ours = training_loss(objective_of("in_batch_softmax"), batch)
    torch.testing.assert_close(ours, plain)
    wanted = torch.autograd.grad(plain, leaves, retain_graph=True)
    for got, gradient in zip(torch.autograd.grad(ours, leaves), wanted, strict=True):
        torch.testing.assert_close(got, gradient)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("bsl", "bsl_weight"),
        ("bsl", "bsl_shared_positives"),
        ("ccl", "ccl_margin"),
        ("ccl", "ccl_weight"),
        ("cm3", "max_sim"),
        ("directau", "distinct_items"),
        ("in_batch_softmax", "log_q_strength"),
        ("mawu", "mawu_user_gamma"),
        ("mawu", "mawu_item_gamma"),
        ("psl", "psl_sigma"),
        ("sampled_softmax", "focal_gamma"),
        ("sl_at_k", "sl_k"),
        ("sl_at_k", "sl_temperature"),
    ],
)
def test_every_setting_reaches_its_loss(name: str, changed: str) -> None:
    default = SETTINGS.but(**{changed: getattr(LossSettings(), changed)})
    found = [
        float(training_loss(objective_of(name), replace(BATCH, settings=settings)))
        for settings in (SETTINGS, default)
    ]
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def test_the_auc_term_stands_beside_any_loss() -> None:
    settings = BATCH.settings.but(mann_whitney_weight=0.2, mann_whitney_scores=10)
    batch = replace(BATCH, settings=settings, generator=torch.Generator().manual_seed(1))
    term = mann_whitney(
        *VECTORS,
        temperature=0.5,
        max_scores=10,
        generator=torch.Generator().manual_seed(1),
        **SHARED,
    )
    wanted = sampled_softmax(*VECTORS, **WARM) + 0.2 * term
    assert float(training_loss(objective_of("sampled_softmax"), batch)) == pytest.approx(
        float(wanted)
    )


def test_cm3_prefers_the_content_of_drawn_items() -> None:
    content = drawn(C, 2, seed=9)
    found = training_loss(objective_of("cm3"), replace(BATCH, negative_content=content))
    wanted = cm3(
        *VECTORS[:2], gamma=0.8, content=content, catalogue=BATCH.negative, weight=BATCH.weight
    )
    assert float(found) == pytest.approx(float(wanted))


def test_examples_are_compared_by_one_loss() -> None:
    losses = example_losses(SOFTMAX, BATCH)
    assert losses.shape == (B,)
    mean = (losses * BATCH.weight).sum() / BATCH.weight.sum()
    assert float(mean) == pytest.approx(float(sampled_softmax(*VECTORS, **WARM)))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_examples_are_compared_by_what_the_loss_sees(name: str) -> None:
    objective = objective_of(name)
    longer = replace(BATCH, query=3.0 * BATCH.query, positive=2.0 * BATCH.positive)
    trained = training_loss(objective, replace(longer, generator=torch.Generator().manual_seed(1)))
    same = training_loss(objective, replace(BATCH, generator=torch.Generator().manual_seed(1)))
    of_directions = float(trained) == pytest.approx(float(same), rel=1e-5)
    assert objective.directions == of_directions
    alike = torch.allclose(example_losses(objective, longer), example_losses(objective, BATCH))
    assert alike == of_directions


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("cm3", {"content": None}, ValueError, "cm3 needs the items' content"),
        ("mawu", {"item_margin": None}, ValueError, "mawu needs learned margins"),
        ("directAU", {}, ConfigError, "did you mean 'directau'"),
    ],
)
def test_what_is_missing_is_named(
    name: str, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        training_loss(objective_of(name), replace(BATCH, **changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_q_strength", -0.1),
        ("focal_gamma", -1.0),
        ("bsl_weight", 0.0),
        ("psl_sigma", "softplus"),
        ("sl_k", 0),
        ("sl_temperature", 0.0),
        ("ccl_margin", 1.1),
        ("ccl_weight", -1.0),
        ("mawu_user_gamma", -1.0),
        ("mawu_item_gamma", -1.0),
        ("max_sim", 1.5),
        ("mann_whitney_weight", -1.0),
        ("mann_whitney_scores", 0),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be"):
        LossSettings(**{name: value})
