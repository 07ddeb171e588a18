"""Whose fault an exception is: the plugin whose code it came from, and where in it."""

from __future__ import annotations


def place_of(error: BaseException) -> tuple[str, str] | None:
    """The plugin and `file:line` of the innermost frame that is a plugin's; None where no plugin had a part in it."""
    from vqtool.catalog import discovery

    found = discovery._found
    if found is None:  # nothing was looked for, so no plugin ran
        return None
    owners = {
        component.target.partition(":")[0].partition(".")[0]: plugin.name
        for plugin in found.plugins
        if plugin.name != "vqtool"
        for component in plugin.components
    }
    place, step = None, error.__traceback__
    while step is not None:
        owner = owners.get(str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        if owner is not None:
            place = (owner, f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}")
        step = step.tb_next
    return place
