"""Where training runs: one device, all GPUs of a host, many workers, or a TPU."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from ofa_tf.errors import FailureError, UsageError

STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")
_LEAST_IMAGES = 32  # of a replica: from fewer, batch statistics are poor
_MOST_EVALUATING = 8  # replicas: each takes memory, and time to trace


def make_strategy(name: str, tpu: str = "") -> tf.distribute.Strategy:
    """Makes a strategy; before anything else touches TensorFlow's devices.

    Args:
        name: "one_device" (the first GPU, or the CPU), "mirrored" (all GPUs of this host),
            "multi_worker" (one process per host, by the environment variable TF_CONFIG), "tpu".
        tpu: name or address of the TPU; "" for the local one.

    Raises:
        UsageError: an unknown name, or no such device here.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, tf.errors.OpError) as error:
            raise UsageError(f"There is no TPU {tpu!r} to be reached: {error}") from error
        return tf.distribute.TPUStrategy(resolver)
    raise UsageError(f"There is no strategy {name!r}; known: {', '.join(STRATEGIES)}.")


def share_cores(cores: int, replicas: int) -> tf.distribute.Strategy:
    """Makes replicas on CPU cores; before anything else touches TensorFlow's devices.

    Small images leave cores idle where all of them work on one operation at a time.

    Where TensorFlow's devices were set up already in this process, there are no more replicas than
    that made.

    Args:
        cores: that are used.
        replicas: that share them, and a batch.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // replicas))
        tf.config.threading.set_inter_op_parallelism_threads(cores)
        cpu, *_ = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError:  # TensorFlow's devices are set up in this process already
        replicas = min(replicas, len(tf.config.list_logical_devices("CPU")))
    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])


def most_replicas(cores: int, batch_size: int) -> int:
    """How many replicas can share a batch equally, each with enough images for batch norm."""
    most = max(1, min(cores, batch_size // _LEAST_IMAGES))
    return max(count for count in range(1, most + 1) if batch_size % count == 0)


@functools.cache
def every_core() -> tf.distribute.Strategy:
    """Makes replicas that evaluate many subnets: on all CPU cores, or the GPU where there is one.

    Before anything else touches TensorFlow's devices.
    """
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.get_strategy()
    cores = available_cores()
    return share_cores(cores, min(cores, _MOST_EVALUATING))


def available_cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _multi_worker() -> tf.distribute.Strategy:
    advice = (
        'It is JSON like {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}, the index being this worker\'s.'
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        jobs = sorted(strategy.cluster_resolver.cluster_spec().as_dict())
    except (ValueError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
        raise UsageError(
            f"The workers cannot be set up from TF_CONFIG: {error}. {advice}"
        ) from error
    # Without a cluster, each host would train for itself; a chief apart would be a second writer.
    if jobs != ["worker"]:
        raise UsageError(
            f"The cluster of TF_CONFIG has the jobs {jobs}, not just workers. {advice}"
        )
    return strategy


def skip_graph_optimizer() -> None:
    """Turns TensorFlow's graph optimizer off for this process, where there is no GPU.

    It takes longer than tracing a supernet's training step, and on a CPU the step is not faster
    for it. On GPUs it chooses layouts and fuses kernels, so there it stays.
    """
    if not tf.config.list_physical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Processes that train together."""
    resolver = strategy.cluster_resolver
    if resolver is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return max(1, len(resolver.cluster_spec().as_dict().get("worker", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    return num_workers(strategy) == 1 or strategy.cluster_resolver.task_id == 0


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The chief runs the block before the other workers, which then find what it prepared.

    Raises:
        FailureError: another worker ended meanwhile.
    """
    if not is_chief(strategy):
        _meet(strategy)
    yield
    if is_chief(strategy) and num_workers(strategy) > 1:
        _meet(strategy)


def _meet(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers are here."""
    with lost_worker_told(strategy):
        strategy.reduce(tf.distribute.ReduceOp.SUM, tf.ones([]), axis=None)


@contextlib.contextmanager
def lost_worker_told(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around what all workers do together before they train.

    Raises:
        FailureError: another worker ended meanwhile.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if num_workers(strategy) == 1:
            raise
        raise FailureError(
            "The workers could not start together; one of them may have ended. Start all of them "
            f"again. ({(error.message or str(error)).strip().splitlines()[0]})"
        ) from error


@contextlib.contextmanager
def step_errors_told(
    strategy: tf.distribute.Strategy, what_failed: Callable[[], str]
) -> Iterator[None]:
    """Around training steps: what TensorFlow raises is one failure that says what to do.

    Raises:
        FailureError: an image cannot be read, another worker ended, a device failed.
    """
    try:
        yield
    except tf.errors.OpError as error:
        advice = "Run the same command again to go on from the newest checkpoint"
        if num_workers(strategy) > 1:
            advice = f"Another worker may have ended. {advice}, on all workers"
        raise FailureError(f"{what_failed()}: {_reason(error)}. {advice}.") from error


def _reason(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's message that says what happened, without where in the graph."""
    text = re.sub(r"\{\{.*?\}\}", "", error.message or str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    where = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    told = [line for line in lines if not line.startswith(where)]
    return (told or lines)[0].rstrip(".:")


def local_replicas(strategy: tf.distribute.Strategy) -> range:
    """The replicas that this process feeds."""
    count = strategy.num_replicas_in_sync // num_workers(strategy)
    first = count * strategy.cluster_resolver.task_id if num_workers(strategy) > 1 else 0
    return range(first, first + count)


def distributed_batches(
    strategy: tf.distribute.Strategy, make: Callable[[range], tf.data.Dataset]
) -> Iterable:
    """Endless batches for all replicas.

    Args:
        strategy: where they go.
        make: the dataset for some replicas, one element per replica and step.
    """
    endless = tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
    replicas = local_replicas(strategy)
    return strategy.distribute_datasets_from_function(lambda _: make(replicas).apply(endless))


def first_local(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Of a value that all replicas agree on, this process's."""
    return strategy.experimental_local_results(value)[0]
