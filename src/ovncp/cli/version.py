"""What a program answers to `--version`, and its daemon to the runtime command `version`."""

import ovncp

OVS_VERSION = "3.1.0"
"""The Open vSwitch whose behaviour ours is. Its scripts compare what the first line ends with."""


def text(program: str) -> str:
    """Open vSwitch's line for `program`, and ours."""
    return f"{program} (Open vSwitch) {OVS_VERSION}\novncp {ovncp.__version__}\n"
