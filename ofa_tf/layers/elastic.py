"""Elastic layers: each holds its largest weights and runs with the part that is active.

Sizes are Python ints or scalar int32 tensors; with tensors one traced graph serves every size.
Each layer has one method, `active_weights`, that cuts its active weights. The forward pass and
`materialize` both call it, and nothing else knows how a subnet's weights are cut.

Every layer takes `elastic`, "slice" or "mask" (active.py). In the mask form the inputs have all
channels, so the call arguments have to say how many are active; without them, all of the input's.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from ofa_tf.layers.activations import hard_sigmoid
from ofa_tf.layers.active import crop, cut, merge
from ofa_tf.layers.depthwise import Size, depthwise_conv2d

# The `bn_update` of a network that normalizes with batch statistics and keeps its own: a teacher.
KEEP_STATISTICS = (1, 0)


def channels(inputs: tf.Tensor) -> Size:
    """The number of channels, as an int where it is static."""
    return inputs.shape[-1] or tf.shape(inputs)[-1]


def pad_for_stride(inputs: tf.Tensor, kernel_size: Size) -> tf.Tensor:
    """Zeros of k // 2 on each side of height and width, as PyTorch pads.

    TensorFlow's SAME pads one less in front where the stride is 2 and the size is even.
    """
    pad = kernel_size // 2
    return tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])


class ElasticLayer(keras.layers.Layer):
    """What all elastic layers share.

    Args:
        elastic: "slice" or "mask", see active.py.
    """

    def __init__(self, elastic="slice", **kwargs):
        super().__init__(**kwargs)
        self.elastic = elastic

    def _cut(self, weight: keras.Variable, *sizes: Size) -> tf.Tensor:
        """The active part of a weight along its last axes."""
        return cut(tf.convert_to_tensor(weight), sizes, self.elastic)

    def get_config(self):
        return {**super().get_config(), "elastic": self.elastic}


class ElasticConv2D(ElasticLayer):
    """Convolution of the active input channels into the first `out_channels` filters.

    Args:
        filters: the most output channels.
        kernel_size: odd side of the kernel.
        strides: step of the kernel, 1 or 2.
        use_bias: whether a bias is added.

    Input: (batch, height, width, channels), at most the channels it was built with.
    Output: (batch, ceil(height / strides), ceil(width / strides), out_channels).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, filters, kernel_size=1, strides=1, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        _check_odd(kernel_size)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.use_bias = use_bias

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        # He-normal over the fan-out, as the published networks are initialized.
        initializer = keras.initializers.VarianceScaling(2.0, mode="fan_out")
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def active_weights(self, in_channels: Size, out_channels: Size) -> list[tf.Tensor]:
        """Kernel (k, k, in, out) and, where there is one, bias (out)."""
        kernel = self._cut(self.kernel, in_channels, out_channels)
        return [kernel, self._cut(self.bias, out_channels)] if self.use_bias else [kernel]

    def call(self, inputs, in_channels=None, out_channels=None):
        in_channels = channels(inputs) if in_channels is None else in_channels
        out_channels = self.filters if out_channels is None else out_channels
        kernel, *bias = self.active_weights(in_channels, out_channels)
        if self.kernel_size > 1 and self.strides > 1:
            inputs = pad_for_stride(inputs, self.kernel_size)
        padding = "SAME" if self.strides == 1 else "VALID"
        outputs = tf.nn.conv2d(inputs, kernel, self.strides, padding)
        return tf.nn.bias_add(outputs, bias[0]) if bias else outputs

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "use_bias": self.use_bias,
        }


