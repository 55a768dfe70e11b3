"""A real, small reinforcement-learning job, monitored: what `rolecall demo` runs, and an example to copy from.

`roles` is what a training job looks like from inside, `job` is its launcher. The rest is the learning itself.
"""

from rolecall.demo.options import DemoOptions, DemoResult, options_of, run_demo
from rolecall.demo.processes import RoleFailed

__all__ = ["DemoOptions", "DemoResult", "RoleFailed", "options_of", "run_demo"]
