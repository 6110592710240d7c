"""What every network, codec, sampler, term and task must satisfy, to be inherited: `class TestMine(NetworkContract)` with a `make`.

For pytest, in somite's own tests as in those of others (`pip install 'somite[test]'`); nothing of somite imports it.
"""

from .codec import CodecContract
from .network import NetworkContract, alive
from .sampler import SamplerContract
from .task import TaskContract
from .term import TermContract

__all__ = ["CodecContract", "NetworkContract", "SamplerContract", "TaskContract", "TermContract", "alive"]