class ElasticDepthwiseConv2D(ElasticLayer):
    """Depthwise convolution whose smaller kernels are made from the larger ones.

    The weight is stored at the largest kernel. A smaller kernel is the center of the next larger
    one, flattened, times a learned square matrix that all channels share: 7 -> 5 -> 3, the kernel
    transformation of Once-for-All (arXiv 1908.09791, section 3.3). The matrices start as
    identities, so a small kernel starts as the center of the large one.

    Args:
        kernel_sizes: the odd sides that can be active, e.g. (3, 5, 7).
        strides: step of the kernel, 1 or 2.

    Input: (batch, height, width, channels), at most the channels it was built with.
    Output: (batch, ceil(height / strides), ceil(width / strides), channels).

    Raises:
        ValueError: a kernel is even.
    """

    def __init__(self, kernel_sizes=(3, 5, 7), strides=1, **kwargs):
        super().__init__(**kwargs)
        self.kernel_sizes = tuple(sorted(kernel_sizes))
        for kernel_size in self.kernel_sizes:
            _check_odd(kernel_size)
        self.strides = strides

    def build(self, input_shape):
        largest = self.kernel_sizes[-1]
        # Fan-out of a depthwise kernel: k * k outputs per input channel.
        initializer = keras.initializers.RandomNormal(stddev=(2.0 / largest**2) ** 0.5)
        self.kernel = self.add_weight(
            name="kernel", shape=(largest, largest, input_shape[-1]), initializer=initializer
        )
        self.transforms = {
            small: self.add_weight(
                name=f"transform_{large}to{small}",
                shape=(small * small, small * small),
                initializer="identity",
            )
            for small, large in zip(self.kernel_sizes, self.kernel_sizes[1:], strict=False)
        }

    def active_weights(self, in_channels: Size, kernel_size: Size) -> list[tf.Tensor]:
        """Kernel (k, k, channels, 1) of the first channels.

        Raises ValueError where `kernel_size` is an int that is not one of `kernel_sizes`.
        """
        if isinstance(kernel_size, int) and kernel_size not in self.kernel_sizes:
            raise ValueError(f"kernel_size is one of {self.kernel_sizes}, not {kernel_size}.")
        largest = self.kernel_sizes[-1]
        kernel = self._cut(self.kernel, in_channels)
        if len(self.kernel_sizes) == 1:
            return [kernel[..., None]]
        # All sizes are computed, at the center of a frame of the largest, and one is picked and
        # cropped: kernels are small, and a graph without branches is traced much faster.
        frames = {largest: kernel}
        for small in reversed(self.kernel_sizes[:-1]):
            margin = (kernel.shape[0] - small) // 2
            center = kernel[margin : margin + small, margin : margin + small]
            flat = tf.reshape(center, [small * small, -1])
            flat = tf.matmul(tf.convert_to_tensor(self.transforms[small]), flat, transpose_a=True)
            kernel = tf.reshape(flat, [small, small, -1])
            margin = (largest - small) // 2
            frames[small] = tf.pad(kernel, [[margin, margin], [margin, margin], [0, 0]])
        sizes = list(frames)
        picked = tf.argmax(tf.equal(sizes, kernel_size), output_type=tf.int32)
        frame = tf.stack([frames[size] for size in sizes])[picked]
        return [crop(frame[..., None], kernel_size, self.elastic)]

    def call(self, inputs, in_channels=None, kernel_size=None):
        in_channels = channels(inputs) if in_channels is None else in_channels
        kernel_size = self.kernel_sizes[-1] if kernel_size is None else kernel_size
        (kernel,) = self.active_weights(in_channels, kernel_size)
        return depthwise_conv2d(inputs, kernel, self.strides, kernel.shape[0] or kernel_size)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_sizes": self.kernel_sizes,
            "strides": self.strides,
        }


