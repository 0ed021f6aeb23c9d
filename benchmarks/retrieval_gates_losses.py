"""Gates 1-4, 11, 12, 16 and 17: how training objectives, negatives and weights compare."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from reporting import say
from retrieval_data import (
    add_false_interactions,
    histories_of,
    load_split,
    measure,
    merge,
    topk_lists,
)
from retrieval_lab import BPR, DIM, FINE_TUNING, SEED, SOFTMAX, Lab, Row, below, ratio, register
from retrieval_matrix import false_picks, judged
from retrieval_ours import QUALITY
from scipy.sparse.linalg import svds
from torch import Tensor

from recsys.errors import CollapseError
from recsys.evaluation import collapse
from recsys.retrieval.losses import in_batch_softmax, weighted_mean
from recsys.retrieval.sampling.hard_negatives import HardNegatives, mine_hard_negatives
from recsys.retrieval.sampling.negatives import KnownPositives
from recsys.retrieval.training import TrainingOptions
from recsys.retrieval.training.batch import Batch
from recsys.retrieval.training.epoch_report import EpochReport


def best_softmax(lab: Lab) -> Iterator[Row]:
    """Gate 1: a cosine softmax, as we set it, beats what is older."""
    options = dict(QUALITY["ours: softmax"]["ml-1m-lcfn"])
    options["epochs"] = max(4, options["epochs"] * lab.epochs // 12)  # of large batches
    test = lab.test(lab.fit("softmax at its best", **options))
    softmax = float(test.recall.mean())
    yield Row(1, "recall@20 of softmax", softmax, 0.266, known=0.2705)
    yield Row(1, "ndcg@20 of softmax", float(test.ndcg.mean()), 0.254, known=0.2588)
    bpr = float(lab.test(lab.fit("BPR", **BPR)).recall.mean())
    yield ratio(1, "recall@20, softmax over BPR", softmax, bpr, 1.15, 0.2705 / 0.2199)
    matrix = lab.train.to_csr(lab.num_items)
    start = np.random.default_rng(SEED).standard_normal(min(matrix.shape))
    left, values, right = svds(matrix.astype(np.float64), k=DIM, v0=start)
    svd = lab.recall(left * values, np.ascontiguousarray(right.T))
    yield ratio(1, "recall@20, softmax over PureSVD-64", softmax, svd, 1.01, 0.2705 / 0.2481)
    together = (matrix.T @ matrix).toarray().astype(np.float64)
    length = np.sqrt(np.maximum(np.diag(together), 1.0))
    similar = together / length[:, None] / length
    np.fill_diagonal(similar, 0.0)
    neighbours = lab.recall(matrix.toarray(), similar)
    yield ratio(1, "recall@20, softmax over ItemCF", softmax, neighbours, 1.01, 0.2705 / 0.1876)


def log_q_and_masks(lab: Lab) -> Iterator[Row]:
    """Gate 2: negatives from the batch need the correction and the mask. Half a training each."""

    def duplicates_only(batch: Batch) -> Tensor:
        return in_batch_softmax(
            batch.query,
            batch.positive,
            temperature=batch.settings.temperature,
            candidate_index=batch.positive_index,
            weight=batch.weight,
        )

    options = {**SOFTMAX, "loss": "in_batch_softmax", "epochs": lab.half}
    found = {}
    for strength in (0.0, 0.5, 1.0):
        model = lab.fit(f"in-batch, log-q x {strength}", **options, log_q_strength=strength)
        found[strength] = float(lab.test(model).recall.mean())
    register("in_batch_duplicates_only", duplicates_only)
    model = lab.fit("in-batch, duplicates", **{**options, "loss": "in_batch_duplicates_only"})
    unmasked = float(lab.test(model).recall.mean())
    yield Row(
        2,
        "recall@20, in-batch with log-q against uniform negatives: |ratio - 1|",
        abs(found[1.0] / lab.half_base - 1.0),
        0.02,
        at_least=False,
        known=0.2727 / 0.2705 - 1.0,
        detail=f"{found[1.0]:.4f} and {lab.half_base:.4f}",
    )
    yield ratio(2, "recall@20, log-q over none", found[1.0], found[0.0], 1.4, 0.2727 / 0.1795)
    yield ratio(
        2,
        "recall@20, known positives masked over duplicates only",
        found[0.0],
        unmasked,
        1.15,
        0.1795 / 0.1417,
    )
    steps = (found[0.5] / found[0.0], found[1.0] / found[0.5])
    yield Row(
        2,
        "recall@20 rises with the strength 0, .5, 1: smaller step",
        min(steps),
        1.01,
        known=0.2727 / 0.2524,
        detail=", ".join(f"{value:.4f}" for value in found.values()),
    )


def collapse_alarm(lab: Lab) -> Iterator[Row]:
    """Gate 3: the alarm goes off where vectors collapse, and only there."""
    reports: list[EpochReport] = []
    stopped = ""
    try:
        lab.fit(
            "DirectAU, gamma .2",
            lab.split.train,
            loss="directau",
            gamma=0.2,
            table_learning_rate=0.2,
            least_rank=0.5,
            validation=lab.split.validation,
            on_epoch=reports.append,
        )
    except CollapseError as error:
        stopped = str(error)
    rank = min(reports[-1].rankme_users or 0.0, reports[-1].rankme_items or 0.0)
    yield Row(
        3,
        "DirectAU with gamma .2 is stopped (1 = yes)",
        float(bool(stopped)),
        1.0,
        detail=stopped,
    )
    yield Row(3, "RankMe of DirectAU with gamma .2", rank, DIM / 2, at_least=False, known=6.0)
    found = lab.diagnose(lab.softmax)
    yield Row(
        3,
        "RankMe of softmax, the smaller side",
        min(found.rankme_users, found.rankme_items),
        DIM / 2,
        known=55.0,
        detail=collapse(found, DIM) or "no alarm",
    )


def loss_variants(lab: Lab) -> Iterator[Row]:
    """Gate 4: BSL does not lose to the softmax, the pairwise loss does (half a training)."""

    def pairwise(batch: Batch) -> Tensor:
        score = batch.query @ batch.negative.T
        gap = (
            score - (batch.query * batch.positive).sum(dim=1)[:, None]
        ) / batch.settings.temperature
        left = ~batch.known_negatives()
        losses = (F.softplus(gap) * left).sum(dim=1) / left.sum(dim=1).clamp(min=1)
        return weighted_mean(losses, batch.weight)

    bsl = lab.fit("BSL", **{**SOFTMAX, "loss": "bsl", "bsl_weight": 1.06})
    found = float(lab.test(bsl).recall.mean())
    yield ratio(4, "recall@20, BSL over softmax", found, lab.base, 0.99, 0.2804 / 0.2809)
    register("pairwise_softplus", pairwise)
    options = {**SOFTMAX, "loss": "pairwise_softplus", "epochs": lab.half}
    found = float(lab.test(lab.fit("pairwise softplus", **options)).recall.mean())
    yield below(4, "recall@20, pairwise softplus over softmax", found, lab.half_base, 0.99, None)


def on_gowalla(quick: bool) -> Iterator[Row]:
    """Gate 4 on Gowalla, each loss at its own temperature."""
    lab = Lab(load_split("gowalla"), 4 if quick else 20)
    common = {**SOFTMAX, "table_learning_rate": 0.3}
    softmax = lab.fit("Gowalla softmax", **{**common, "temperature": 0.08})
    options = {"loss": "bsl", "temperature": 0.1, "bsl_weight": 1.22}
    bsl = lab.fit("Gowalla BSL", **{**common, **options})
    found = [float(lab.test(model).recall.mean()) for model in (bsl, softmax)]
    yield ratio(4, "recall@20 on Gowalla, BSL over softmax", *found, 1.04, 0.1882 / 0.1759)


def propensities(lab: Lab) -> Iterator[Row]:
    """Gate 11: weights against unequal exposure, judged where every item counts alike.

    The test part: 5 events of every item that has 10. The train part: the other events, each kept
    with the probability ``sqrt(count / largest count)`` of its item.
    """
    rng = np.random.default_rng(SEED)
    whole = merge(lab.train, lab.split.test)
    row, item = whole.rows, whole.item_index
    counts = np.bincount(item, minlength=lab.num_items + 1)
    order = np.lexsort((rng.random(item.size), item))
    place = np.empty(item.size, dtype=np.int64)
    place[order] = np.arange(item.size) - (np.cumsum(counts) - counts)[item[order]]
    held = (place < 5) & (counts[item] >= 10)
    kept = ~held & (rng.random(item.size) < np.sqrt(counts[item] / counts.max()))
    test, train = (histories_of(row[chosen], item[chosen], len(whole)) for chosen in (held, kept))
    popularity = np.bincount(train.item_index, minlength=lab.num_items + 1)
    found = {}
    for power in (0.0, 0.5):
        model = lab.fit(f"thinned, weights 1 / n^{power}", train, **SOFTMAX, propensity_power=power)
        found[power] = judged(model, train, test, popularity)
    tail = [float(found[power].tail_recall.mean()) for power in (0.5, 0.0)]
    recall = [float(found[power].recall.mean()) for power in (0.5, 0.0)]
    yield ratio(11, "recall@20 on the rarer half, weighted over not", *tail, 2.0, 0.0359 / 0.0095)
    yield ratio(11, "recall@20, weighted over not", *recall, 0.97, 0.1482 / 0.1462)


def score_kind(lab: Lab) -> Iterator[Row]:
    """Gate 12: the length of DirectAU's vectors knows popularity, the cosine drops it."""
    model = lab.fit("DirectAU, gamma 1", loss="directau", gamma=1.0, table_learning_rate=0.2)
    cosine = lab.test(model)
    user, item = model.tables["user"][1:].numpy(), model.tables["item"].numpy()
    dot = measure(topk_lists(user, item, lab.train), lab.split.test, lab.split.popularity)
    yield ratio(
        12,
        "recall@20 of DirectAU, dot product over cosine",
        float(dot.recall.mean()),
        float(cosine.recall.mean()),
        1.15,
        0.1475 / 0.1265,
        f"head {dot.head_share:.2f} and {cosine.head_share:.2f}",
    )


