"""Once-for-All networks in TensorFlow, made for phones."""
