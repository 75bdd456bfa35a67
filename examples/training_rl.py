"""Reinforcement learning that is watched: PPO by hand, its metrics, and alerts with their advice.

``python examples/training_rl.py`` trains an agent to walk along a corridor, twice: with a learning
rate that works, and with one that is far too high, which the rules for reinforcement learning
notice within a step or two. Everything lands in ``runs/rl/metrics.jsonl``; alerts are on the
console.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import handlers
import telemetry
from telemetry import alerts

STATES, ACTIONS = 8, 2
EPISODES, HORIZON = 64, 24
DISCOUNT = 0.95
SLIP = 0.1
UPDATES, EPOCHS = 40, 4
CLIP_EPSILON = 0.2
ENTROPY_BONUS = 0.003
VALUE_LR = 0.4

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Batch:
    """What the agent has lived through, step after step of all episodes."""

    states: np.ndarray[Any, np.dtype[np.int64]]
    actions: np.ndarray[Any, np.dtype[np.int64]]
    log_probs: Array
    returns: Array
    reward_mean: float


class Agent:
    """A policy and a value for each place in the corridor."""

    def __init__(self) -> None:
        self.logits = np.zeros((STATES, ACTIONS))
        self.values = np.zeros(STATES)

    def log_policy(self) -> Array:
        """Log-probabilities of the actions in each state."""
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        log_policy: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return log_policy

    def play(self, random: np.random.Generator) -> Batch:
        """Walk through some episodes: they begin on the left, and on the right there is 1 to win.

        Each step costs a little, and the floor is slippery: one step in ten goes the other way.
        """
        log_policy = self.log_policy()
        places = np.zeros(EPISODES, dtype=np.int64)
        alive = np.ones(EPISODES, dtype=bool)
        shape = (HORIZON, EPISODES)
        states, actions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        rewards, lived = np.zeros(shape), np.zeros(shape, dtype=bool)
        for time in range(HORIZON):
            goes_right = random.random(EPISODES) < np.exp(log_policy[places, 1])
            states[time], actions[time], lived[time] = places, goes_right, alive
            slips = random.random(EPISODES) < SLIP
            step = np.where(goes_right ^ slips, 1, -1)
            places = np.clip(places + step, 0, STATES - 1)
            arrived = places == STATES - 1
            rewards[time] = np.where(alive, np.where(arrived, 1.0, -0.01), 0.0)
            alive &= ~arrived
        returns = np.zeros(shape)
        later = np.zeros(EPISODES)
        for time in reversed(range(HORIZON)):
            later = returns[time] = rewards[time] + DISCOUNT * later
        taken = log_policy[states, actions]
        reward_mean = float(rewards.sum(axis=0).mean())
        return Batch(states[lived], actions[lived], taken[lived], returns[lived], reward_mean)

    def learn(self, batch: Batch, lr: float) -> dict[str, Any]:
        """A few epochs of the clipped objective over one batch; what is worth knowing of them."""
        baseline = self.values[batch.states]
        advantages = batch.returns - baseline
        scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(EPOCHS):
            self._ascend(batch, scaled, lr)
        for state in np.unique(batch.states):
            mean = batch.returns[batch.states == state].mean()
            self.values[state] += VALUE_LR * (mean - self.values[state])
        log_policy = self.log_policy()
        log_ratios = log_policy[batch.states, batch.actions] - batch.log_probs
        ratios = np.exp(log_ratios)
        clipped = np.clip(ratios, 1 - CLIP_EPSILON, 1 + CLIP_EPSILON)
        entropies = -(np.exp(log_policy) * log_policy).sum(axis=1)
        spread = batch.returns.var()
        return {
            "policy_loss": -float(np.minimum(ratios * scaled, clipped * scaled).mean()),
            "value_loss": float(np.square(advantages).mean()),
            "entropy": float(entropies[batch.states].mean()),
            # An estimate that is never negative (Schulman 2020, http://joschu.net/blog/kl-approx.html).
            "kl_divergence": float((ratios - 1 - log_ratios).mean()),
            "clip_fraction": float((np.abs(ratios - 1) > CLIP_EPSILON).mean()),
            "advantage_mean": float(advantages.mean()),
            "advantage_std": float(advantages.std()),
            "explained_variance": float(1 - advantages.var() / spread) if spread else 0.0,
            "reward_mean": batch.reward_mean,
        }

    def _ascend(self, batch: Batch, advantages: Array, lr: float) -> None:
        """One step up the gradient of the clipped objective and of the entropy."""
        log_policy = self.log_policy()
        policy = np.exp(log_policy)
        ratios = np.exp(log_policy[batch.states, batch.actions] - batch.log_probs)
        too_far = np.where(advantages > 0, ratios > 1 + CLIP_EPSILON, ratios < 1 - CLIP_EPSILON)
        weights = np.where(too_far, 0.0, ratios * advantages) / len(advantages)
        gradient = np.zeros_like(self.logits)
        np.add.at(gradient, (batch.states, batch.actions), weights)
        visited = np.zeros(STATES)
        np.add.at(visited, batch.states, weights)
        gradient -= policy * visited[:, None]
        entropy = -(policy * log_policy).sum(axis=1, keepdims=True)
        gradient -= ENTROPY_BONUS * policy * (log_policy + entropy)
        self.logits += lr * gradient


def train(run_id: str, lr: float) -> float:
    """One training; the mean reward of its last batch."""
    random = np.random.default_rng(0)
    agent = Agent()
    with (
        telemetry.workflow_run("corridor", run_id=run_id),
        telemetry.create_metrics_collector(run_id) as collector,
    ):
        for step in range(1, UPDATES + 1):
            with collector.time_operation("rollout"):
                batch = agent.play(random)
            collector.collect_rl_metrics(step=step, **agent.learn(batch, lr))
    return batch.reward_mean


def main() -> None:
    """Train well, train badly, and say what the rules thought critical."""
    path = Path("runs/rl/metrics.jsonl")
    critical: dict[str, set[str]] = {"steady": set(), "wild": set()}

    def note(event: telemetry.EventName, measurements: Any, metadata: Any, config: object) -> None:
        if metadata["severity"] == "critical":
            critical[metadata["run_id"]].add(metadata["rule"])

    handlers.attach("console", events=[("alert", "*"), ("workflow", "run", "*")])
    handlers.attach("jsonl", path=path)
    telemetry.attach("note", ("alert", "raised"), note)
    with alerts.attach(alerts.RL_RULES):
        rewards = {"steady": train("steady", lr=2.0), "wild": train("wild", lr=40.0)}
    telemetry.detach("note")
    handlers.detach_all()
    for run_id, reward in rewards.items():
        rules = ", ".join(sorted(critical[run_id])) or "nothing"
        print(f"{run_id}: reward {reward:.2f}, critical: {rules}")
    print(f"All of it: {path}")


if __name__ == "__main__":
    main()
