"""Quantization-aware training: a subnet that learns to live with int8, and its file.

The network is written in tf_keras, for which tensorflow-model-optimization emulates quantization:
every kernel and every activation is rounded as the file will round it. Batch norm is folded into
the convolutions first, as it will be in the file.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from ofa_tf.errors import UsageError
from ofa_tf.export.cpu_form import Int8Builder
from ofa_tf.export.emulation import (
    PROBABILITIES,
    Border,
    Emulation,
    convert_emulation,
    rounded_kernel,
    verify_file,
)
from ofa_tf.export.evaluation import Batches, classify, top1
from ofa_tf.export.formats import FORMS
from ofa_tf.export.interface import Interface
from ofa_tf.models.subnet import SubnetBuilder, rewrite
from ofa_tf.spaces import Blueprint

# The next import makes `tf.keras` mean tf_keras in the whole process, unless it is in use by then.
tf.keras.layers  # noqa: B018

try:
    import tensorflow_model_optimization as tfmot
    import tf_keras
except ImportError as error:
    raise UsageError(
        f"Quantization-aware training needs {error.name}: pip install "
        "tensorflow-model-optimization tf_keras"
    ) from error

_log = logging.getLogger("ofa_tf")

layers = tf_keras.layers
quantizers = tfmot.quantization.keras.quantizers

# Smallest and largest value of an output, by layer.
Ranges = dict[str, tuple[float, float]]

# Training batches on which the ranges of the activations are measured before training.
CALIBRATION_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class QatResult:
    """A network after quantization-aware training.

    Attributes:
        tflite: the content of the .tflite file.
        history: `epoch`, `validation_accuracy` and, but for epoch 0, the mean `loss`, of each
            epoch; epoch 0 is the state before training.
        keras_outputs: the emulation's outputs, float32 (n, classes), for images like those that
            the file takes, as real values.
    """

    tflite: bytes
    history: list[dict[str, float]]
    keras_outputs: Callable[[np.ndarray], np.ndarray]


def quantization_aware(
    model: keras.Model,
    plan: Blueprint,
    interface: Interface,
    *,
    train_batches: Batches,
    validation_batches: Batches,
    epochs: int,
    steps_per_epoch: int,
    base_lr: float = 1e-3,
    form: str = "cpu",
    batch_size: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> QatResult:
    """Fine-tunes a network with its quantization emulated, and converts it to int8.

    It learns from the labels and from the outputs of the network itself in float32. The state of
    the epoch with the best validation accuracy is kept, that before training included, so the
    file is never worse on the validation images than without training.

    Args:
        model: what `build_subnet(plan, **interface.build_options)` built; it stays as it is.
        plan: its Blueprint.
        interface: what goes into the file and comes out. Images and outputs are uint8 where the
            input is "uint8", else int8.
        train_batches: raw pixels from 0 to 255 and labels; begun again where it ends.
        validation_batches: the same, for one pass after each epoch.
        epochs: passes of `steps_per_epoch` batches; 0 only calibrates.
        steps_per_epoch: batches in an epoch.
        base_lr: the largest size of a step, relative to the size of each weight; decays to zero
            along a cosine.
        form: "cpu" (see cpu_form.py), or "plain" with an operation for each layer.
        batch_size: of the file.
        progress: called with the steps that are done and all steps, after each.

    Raises:
        UsageError: an unknown form, one that does not write the network, or no images.
        FailureError: TensorFlow does not convert the network, or the file's outputs are not the
            emulation's.
    """
    if form not in FORMS:
        raise UsageError(f"form is one of {', '.join(FORMS)}, not {form!r}.")
    border = Border(interface, form)
    network = written_in_tf_keras(model, plan, form)
    batches = _endless(train_batches)
    ranges = _measured_ranges(
        network, (border.normalized(next(batches)[0]) for _ in range(CALIBRATION_BATCHES))
    )
    student = _quantized(network, ranges)
    emulation = Emulation(student, border)
    history = _train(
        emulation,
        model,
        batches,
        validation_batches,
        steps=steps_per_epoch,
        epochs=epochs,
        base_lr=base_lr,
        progress=progress or (lambda done, total: None),
    )
    rounded = _quantized(network, ranges, round_kernels=False)
    _copy_rounded(student, rounded)
    content = convert_emulation(Emulation(rounded, border), plan.resolution, batch_size)
    verify_file(content, emulation, validation_batches)
    return QatResult(content, history, lambda images: emulation.outputs(images).numpy())


class _TfKerasBuilder:
    """What the builders of both forms have in common: activations as layers of tf_keras.

    Mixed into builders that write hard-swish and hard-sigmoid in their own way.
    """

    library = tf_keras

    def activation(self, kind, inputs, name):
        if kind in ("relu", "relu6"):
            return self.layers.ReLU(6.0 if kind == "relu6" else None, name=name)(inputs)
        if kind == "swish":
            gate = self.layers.Activation("sigmoid", name=f"{name}_gate")(inputs)
            return self.layers.Multiply(name=name)([inputs, gate])
        return super().activation(kind, inputs, name)

    def gate(self, inputs, name):
        return self.activation("relu6", inputs, name)


class _CpuBuilder(_TfKerasBuilder, Int8Builder):
    """The CPU form in tf_keras."""


class _PlainBuilder(_TfKerasBuilder, SubnetBuilder):
    """A layer for each layer of the plain network, in tf_keras."""

    def activation(self, kind, inputs, name):
        if kind == "hard_swish":
            return _HardSwish(name=name, dtype="float32")(inputs)
        if kind != "hard_sigmoid":
            return super().activation(kind, inputs, name)
        shifted = self.layers.Rescaling(1.0, 3.0, name=f"{name}_shift")(inputs)
        gate = self.gate(shifted, f"{name}_gate")
        return self.layers.Rescaling(1 / 6, name=name)(gate)


class _HardSwish(layers.Layer):
    """x * relu6(x + 3) / 6, in the very operations that the converter makes a HARD_SWISH of."""

    def call(self, inputs):
        return inputs * tf.nn.relu6(inputs + 3.0) * (1 / 6)


def written_in_tf_keras(model: keras.Model, plan: Blueprint, form: str) -> tf_keras.Model:
    """The network from normalized images to logits in tf_keras, float32, in a form."""
    builder = {"cpu": _CpuBuilder, "plain": _PlainBuilder}[form]
    return rewrite(model, plan, builder, name=model.name)


class _KernelQuantizer(quantizers.Quantizer):
    """Rounds a kernel to int8 with a scale for each output channel, as the converter does."""

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return rounded_kernel(inputs)

    def get_config(self):
        return {}


class _RangeQuantizer(quantizers.MovingAverageQuantizer):
    """Rounds to 8 bits within a range that follows the activations in training."""

    def __init__(self, low: float, high: float):
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self._start = {"min_var": low, "max_var": high}

    def build(self, tensor_shape, name, layer):
        constant = tf_keras.initializers.Constant
        return {
            end: layer.add_weight(f"{name}_{end}", initializer=constant(value), trainable=False)
            for end, value in self._start.items()
        }


class _QuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """What a layer rounds.

    Args:
        kernel: the name of its kernel; None for none.
        output: of its output; None where only the next layer's output is rounded.
    """

    def __init__(self, kernel: str | None, output: quantizers.Quantizer | None):
        self._kernel = kernel
        self._output = output

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self._kernel), _KernelQuantizer())] if self._kernel else []

    def set_quantize_weights(self, layer, quantize_weights):
        for rounded in quantize_weights:
            setattr(layer, self._kernel, rounded)

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return [self._output] if self._output else []

    def get_config(self):
        return {}


_KERNELS = {
    layers.Conv2D: "kernel",
    layers.DepthwiseConv2D: "depthwise_kernel",
    layers.Dense: "kernel",
}

# Layers that give some of the numbers they get.
_PASSING = (
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Flatten,
    layers.Dropout,
)

# Layers that are one operation of the file with the layer before.
_FUSED = (layers.BatchNormalization, layers.ReLU)


def _quantized(
    network: tf_keras.Model, ranges: Ranges, *, round_kernels: bool = True
) -> tf_keras.Model:
    """The network with batch norm folded in, that rounds as the file will.

    Args:
        network: in float32.
        ranges: of the outputs that are rounded, by layer.
        round_kernels: False for one whose kernels are rounded already.
    """

    def written(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            copy = layers.Activation("linear", name=layer.name, dtype="float32")
        elif _batch_norm_after(layer):
            copy = type(layer).from_config({**config, "use_bias": True})
        else:
            copy = type(layer).from_config(config)
        kernel = _KERNELS.get(type(layer)) if round_kernels else None
        output = None
        if getattr(layer, "activation", None) is tf_keras.activations.sigmoid:
            output = quantizers.FixedQuantizer(8, *PROBABILITIES, narrow_range=False)
        elif layer.name in ranges:
            output = _RangeQuantizer(*ranges[layer.name])
        quantize = _QuantizeConfig(kernel, output)
        return tfmot.quantization.keras.QuantizeWrapperV2(
            copy, quantize, name=layer.name, dtype="float32"
        )

    quantized = tf_keras.models.clone_model(network, clone_function=written)
    for layer in network.layers:
        if type(layer) in _KERNELS:
            variables = quantized.get_layer(layer.name).trainable_weights
            for variable, value in zip(variables, _folded_weights(layer), strict=True):
                variable.assign(value)
    return quantized


def _folded_weights(layer: layers.Layer) -> list[np.ndarray]:
    """Kernel and, where it has one, bias of a layer, with the batch norm after it."""
    norm = _batch_norm_after(layer)
    if norm is None:
        return layer.get_weights()
    (kernel,) = layer.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    by_channel = scale[:, None] if isinstance(layer, layers.DepthwiseConv2D) else scale
    return [kernel * by_channel, beta - mean * scale]


def _batch_norm_after(layer: layers.Layer) -> layers.BatchNormalization | None:
    following = _following(layer)
    return following if isinstance(following, layers.BatchNormalization) else None


def _following(layer: layers.Layer) -> layers.Layer | None:
    """The only layer that takes a layer's output; None where there are several, or none."""
    nodes = layer.outbound_nodes
    return nodes[0].outbound_layer if len(nodes) == 1 else None


