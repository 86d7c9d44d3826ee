"""Worker program that trains one WARP run, started by `gemsmith.rl.stages.warp.run`: run_process FD PARENT < ORDER."""

import sys
from multiprocessing.connection import Connection

from gemsmith.sandboxes.child_main import die_with


def main(messages: Connection, parent: int) -> int:
    """Train the run described by the order on standard input and return the exit code."""
    die_with(parent)
    from gemsmith.policy.training.parallel_workers import Order, serve

    def train(order: Order) -> None:
        from gemsmith.rl.stages.warp.run import train_run

        (run,) = order.what
        train_run(run, order.stage, together=True)

    return serve(messages, train)


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1])), int(sys.argv[2])))
