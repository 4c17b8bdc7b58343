"""Elastic Keras layers, and the blocks made of them."""

from ofa_tf.layers.active import ELASTIC_FORMS
from ofa_tf.layers.blocks import (
    BlockSizes,
    ClassifierBlock,
    ConvBlock,
    InvertedResidualBlock,
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
    "ELASTIC_FORMS",
    "KEEP_STATISTICS",
    "BlockSizes",
    "ClassifierBlock",
    "ConvBlock",
    "ElasticBatchNormalization",
    "ElasticConv2D",
    "ElasticDense",
    "ElasticDepthwiseConv2D",
    "ElasticSqueezeExcite",
    "InvertedResidualBlock",
    "draw_seed",
]
