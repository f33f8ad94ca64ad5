import pytest
import transformers


@pytest.fixture(autouse=True)
def verbosity_is_put_back():
    """The commands silence the libraries of their process, which here is the other tests' too."""
    verbosity = transformers.logging.get_verbosity()
    yield
    transformers.logging.set_verbosity(verbosity)
