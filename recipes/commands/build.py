"""`gemsmith build`: compile the attention kernel."""


def build() -> None:
    """Compile the CPU attention kernel for this machine.

    `make quickstart` already does this if it finds a C++ compiler.
    """
    from gemsmith.policy.attention.build import build_kernel

    build_kernel(print)
