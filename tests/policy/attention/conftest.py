import pytest

from gemsmith.contracts.errors import UserError
from gemsmith.policy.attention.build import build_kernel, load_kernel


@pytest.fixture(scope="session")
def kernel():
    """The compiled kernel; set-up compiles it, and where it did not (no compiler) the tests of it are skipped."""
    try:
        build_kernel(say=lambda line: None)
    except UserError as error:
        pytest.skip(str(error))
    module = load_kernel()
    assert module is not None
    return module
