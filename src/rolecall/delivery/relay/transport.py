"""Whether a job goes over Ray, and what its launcher does then. Ray itself is imported only if it does."""

from rolecall.config.environment import uses_ray
from rolecall.config.model import MonitorConfig
from rolecall.errors import ConfigError, DirectoryError
from rolecall.store.layout import Layout, read_record


def hub_of(config: MonitorConfig) -> str | None:
    """Where the hub of a job will be that is launched here: Ray's id of this node; `None` without Ray.

    Raises:
        ConfigError: the config asks for Ray, and this process is no part of a cluster.
    """
    if not uses_ray(config.transport):
        return None
    try:
        from rolecall.delivery.relay.ray import this_node
    except ImportError as error:
        what = f"transport: ray: Ray cannot be imported ({error})"
        raise ConfigError(f"{what}; install it with: pip install 'ray>=2.60'") from error
    return this_node()


def start(config: MonitorConfig) -> None:
    """Start the hub of a job that was launched, if it has one.

    Raises:
        ConfigError, DirectoryError: it cannot be started.
    """
    spec = config.spec()
    if spec.hub is not None:
        from rolecall.delivery.relay.ray import start_hub

        start_hub(spec)


def settle(config: MonitorConfig, timeout: float) -> None:
    """Have all that the roles of a job logged brought here, if it is on their nodes."""
    spec = config.spec()
    if spec.hub is not None:
        from rolecall.delivery.relay.ray import settle

        settle(spec, timeout)


def is_away(config: MonitorConfig) -> bool:
    """Whether a role with this config is on another disk than its launcher.

    Raises:
        ConfigError: that cannot be known without the launcher's config.
    """
    launched = config.hand_over
    if launched is None:
        if config.transport == "ray":
            raise ConfigError(
                "transport: ray: a role needs the launcher's config; pass it job.config of rolecall.launch"
            )
        return False
    if launched.hub is None or config.transport == "ray":
        return launched.hub is not None
    try:
        record = read_record(Layout(config.monitor_dir))
    except (DirectoryError, OSError):
        return True
    return record is None or record.nonce != launched.nonce
