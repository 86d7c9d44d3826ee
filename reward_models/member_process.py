"""Worker program that trains one member of WARM for `parallel_members`: member_process FD PARENT < ORDER."""

import sys
from multiprocessing.connection import Connection

from gemsmith.sandboxes.child_main import die_with


def main(messages: Connection, parent: int) -> int:
    """Train the member that the order on standard input describes; return the exit code."""
    die_with(parent)
    from gemsmith.policy.training.parallel_workers import Order, serve

    def train(order: Order) -> None:
        from gemsmith.reward_models.member import train_member

        config, plan, probed, pairs = order.what
        train_member(config, plan, order.stage, probed, pairs, order.folder, together=True)

    return serve(messages, train)


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1])), int(sys.argv[2])))
