"""Iterated RLHF: responses sampled from the policy of a round, for the reward model of the next."""
