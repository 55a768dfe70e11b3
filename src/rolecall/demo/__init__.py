"""A small reinforcement-learning job with a monitor: what `rolecall demo` runs, and an example to copy from.

`roles` has the roles of the job and `job` its launcher. The other modules are the training itself.
"""

from rolecall.demo.options import DemoOptions, DemoResult, options_of, run_demo
from rolecall.demo.processes import RoleFailed

__all__ = ["DemoOptions", "DemoResult", "RoleFailed", "options_of", "run_demo"]