class ElasticBatchNormalization(ElasticLayer):
    """Batch normalization of the active channels, with one set of statistics for all widths.

    The moving statistics belong to whichever subnets ran last, so they are re-estimated for a
    subnet before it is evaluated or cut out (training/calibration.py).

    Args:
        momentum: share of the old moving statistics that an update keeps.
        epsilon: added to the variance.

    Call arguments:
        inputs: (batch, height, width, channels), at most the channels it was built with.
        in_channels: how many of them are active.
        training: normalize with the batch's statistics and update the moving ones with them (the
            variance unbiased, as PyTorch does).
        bn_update: (keep, take), numbers or scalar tensors: as `training`, but the update is
            keep * moving + take * batch, the variance as it is. Over n batches, keep = 0 at the
            first and then 1, and take = 1 / n, make the moving statistics the mean over the
            batches. KEEP_STATISTICS, as numbers, updates nothing.

    Output: the shape of the input, in its precision; the arithmetic is float32.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        # No weight and no share of an update may be rounded to the compute precision.
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        shape = (input_shape[-1],)
        weight = {"shape": shape, "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
        self.beta = self.add_weight(name="beta", initializer="zeros", **weight)
        self.moving_mean = self._statistic("moving_mean", shape, "zeros")
        self.moving_variance = self._statistic("moving_variance", shape, "ones")

    def _statistic(self, name: str, shape: tuple[int, ...], initializer: str) -> keras.Variable:
        """Each replica of a tf.distribute strategy updates its own copy; read outside, the mean.

        `add_weight` cannot ask for that ("on_read"). Updates that all replicas make together
        would have to meet inside of tf.cond, which TensorFlow refuses.
        """
        with keras.name_scope(self.name, caller=self):
            return keras.Variable(
                keras.initializers.get(initializer),
                shape=shape,
                dtype=self.variable_dtype,
                trainable=False,
                autocast=False,
                aggregation="mean",
                synchronization="on_read",
                name=name,
            )

    def active_weights(self, in_channels: Size) -> list[tf.Tensor]:
        """Gamma, beta, moving mean and moving variance, each (channels)."""
        statistics = (self.moving_mean, self.moving_variance)
        return [
            *self._active_affine(in_channels),
            *(self._cut(statistic, in_channels) for statistic in statistics),
        ]

    def _active_affine(self, in_channels: Size) -> list[tf.Tensor]:
        return [self._cut(weight, in_channels) for weight in (self.gamma, self.beta)]

    def call(self, inputs, in_channels=None, training=False, bn_update=None):
        in_channels = channels(inputs) if in_channels is None else in_channels
        if not training and bn_update is None:
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                inputs,
                *self.active_weights(in_channels),
                epsilon=self.epsilon,
                is_training=False,
            )
            return outputs
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, *self._active_affine(in_channels), epsilon=self.epsilon, is_training=True
        )
        if bn_update is None:
            keep, take = self.momentum, 1.0 - self.momentum
        else:
            keep, take = bn_update
            # The op's variance is the unbiased one.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
            variance *= (count - 1.0) / count
        if tf.is_tensor(keep) or tf.is_tensor(take) or (keep, take) != KEEP_STATISTICS:
            keep, take = (tf.convert_to_tensor(share, tf.float32) for share in (keep, take))
            self._update(self.moving_mean, mean, in_channels, keep, take)
            self._update(self.moving_variance, variance, in_channels, keep, take)
        return outputs

    def _update(self, moving, batch, in_channels, keep, take):
        """Moves the active part of a statistic towards the batch's; the rest stays.

        A share of 0 takes nothing, not even what is not finite.
        """
        kept = tf.math.multiply_no_nan(self._cut(moving, in_channels), keep)
        taken = tf.math.multiply_no_nan(batch, take)
        moving.assign(merge(kept + taken, tf.convert_to_tensor(moving), in_channels))

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


class ElasticSqueezeExcite(ElasticLayer):
    """Squeeze-excite: scales each active channel by a gate that the image's mean decides.

    Mean over height and width, 1x1 convolution to `se_channels` with ReLU, 1x1 convolution back
    with hard sigmoid = relu6(x + 3) / 6 (arXiv 1905.02244).

    Args:
        se_channels: the most middle channels.

    Input and output: (batch, height, width, channels), at most the channels it was built with.
    """

    def __init__(self, se_channels, **kwargs):
        super().__init__(**kwargs)
        self.se_channels = se_channels

    def build(self, input_shape):
        form = {"use_bias": True, "elastic": self.elastic, "dtype": self.dtype_policy}
        self.reduce = ElasticConv2D(self.se_channels, **form, name="reduce")
        self.expand = ElasticConv2D(input_shape[-1], **form, name="expand")
        self.reduce.build(input_shape)
        self.expand.build((None, 1, 1, self.se_channels))

    def call(self, inputs, in_channels=None, se_channels=None):
        in_channels = channels(inputs) if in_channels is None else in_channels
        se_channels = self.se_channels if se_channels is None else se_channels
        gate = tf.reduce_mean(inputs, axis=[1, 2], keepdims=True)
        gate = tf.nn.relu(self.reduce(gate, in_channels=in_channels, out_channels=se_channels))
        gate = self.expand(gate, in_channels=se_channels, out_channels=in_channels)
        return inputs * hard_sigmoid(gate)

    def get_config(self):
        return {**super().get_config(), "se_channels": self.se_channels}


class ElasticDense(ElasticLayer):
    """Dense layer on the active input features.

    Args:
        units: output features.

    Input: (batch, features), at most the features it was built with. Output: (batch, units).
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        shape = (input_shape[-1], self.units)
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def active_weights(self, in_features: Size) -> list[tf.Tensor]:
        """Kernel (in, units) and bias (units)."""
        return [self._cut(self.kernel, in_features, self.units), self._cut(self.bias, self.units)]

    def call(self, inputs):
        kernel, bias = self.active_weights(channels(inputs))
        return tf.matmul(inputs, kernel) + bias

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def _check_odd(kernel_size):
    if kernel_size % 2 == 0:
        raise ValueError(f"A kernel size is odd, so that it has a center; got {kernel_size}.")
