"""The two-tower retriever with its user tower replaced by a distilled one."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch

from features.tables import Histories
from recsys.errors import NotFittedError
from recsys.retrieval.finishing.distillation import DistillationOptions, UserStudent, history_means
from recsys.retrieval.towers import TwoTowerRetriever

__all__ = ["DistilledTwoTower", "distil_user_tower"]


class DistilledTwoTower(TwoTowerRetriever):
    """A trained retriever whose queries come from a student; its item vectors are untouched.

    Made by `from_teacher` and `load`; everything but the query vectors is the teacher's.
    """

    name = "distilled_two_tower"
    _student: UserStudent | None = None

    @classmethod
    def from_teacher(cls, teacher: TwoTowerRetriever, student: UserStudent) -> Self:
        """Join them; the vectors, the index and the int8 copy are shared, not copied.

        Raises:
            ValueError: the student gives vectors of another width or score.
        """
        width = len(student.output_bias)
        if (width, student.score_kind) != (teacher.item_vectors.shape[1], teacher.score_kind):
            raise ValueError(
                f"student must give vectors {teacher.item_vectors.shape[1]} wide for "
                f"{teacher.score_kind}, got {width} wide for {student.score_kind}; distil it from "
                "this teacher"
            )
        made = cls(
            teacher.tower,
            teacher.tables,
            teacher._encoded,
            score=teacher.score_kind,
            best_epoch=teacher.best_epoch,
        )
        made._scored = teacher._scored
        made.index, made.int8, made.memory_mb = teacher.index, teacher.int8, teacher.memory_mb
        made._student = student
        return made

    @property
    def student(self) -> UserStudent:
        """What encodes the queries.

        Raises:
            NotFittedError: there is none yet.
        """
        if self._student is None:
            raise NotFittedError("there is no student yet; use DistilledTwoTower.from_teacher")
        return self._student

    def user_vectors(
        self,
        histories: Histories,
        moment: np.ndarray | None = None,
        *,
        user_index: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `TwoTowerRetriever.user_vectors`; ``user_index`` is ignored."""
        if moment is not None:
            histories = histories.before(moment)
        return self.student.encode_histories(histories, self._scored).numpy()

    def save(self, directory: Path) -> None:
        """Write what the teacher writes, and the student."""
        super().save(directory)
        self.student.save(directory / "student")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing, of another format, or the weights do not fit.
        """
        made = super().load(directory)
        made._student = UserStudent.load(directory / "student")
        return made


def distil_user_tower(
    teacher: TwoTowerRetriever,
    histories: Histories,
    *,
    generator: torch.Generator,
    options: DistillationOptions | None = None,
    moment: np.ndarray | None = None,
    user_index: np.ndarray | None = None,
) -> DistilledTwoTower:
    """Learn the query vectors of ``teacher`` for these users from the means of their histories.

    Args:
        teacher: a trained retriever.
        histories: U rows as they come in real traffic; nothing else about the users is needed.
        generator: see `UserStudent.fit`.
        options: None: the defaults of `DistillationOptions`.
        moment: [U] int64, see `TwoTowerRetriever.user_vectors`.
        user_index: [U] int64 rows of the teacher's user table, if it has one.
    """
    options = options or DistillationOptions()
    if moment is not None:
        histories = histories.before(moment)
    wanted = torch.from_numpy(teacher.user_vectors(histories, user_index=user_index))
    nobody = histories.take(np.zeros(1, dtype=np.int64)).last(0)
    means = history_means(
        histories,
        torch.from_numpy(teacher.item_vectors),
        half_lives=options.half_lives,
        length=options.history_length,
    )
    student = UserStudent.fit(
        means,
        wanted,
        generator=generator,
        score=teacher.score_kind,
        options=options,
        start=torch.from_numpy(teacher.user_vectors(nobody))[0],
    )
    return DistilledTwoTower.from_teacher(teacher, student)
