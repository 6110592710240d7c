"""What a machine says of itself, by the lists of real ones (shortened), and what is asked where it says nothing."""

import time
from contextlib import nullcontext

import pytest
import torch

from somite import environment

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some: CPU\nflags\t\t: fpu sse2 {}\nbugs\t\t: spectre_v1\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes {}\nCPU part\t: 0xd40\n"
MACHINES = {
    "AVX2": (X86.format("avx avx2 fma"), False, ["avx2"]),
    "AVX-512": (X86.format("avx2 avx512f avx512_vnni"), False, ["avx512f", "avx2"]),
    "AVX-512 BF16": (X86.format("avx2 avx512f avx512_bf16"), True, ["avx512_bf16", "avx512f", "avx2"]),
    "AMX": (X86.format("avx2 avx512f amx_bf16 amx_tile"), True, ["amx_bf16", "avx512f", "avx2"]),
    "ARM": (ARM.format("sve"), False, ["sve", "neon"]),
    "ARM BF16": (ARM.format("sve bf16"), True, ["bf16", "sve", "neon"]),
    "old ARM": ("Features\t: half thumb neon vfpv4\n", False, ["neon"]),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "probe", lambda: pytest.fail("asked, though the flags can be read"))
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize("kind", MACHINES)
def test_flags_say_it(machine, kind):
    text, has, instructions = MACHINES[kind]
    machine.write_text(text)
    assert environment.has_bfloat16() is has
    assert environment.has_bfloat16(torch.device("cpu")) is has
    assert environment.instructions() == instructions
    assert environment.environment()["instructions"] == instructions


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("text", [None, "processor\t: 0\nmodel name\t: Some CPU\n", ""], ids=["no file", "no flags", "empty"])
def test_where_flags_cannot_be_read_the_probe_is_asked(machine, monkeypatch, text, answer):
    if text is not None:
        machine.write_text(text)
    monkeypatch.setattr(environment, "probe", lambda: answer)
    assert environment.has_bfloat16() is answer
    assert environment.instructions() == []


def test_the_probe_is_short():
    environment.probe()
    start = time.perf_counter()
    assert environment.probe() in (True, False)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(("ratio", "answer"), [(0.3, True), (1.0, False), (9.0, False)])
def test_the_probe_compares_times(monkeypatch, ratio, answer):
    """A clock that says that each product in bfloat16 took `ratio` times as long; bfloat16 is timed first."""
    ticks = iter([t for took in (ratio, 1.0) for _ in range(5) for t in (0.0, took)])
    monkeypatch.setattr(environment.time, "perf_counter", lambda: next(ticks))
    assert environment.probe() is answer


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_itself(machine, monkeypatch, has):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: asked.append(including_emulation) or has)
    assert environment.has_bfloat16("cuda") is has
    assert asked == [False]


def test_no_gpu_has_nothing(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment.has_bfloat16("cuda:3") is False
    assert environment.has_bfloat16("meta") is False


def test_the_processor_is_named(machine):
    machine.write_text(MACHINES["AVX2"][0])
    assert environment.processor() == "Some: CPU"


def test_a_wrong_gradient_is_found(monkeypatch):
    """Whatever this processor does: convolutions in double precision are right, and of a shifted input wrong."""
    real = torch.nn.functional.conv3d

    def exact(x, weight, padding):
        return real(x.double(), weight.double(), padding=padding)

    def wrong(x, weight, padding):
        return exact(x.roll(1, 2) if x.dtype == torch.bfloat16 else x, weight, padding)

    monkeypatch.setattr(torch.nn.functional, "conv3d", exact)
    assert environment.bfloat16_gradients_in_3d()
    monkeypatch.setattr(torch.nn.functional, "conv3d", wrong)
    assert not environment.bfloat16_gradients_in_3d()


def test_the_command_is_named_as_it_can_be_typed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/somite/__main__.py", "train", "mine.yaml"])  # python -m somite
    assert environment.environment()["command"] == "somite train mine.yaml"
    monkeypatch.setattr("sys.argv", ["/x/my_script.py"])
    assert environment.environment()["command"] == "my_script.py"
