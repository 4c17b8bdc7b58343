"""Rows of codes: the same ones found, random ones varied."""

from __future__ import annotations

import functools

import numpy as np

from ofa_tf.spaces import SearchSpace

MUTATION_PROB = 0.1  # of each choice of a mutated arch; the published value


def keys(codes: np.ndarray) -> np.ndarray:
    """A number for each code, uint64 (n,): equal for equal codes, else practically never.

    Two different codes share one with a chance of about 1e-18.
    """
    return codes.astype(np.uint64) @ _factors(codes.shape[1])


@functools.cache
def _factors(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(2**64, size=length, dtype=np.uint64)


def distinct(codes: np.ndarray) -> np.ndarray:
    """Indices of the codes without repetitions, ascending: where each is first."""
    return np.sort(np.unique(keys(codes), return_index=True)[1])


def offspring(
    space: SearchSpace, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One child of each pair of parents: half are mutations of the first, half crossings."""
    half = len(first) // 2
    mutated = space.mutate(first[:half], rng, MUTATION_PROB, MUTATION_PROB)
    return np.concatenate([mutated, space.crossover(first[half:], second[half:], rng)])
