"""What a namespace fixes for good, and the window specs over it."""

from __future__ import annotations

from streamer.config import DataConfig, SensorConfig, WindowsConfig
from streamer.errors import RefusedError
from streamer.sensors import quoted
from streamer.store import scripts
from streamer.store.connection import Client, map_redis_errors, text
from streamer.store.keys import Keys

# Of the keys and what lies under them. 2: row blocks end with one byte a step, counts bear the ledger's names.
LAYOUT = "2"


def check_server(client: Client) -> None:
    """Refuses a Redis that would lose training data.

    Raises:
        RefusedError: It is a replica, or its policy evicts keys when memory is full.
        StoreUnavailableError: It does not answer.
    """
    with map_redis_errors("asking for its role"):
        info = client.info()
    if info.get("role") == "slave":
        raise RefusedError(f"Redis is a replica of {info.get('master_host')}; point redis.url at the primary")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RefusedError(
            f"Redis has maxmemory-policy {policy}, which deletes training data when memory is full; "
            "set maxmemory-policy noeviction"
        )


def claim_namespace(client: Client, keys: Keys, data: DataConfig) -> None:
    """Writes what the namespace fixes, or checks that it is what we are configured for.

    Raises:
        RefusedError: The namespace was written with other sensors, units, period, grid or block size, or by a
            version that lays it out otherwise.
    """
    ours = data.model_dump_json()
    with map_redis_errors("claiming the namespace"):
        theirs, layout = map(_text, client.hmget(keys.meta, ["data", "layout"]))
        if theirs is None:  # a full Redis takes no write, not even one that changes nothing
            client.hsetnx(keys.meta, "layout", LAYOUT)
            client.hsetnx(keys.meta, "data", ours)
            theirs, layout = map(_text, client.hmget(keys.meta, ["data", "layout"]))
    if layout != LAYOUT:
        raise RefusedError(
            f"namespace {keys.namespace} has the layout {layout or '1'} of another version of the streamer, this one "
            f"writes {LAYOUT}; use another redis.namespace, and fill it from the topics with --reset or another "
            "consumer.group_id"
        )
    _compare(keys, DataConfig.model_validate_json(theirs or "{}"), data)


def check_namespace(client: Client, keys: Keys, data: DataConfig) -> None:
    """Checks that what the namespace fixes is what we are configured for; one that nobody has written to passes.

    Raises:
        RefusedError: It was written with other sensors, units, period, grid or block size.
    """
    held = read_namespace(client, keys)
    if held is not None:
        _compare(keys, held, data)


def _compare(keys: Keys, held: DataConfig, data: DataConfig) -> None:
    faults = [
        f"{name}: it has {_show(getattr(held, name))}, the configuration says {_show(getattr(data, name))}"
        for name in DataConfig.model_fields
        if getattr(held, name) != getattr(data, name)
    ]
    if faults:
        raise RefusedError(
            f"namespace {keys.namespace} was written with other data; " + "; ".join(faults)
            + "; use another redis.namespace or the old values"
        )  # fmt: skip


def claim_backfill(client: Client, keys: Keys, what: str) -> None:
    """Takes a fresh namespace for a backfill, or finds it taken for the same one.

    Args:
        what: Says which backfill it is.

    Raises:
        RefusedError: The namespace holds something else.
    """
    with map_redis_errors("claiming the namespace"):
        held = _text(client.register_script(scripts.CLAIM)(keys=[keys.meta], args=["backfill", what]))
    if held != what:
        holds = f"the backfill of {held}" if held else "what a streamer reads live"
        raise RefusedError(
            f"namespace {keys.namespace} holds {holds}, not the backfill of {what}; give it a --namespace of its own"
        )


def refuse_backfill(client: Client, keys: Keys, why: str) -> None:
    """Refuses what makes no sense on a namespace that a backfill has filled.

    Args:
        why: Goes on after "it holds the backfill of ...".

    Raises:
        RefusedError: A backfill has filled it.
    """
    with map_redis_errors("reading the namespace"):
        what = _text(client.hget(keys.meta, "backfill"))
    if what is not None:
        raise RefusedError(f"namespace {keys.namespace} holds the backfill of {what}: {why}")


def claim_spec(client: Client, keys: Keys, spec: WindowsConfig) -> None:
    """Writes a window spec under its name, or checks that the name still means the same, and registers it.

    From then on every member keeps its index; casts that do not move any more are entered by `streamer index`.

    Raises:
        RefusedError: The name stands for another spec.
    """
    ours = spec.model_dump_json()
    with map_redis_errors("claiming the window spec"):
        theirs = _text(client.get(keys.spec(spec.name)))
        if theirs is None:
            client.set(keys.spec(spec.name), ours, nx=True)
            theirs = _text(client.get(keys.spec(spec.name)))
    if theirs != ours:
        raise RefusedError(
            f"windows.name {spec.name} stands for {theirs} in namespace {keys.namespace}, "
            f"the configuration says {ours}; give the new spec a name of its own"
        )
    with map_redis_errors("registering the window spec"):
        if not client.sismember(keys.specs, spec.name):
            client.sadd(keys.specs, spec.name)


def drop_spec(client: Client, keys: Keys, name: str) -> bool:
    """Lets members forget a window spec; what is indexed stays readable. Returns whether it was registered."""
    with map_redis_errors("dropping the window spec"):
        return bool(client.srem(keys.specs, name))


def registered_specs(client: Client, keys: Keys) -> list[WindowsConfig]:
    """The window specs that members keep to, by name."""
    with map_redis_errors("listing window specs"):
        names = sorted(text(name) for name in client.smembers(keys.specs))
    return [spec for name in names if (spec := read_spec(client, keys, name))]


def read_namespace(client: Client, keys: Keys) -> DataConfig | None:
    """What the namespace fixes, None if no streamer has written to it yet."""
    with map_redis_errors("reading the namespace"):
        held = _text(client.hget(keys.meta, "data"))
    return DataConfig.model_validate_json(held) if held else None


def read_spec(client: Client, keys: Keys, name: str) -> WindowsConfig | None:
    """A window spec by its name, None if there is none."""
    with map_redis_errors("reading the window spec"):
        held = _text(client.get(keys.spec(name)))
    return WindowsConfig.model_validate_json(held) if held else None


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(
            f"{quoted(sensor.name)} [{sensor.unit}]" for sensor in value if isinstance(sensor, SensorConfig)
        )
    return str(value)


def _text(value: object) -> str | None:
    return value.decode() if isinstance(value, bytes) else None
