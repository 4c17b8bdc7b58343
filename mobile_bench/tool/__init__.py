"""TFLite's benchmark_model: its command line, and the reading of what it prints and writes."""
