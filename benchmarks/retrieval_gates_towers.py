"""Gates 7-10: what is made of trained towers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from retrieval_lab import FINE_TUNING, SEED, SOFTMAX, Lab, Row, below, ratio

from recsys.retrieval.finishing.distillation import history_means
from recsys.retrieval.finishing.distilled_two_tower import distil_user_tower
from recsys.retrieval.finishing.filtering import pooled_auc, threshold_at_recall
from recsys.retrieval.finishing.soup import SoupMember, average, greedy_soup, start_digest
from recsys.retrieval.finishing.threshold import ThresholdHead
from recsys.retrieval.finishing.tower_soup import train_soup
from recsys.retrieval.towers import TwoTowerRetriever
from recsys.retrieval.training import TrainingOptions


def light_user_tower(lab: Lab) -> Iterator[Row]:
    """Gate 7: two matrix products say what the user table says."""
    teacher = lab.softmax
    before = teacher.item_vectors.tobytes()
    light = distil_user_tower(
        teacher,
        lab.train,
        generator=torch.Generator().manual_seed(SEED),
        user_index=np.arange(1, len(lab.train) + 1),
    )
    found = float(lab.test(light).recall.mean())
    mean = history_means(lab.train, torch.from_numpy(teacher.item_vectors)).numpy()
    untrained = lab.recall(mean, teacher.item_vectors)
    yield ratio(7, "recall@20, light user tower over the table", found, lab.base, 0.98, 1.006)
    yield ratio(
        7,
        "recall@20, light user tower over the plain mean",
        found,
        untrained,
        1.15,
        0.2723 / 0.2257,
    )
    same = light.item_vectors.tobytes() == before == teacher.item_vectors.tobytes()
    yield Row(7, "item vectors are the same to the bit (1 = yes)", float(same), 1.0)


def threshold_and_auc(lab: Lab) -> Iterator[Row]:
    """Gate 8: scores of different users on one scale."""
    lists, users = lab.lists, lab.users(lab.softmax)
    score = np.einsum("ud,ukd->uk", users, lab.softmax.item_vectors[np.maximum(lists, 0)])
    score = np.where(lists > 0, score, -np.inf).astype(np.float32)
    label, activity = lab.labels(lists), lab.train.counts
    learned = np.random.default_rng(SEED).random(len(users)) < 0.5
    arrays = (users, activity, score)
    head = ThresholdHead.fit(
        *(array[learned] for array in arrays),
        label[learned],
        generator=torch.Generator().manual_seed(SEED),
    )
    other = ~learned
    logit = head.apply(*(array[other] for array in arrays))
    raw = pooled_auc(score[other], label[other])
    auc = pooled_auc(logit, label[other])
    yield Row(
        8,
        "pooled AUC in everybody's top 200, head minus raw score",
        auc - raw,
        0.08,
        known=0.726 - 0.5679,
        detail=f"{auc:.4f} and {raw:.4f}",
    )
    shares = [
        float((values < threshold_at_recall(values, label[other], recall=0.95)).mean())
        for values in (logit, score[other])
    ]
    yield Row(
        8,
        "share filtered out at 95% of the positives",
        shares[0],
        0.10,
        known=0.204,
        detail=f"raw score {shares[1]:.3f}",
    )
    order = np.argsort(-score[other], axis=1, kind="stable")
    same = bool((order == np.argsort(-logit, axis=1, kind="stable")).all())
    yield Row(8, "the order within every user is the same (1 = yes)", float(same), 1.0)
    found = {}
    for weight in (0.0, 1.0):
        model = lab.fit(
            f"softmax + {weight} Mann-Whitney",
            **{**SOFTMAX, "table_learning_rate": FINE_TUNING},
            start=lab.softmax,
            epochs=max(1, lab.epochs // 3),
            mann_whitney_weight=weight,
            mann_whitney_scores=1024,
        )
        best = lab.best_200(model)
        items = model.item_vectors[np.maximum(best, 0)]
        scores = np.einsum("ud,ukd->uk", lab.users(model), items)
        found[weight] = (
            lab.diagnose(model).global_auc or 0.0,
            pooled_auc(scores, lab.labels(best)),
            float(lab.test(model).recall.mean()),
        )
    (auc_0, top_0, recall_0), (auc_1, top_1, recall_1) = found[0.0], found[1.0]
    yield Row(
        8,
        "global AUC, Mann-Whitney weight 1 minus 0",
        auc_1 - auc_0,
        0.005,
        known=0.8705 - 0.8612,
        detail=f"{auc_1:.4f} and {auc_0:.4f}",
    )
    yield Row(
        8,
        "pooled AUC in the top 200, Mann-Whitney weight 1 minus 0",
        top_1 - top_0,
        0.015,
        known=0.5875 - 0.5655,
        detail=f"{top_1:.4f} and {top_0:.4f}",
    )
    yield ratio(8, "recall@20, Mann-Whitney weight 1 over 0", recall_1, recall_0, 0.985, 0.996)


def compatible(lab: Lab) -> Iterator[Row]:
    """Gate 9: a new model whose vectors can be asked with, and against, an old one's."""
    old, free = lab.softmax, lab.other_start
    tied = lab.fit(
        "compatible, weight .5",
        **SOFTMAX,
        seed=SEED + 1,
        epochs=lab.half,
        old=old,
        compatibility_weight=0.5,
    )
    crossed = lab.recall(lab.users(tied), old.item_vectors)
    back = lab.recall(lab.users(old), tied.item_vectors)
    new = [float(lab.test(model).recall.mean()) for model in (tied, free)]
    yield ratio(
        9, "recall@20, new users on old items over old on old", crossed, lab.base, 0.95, 0.984
    )
    yield ratio(9, "recall@20, old users on new items over old on old", back, lab.base, 0.95, 0.996)
    yield ratio(9, "recall@20, new on new over a free new model", *new, 0.97, 0.99)
    apart = lab.recall(lab.users(free), old.item_vectors)
    yield Row(
        9,
        "recall@20, free new users on old items",
        apart,
        0.05,
        at_least=False,
        known=0.017,
    )