def resampling(lab: Lab) -> Iterator[Row]:
    """Gate 16: PLD trains on fewer of 20% false events, and recommends better for it."""
    noisy = add_false_interactions(
        lab.train,
        0.2,
        forbidden=[lab.split.test],
        num_items=lab.num_items,
        rng=np.random.default_rng(SEED),
    )
    found = {}
    for denoising in ("none", "pld"):
        model = lab.fit(
            f"BPR, users alike, denoising {denoising}",
            noisy.histories,
            **BPR,
            users="alike",
            denoising=denoising,
            warmup_epochs=min(5, lab.epochs // 2),
        )
        measured = judged(model, noisy.histories, lab.split.test, lab.split.popularity)
        found[denoising] = float(measured.recall.mean())
    options = TrainingOptions(**BPR, denoising="pld")
    picked, drawn = false_picks(model, noisy.histories, noisy.is_false, options)
    yield ratio(
        16, "false picks of PLD over false events drawn", picked, drawn, 0.7, None, least=False
    )
    yield ratio(16, "recall@20, PLD over BPR", found["pld"], found["none"], 1.03, 0.0723 / 0.0689)


def hard_negatives(lab: Lab) -> Iterator[Row]:
    """Gate 17: a wide pool without its first ranks does not lose, a narrow one alone does."""
    more = max(2, lab.epochs // 3)
    options = {
        **SOFTMAX,
        "table_learning_rate": FINE_TUNING,
        "final_learning_rate": 1.0,
        "start": lab.softmax,
    }
    plain = lab.fit("trained on", **options, epochs=more)
    hard = lab.fit("hard negatives", **options, epochs=1, hard_epochs=more - 1)
    found = [float(lab.test(model).recall.mean()) for model in (hard, plain)]
    yield ratio(
        17,
        "recall@20, ranks 101-1000 beside shared negatives over shared alone",
        *found,
        0.99,
        0.2710 / 0.2707,
    )
    alone = lab.recall(users_against_the_best(lab, pool=200, epochs=more), lab.softmax.item_vectors)
    yield below(
        17,
        "recall@20, users tuned on ranks 1-200 alone over before",
        alone,
        lab.base,
        0.97,
        0.2515 / 0.2707,
    )


def users_against_the_best(lab: Lab, *, pool: int, epochs: int, drawn: int = 50) -> np.ndarray:
    """[U, D] user vectors tuned by Adam against frozen items: what ADORE does, in a plain loop.

    The softmax of a positive against ``drawn`` of the user's best ``pool`` items that are no known
    positives, mined anew every epoch.
    """
    generator = torch.Generator().manual_seed(SEED)
    items = torch.from_numpy(lab.softmax.item_vectors)
    user = torch.from_numpy(lab.users(lab.softmax)).clone().requires_grad_()
    known = KnownPositives(lab.train.indptr, lab.train.item_index, lab.num_items)
    row = torch.from_numpy(lab.train.rows)
    positive = torch.from_numpy(lab.train.item_index)
    adam = torch.optim.Adam([user], lr=5e-3)
    for epoch in range(1, epochs + 1):
        query = F.normalize(user.detach(), dim=1).numpy()
        mined = mine_hard_negatives(query, items.numpy(), known, skip=0, pool=pool)
        hard = HardNegatives(mined)
        for events in torch.split(torch.randperm(len(row), generator=generator), 1024):
            asked = F.normalize(user[row[events]], dim=1)
            against = torch.cat(
                [
                    positive[events][:, None],
                    hard.draw(row[events], drawn, generator=generator),
                ],
                dim=1,
            )
            logit = torch.einsum("bd,bhd->bh", asked, items[against]) / SOFTMAX["temperature"]
            loss = F.cross_entropy(logit, torch.zeros(len(events), dtype=torch.int64))
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        say(f"users against ranks 1-{pool}: epoch {epoch}, loss {loss.item():.4f}")
    return F.normalize(user.detach(), dim=1).numpy()
