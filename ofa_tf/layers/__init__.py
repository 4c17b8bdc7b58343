"""Elastic Keras layers, and the blocks made of them."""

from ofa_tf.layers.blocks import BlockSizes, ClassifierBlock, ConvBlock, InvertedResidualBlock
from ofa_tf.layers.elastic import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    ElasticSqueezeExcite,
)

__all__ = [
    "BlockSizes",
    "ClassifierBlock",
    "ConvBlock",
    "ElasticBatchNormalization",
    "ElasticConv2D",
    "ElasticDense",
    "ElasticDepthwiseConv2D",
    "ElasticSqueezeExcite",
    "InvertedResidualBlock",
]
