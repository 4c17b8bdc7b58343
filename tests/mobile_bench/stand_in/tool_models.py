"""The models that the stand-in of benchmark_model times: made-up ones, and those of LiteRT."""

from __future__ import annotations

import time

_MOST_TIMES = 20_000  # made up at once


class InstantModel:
    """Made-up times, given at once.

    Args:
        size: Bytes of the file.
        orders: mean_us, std_us and partitions.
    """

    is_real = False
    init_us = 12203
    op_types = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

    def __init__(self, size: int, orders: dict) -> None:
        self.size = size
        self.partitions = 1 if orders["partitions"] is None else orders["partitions"]
        self.is_whole = orders["partitions"] is None
        self._mean_us, self._std_us = orders["mean_us"], orders["std_us"]

    def times_us(self, runs: int, min_secs: float, max_secs: float) -> list[float]:
        """Returns as many times as the real tool would have measured (see RealModel)."""
        count = max(runs, int(min_secs * 1e6 / self._mean_us))
        count = min(count, int(max_secs * 1e6 / self._mean_us) + 1, _MOST_TIMES)
        # Eleven values spread evenly about the mean, again and again: their deviation is 3.1623.
        return [
            max(0.0, self._mean_us + self._std_us * (7 * i % 11 - 5) / 3.1623) for i in range(count)
        ]


class RealModel:
    """A model that LiteRT runs on inputs of zeros.

    Args:
        path: The file.
        size: Its bytes.
        threads: Of the runtime; less than 1 for its own choice.
        xnnpack: Whether the runtime may apply XNNPACK.

    Raises:
        ValueError: The runtime refuses the file.
    """

    is_real = True

    def __init__(self, path: str, size: int, threads: int, xnnpack: bool) -> None:
        import site

        site.main()  # this process was started without site-packages
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        start = time.perf_counter_ns()
        try:
            self._interpreter = Interpreter(
                model_path=path,
                num_threads=threads if threads > 0 else None,
                experimental_op_resolver_type=OpResolverType.BUILTIN if xnnpack else plain,
            )
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            raise ValueError(path) from error
        self.size = size
        self.init_us = (time.perf_counter_ns() - start) // 1000
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        for tensor in inputs:
            zeros = np.zeros(tensor["shape"], tensor["dtype"])
            self._interpreter.set_tensor(tensor["index"], zeros)
        nodes = self._interpreter._get_ops_details()  # delegates' nodes follow those they replace
        taken = [node for node in nodes if node["op_name"] == "DELEGATE"]
        self.op_types = tuple(n["op_name"] for n in nodes if n["op_name"] != "DELEGATE")
        self.partitions = len(taken)
        self.is_whole = (
            len(taken) == 1
            and {t["index"] for t in inputs} <= set(taken[0]["inputs"])
            and {t["index"] for t in outputs} <= set(taken[0]["outputs"])
        )

    def times_us(self, runs: int, min_secs: float, max_secs: float) -> list[float]:
        """Runs the model until both minimums are met, or max_secs are over; returns each time."""
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < runs or time.perf_counter() - begin < min_secs:
            start = time.perf_counter_ns()
            self._interpreter.invoke()
            times.append((time.perf_counter_ns() - start) / 1000)
            if time.perf_counter() - begin >= max_secs:
                break
        return times
