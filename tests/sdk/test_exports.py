"""What `from pycni.sdk import …` offers."""

import pytest

import pycni.sdk


def test_every_public_name_is_there_and_nothing_else() -> None:
    for name in pycni.sdk.__all__:
        assert getattr(pycni.sdk, name) is not None
    assert sorted(pycni.sdk.__all__) == pycni.sdk.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = pycni.sdk.Nonsense
