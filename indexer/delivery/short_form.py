"""An alert as it is sent where the full one was refused: without text from strangers."""

from collections.abc import Mapping
from typing import Any

SHORT = (
    "id kind event rule crossing threshold_health_factor wallet chain chain_id protocol deployment account "
    "health_factor health_factor_raw status block_number block_hash block_timestamp_seconds block_time_utc"
).split()


def short_form(alert: Mapping[str, Any]) -> dict[str, Any]:
    """The same alert without text from strangers (labels, names, symbols), for a channel that refused the full one."""
    kept = {**dict.fromkeys(alert), **{name: alert.get(name) for name in SHORT}}
    health = "unknown" if kept["health_factor"] is None else f"{kept['health_factor']:.6f}"
    about = (
        f"{kept['wallet']} on {kept['deployment']}: health factor {health}, status {kept['status']}"
        if kept["wallet"]
        else f"a price on {kept['chain']}"
        if kept["kind"] == "price"
        else f"{kept['chain']} cannot be watched"
    )
    kept["title"] = f"Alert: {kept['rule']} {kept['event']}"
    kept["text"] = (
        f"{kept['rule']} {kept['event']}: {about}, block {kept['block_number']}. "
        f"The full alert {kept['id']} was not accepted; indexer watch list says why."
    )
    return kept
