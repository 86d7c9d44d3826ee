"""The attacks, as data. Those whose number is above 116 aim at this implementation."""

from tests.sandboxes.code.attacks.attack import Attack
from tests.sandboxes.code.attacks.escape import NETWORK, SECRETS
from tests.sandboxes.code.attacks.forging import FORGERS, PEEKS
from tests.sandboxes.code.attacks.hacking import EXITS, LIARS, PATCHES
from tests.sandboxes.code.attacks.honest import FAIR
from tests.sandboxes.code.attacks.kernel import CODE, KERNEL
from tests.sandboxes.code.attacks.machinery import MACHINERY
from tests.sandboxes.code.attacks.neighbours import NEIGHBOURHOOD
from tests.sandboxes.code.attacks.odd_values import ODD_VALUES
from tests.sandboxes.code.attacks.protocol import PROTOCOL
from tests.sandboxes.code.attacks.resources import PROCESSES, RAM
from tests.sandboxes.code.attacks.streams import SOURCES, STREAMS
from tests.sandboxes.code.attacks.time_and_files import FILES, FLOODS, TIME

RESOURCES: list[Attack] = [*PROCESSES, *RAM, *TIME, *FILES, *FLOODS]
ESCAPES: list[Attack] = [*SECRETS, *NETWORK, *KERNEL, *CODE]
HACKS: list[Attack] = [*EXITS, *LIARS, *PATCHES, *PEEKS, *FORGERS, *SOURCES, *STREAMS]
ATTACKS: list[Attack] = [*RESOURCES, *ESCAPES, *HACKS, *ODD_VALUES, *MACHINERY, *PROTOCOL, *NEIGHBOURHOOD, *FAIR]