def _measured_ranges(network: tf_keras.Model, batches: Iterable[np.ndarray]) -> Ranges:
    """The smallest and largest value, and 0, of each output that the file holds, by layer."""
    outputs = {
        layer.name: layer.output
        for layer in network.layers[1:]
        if not isinstance(layer, _PASSING) and not isinstance(_following(layer), _FUSED)
    }
    observed = tf_keras.Model(network.input, outputs)

    @tf.function(reduce_retracing=True)
    def extremes(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            name: tf.stack([tf.minimum(tf.reduce_min(x), 0), tf.maximum(tf.reduce_max(x), 0)])
            for name, x in observed(images, training=False).items()
        }

    ranges = {}
    for images in batches:
        for name, (low, high) in extremes(images).items():
            least, most = ranges.get(name, (0.0, 0.0))
            ranges[name] = (min(least, float(low)), max(most, float(high)))
    return ranges


def _train(
    emulation: Emulation,
    teacher: keras.Model,
    batches: Iterator,
    validation_batches: Batches,
    *,
    steps: int,
    epochs: int,
    base_lr: float,
    progress: Callable[[int, int], None],
) -> list[dict[str, float]]:
    """Trains, leaves the best epoch's weights in the network, and returns the history.

    The loss is the cross-entropy with the labels plus that with the teacher's probabilities.
    """
    network, border = emulation.network, emulation.border
    schedule = tf_keras.optimizers.schedules.CosineDecay(base_lr, max(1, steps * epochs))
    # Weights after a product are divided by 6 or 36: steps must be relative to a weight's size.
    optimizer = tf_keras.optimizers.Adafactor(schedule, epsilon_1=1e-16, jit_compile=False)

    @tf.function
    def train_step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        images = border.given(pixels)
        targets = teacher(tf.cast(images, border.interface.dtype), training=False)
        if border.interface.output == "logits":
            targets = tf.nn.softmax(targets)
        with tf.GradientTape() as tape:
            logits = emulation.logits(images, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                + tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            )
        gradients = tape.gradient(loss, network.trainable_weights)
        optimizer.apply_gradients(zip(gradients, network.trainable_weights, strict=True))
        return loss

    def accuracy() -> float:
        return top1(
            *classify(lambda pixels: emulation.outputs(border.given(pixels)), validation_batches)
        )

    history = [{"epoch": 0, "validation_accuracy": accuracy()}]
    best = network.get_weights()
    for epoch in range(1, epochs + 1):
        losses = []
        for step in range(steps):
            losses.append(float(train_step(*next(batches))))
            progress((epoch - 1) * steps + step + 1, epochs * steps)
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            _log.warning("The training diverged; what came before is kept. Try a lower base_lr.")
            break
        row = {"epoch": epoch, "loss": loss, "validation_accuracy": accuracy()}
        if row["validation_accuracy"] > max(r["validation_accuracy"] for r in history):
            best = network.get_weights()
        history.append(row)
    network.set_weights(best)
    return history


def _copy_rounded(trained: tf_keras.Model, copy: tf_keras.Model) -> None:
    """Gives a network the weights of another with the kernels rounded for good."""
    copy.set_weights(trained.get_weights())
    for variable in copy.trainable_weights:
        if len(variable.shape) > 1:
            variable.assign(rounded_kernel(variable))


def _endless(batches: Batches) -> Iterator:
    """Batches again and again. Raises UsageError where there are none."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise UsageError("Quantization-aware training needs training images.")
