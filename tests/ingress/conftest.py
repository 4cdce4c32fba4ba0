from __future__ import annotations

from pathlib import Path

import pytest

from tests.ingress.image import unpacked


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files as a root folder, unpacked once for all tests here."""
    return unpacked(tmp_path_factory.mktemp("image"))
