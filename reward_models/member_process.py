"""The program that trains one member of WARM for `reward_models.together`: member_process FD PARENT < ORDER."""

import pickle
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection

from contracts.errors import RunError, UserError
from sandboxes.child_main import die_with


class Teller:
    """A sink that tells the process which started this one; that one being gone ends the training."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Pass on."""
        self._messages.send(("progress", done, dict(shown)))

    def say(self, message: str) -> None:
        """Pass on."""
        self._messages.send(("say", message))


def main(messages: Connection, parent: int) -> int:
    """Train what the order on the standard input says; the exit code."""
    die_with(parent)
    try:
        from reward_models.member import train_member

        order = pickle.load(sys.stdin.buffer)
        order.stage.sink = Teller(messages)
        train_member(order.config, order.plan, order.stage, order.probed, order.pairs, order.folder, together=True)
    except Exception as error:  # whatever fails here is the parent's to tell
        traceback.print_exc()
        sys.stderr.flush()
        foreseen = isinstance(error, UserError | RunError)
        messages.send(("failed", isinstance(error, UserError), str(error) if foreseen else _described(error)))
        return 1
    return 0


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1])), int(sys.argv[2])))