def soup(lab: Lab) -> Iterator[Row]:
    """Gate 10: branches of one checkpoint average well, two initialisations do not."""
    split, made = lab.split, []

    def train(
        training: TrainingOptions, *, seed: int, start: TwoTowerRetriever | None
    ) -> TwoTowerRetriever:
        model = lab.fit(
            "soup's start" if start is None else f"branch {len(made)}",
            split.train,
            **{**vars(training), "seed": seed, "start": start},
        )
        made.append(model)
        return model

    options = {**SOFTMAX, "patience": 0, "negative_power": 0.0, "final_learning_rate": 0.01}
    epochs = max(2, round(lab.epochs * 10 / 12))
    found = train_soup(
        train,
        TrainingOptions(**options, epochs=epochs),
        split.train,
        split.validation,
        branches=4,
        seed=SEED,
    )
    branches = [float(lab.test(model).recall.mean()) for model in made[1:]]
    served = float(lab.test(found.retriever).recall.mean())
    best = branches[int(np.argmax(found.branch_recall))]
    kept = ", ".join(str(branch.number) for branch in found.plan.kept)
    detail = f"branches {' '.join(f'{value:.4f}' for value in branches)}, kept {kept}"
    yield ratio(
        10, "recall@20, soup over the branch best on validation", served, best, 0.995, 1.0, detail
    )
    mean = float(np.mean(branches))
    yield ratio(10, "recall@20, soup over the mean branch", served, mean, 1.0, 1.014, detail)
    two = [lab.softmax.tables, lab.other_start.tables]
    members = [
        SoupMember(str(place), dict(state), start_digest(state)) for place, state in enumerate(two)
    ]
    refused = ""
    try:
        greedy_soup(members, lambda _: 0.0)
    except ValueError as error:
        refused = str(error)
    yield Row(10, "two initialisations are refused (1 = yes)", float(bool(refused)), 1.0)
    tables = average([dict(state) for state in two])
    items = F.normalize(tables["item"], dim=1).numpy()
    joined = lab.recall(tables["user"][1:].numpy(), items)
    better = max(lab.base, float(lab.test(lab.other_start).recall.mean()))
    yield below(
        10, "recall@20, their average over the better one", joined, better, 0.99, 0.2417 / 0.2707
    )
