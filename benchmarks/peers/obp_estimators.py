"""Estimates of the obp package on arrays from a file; for an environment that has obp (0.4.1).

    python obp_estimators.py ARRAYS.npz -> one line of JSON, name to value

The file holds action, reward, propensity [n], policy and rewards [n, K] float64, and limit and
shrinkage, numbers.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    DoublyRobustWithShrinkage,
    InverseProbabilityWeighting,
    ReplayMethod,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
    SwitchDoublyRobust,
)


def main() -> None:
    arrays = np.load(sys.argv[1])
    policy = arrays["policy"]
    greedy = np.eye(policy.shape[1])[policy.argmax(axis=1)]
    place = np.zeros(len(policy), dtype=int)
    log = {"reward": arrays["reward"], "action": arrays["action"], "position": place}
    more = {
        "pscore": arrays["propensity"],
        "action_dist": policy[:, :, None],
        "estimated_rewards_by_reg_model": arrays["rewards"][:, :, None],
    }
    estimators = {
        "ips": InverseProbabilityWeighting(),
        "snips": SelfNormalizedInverseProbabilityWeighting(),
        "dm": DirectMethod(),
        "dr": DoublyRobust(),
        "sndr": SelfNormalizedDoublyRobust(),
        "switch_dr": SwitchDoublyRobust(tau=float(arrays["limit"])),
        "dr_os": DoublyRobustWithShrinkage(lambda_=float(arrays["shrinkage"])),
    }
    found = {
        name: float(one.estimate_policy_value(**log, **more)) for name, one in estimators.items()
    }
    found["replay"] = float(
        ReplayMethod().estimate_policy_value(**log, action_dist=greedy[:, :, None])
    )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
