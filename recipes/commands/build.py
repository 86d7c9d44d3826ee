"""`gemsmith build`: compile the attention kernel."""


def build() -> None:
    """Compile the attention kernel for this machine; set-up does it where there is a C++ compiler."""
    from gemsmith.policy.attention.build import build_kernel

    build_kernel(print)
