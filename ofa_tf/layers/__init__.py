"""Elastic Keras layers, and the blocks made of them."""

import ofa_tf.layers.backend  # noqa: F401  # before what imports Keras
from ofa_tf.layers.active import ELASTIC_FORMS
from ofa_tf.layers.blocks import (
    BLOCK_LAYERS,
    BottleneckBlock,
    ChannelGroup,
    ClassifierBlock,
    ConvBlock,
    GlobalPoolBlock,
    InvertedResidualBlock,
    MaxPoolBlock,
    draw_seed,
)
from ofa_tf.layers.elastic import (
    KEEP_STATISTICS,
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    ElasticSqueezeExcite,
)

__all__ = [
    "BLOCK_LAYERS",
    "ELASTIC_FORMS",
    "KEEP_STATISTICS",
    "BottleneckBlock",
    "ChannelGroup",
    "ClassifierBlock",
    "ConvBlock",
    "ElasticBatchNormalization",
    "ElasticConv2D",
    "ElasticDense",
    "ElasticDepthwiseConv2D",
    "ElasticSqueezeExcite",
    "GlobalPoolBlock",
    "InvertedResidualBlock",
    "MaxPoolBlock",
    "draw_seed",
]
