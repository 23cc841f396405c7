"""A faithful local Upbit for tests, demos and offline work: all public REST endpoints and WebSocket types.

    from upbit_backbone.simulator import FakeUpbit

    with FakeUpbit(seed=1, trades_per_second=0, markets=["KRW-BTC", "KRW-ETH"]) as upbit:
        upbit.rest_url               # "http://127.0.0.1:…"
        upbit.websocket_url          # "ws://127.0.0.1:…/websocket/v1"
        upbit.environment()          # what to put into os.environ so that programs use it
        upbit.publish_trade("KRW-BTC", price=131_000_000, volume="0.01")
        upbit.sessions()             # open WebSockets and what they are subscribed to
        upbit.requests(group="candle")   # the wire log of REST, with arrival times
        upbit.freeze(); upbit.close_sessions(1001); upbit.rest_fault("/v1/ticker*", status=503, times=2)

The simulator runs in its own process, which ends with `close`, with the `with` block, or with the process that made
it. Two ports ("doors") serve REST and WebSocket; each can fail alone, and both speak both protocols.

Switches are the fields of `simulator.serving.options.Options`; faults are the methods of `FakeUpbit` (and any verb of
the control port through `inject`). `trades_per_second=0` is manual mode: nothing moves unless `publish_trade`
or `touch_book` is called. `start_time="2026-11-20T23:59:50Z"` and `advance_clock` govern the simulator's clock.
For pytest there is the plugin `upbit_backbone.simulator.pytest_plugin` with the fixture `fake_upbit`.
"""

from upbit_backbone.simulator.fake_upbit import FakeUpbit
from upbit_backbone.simulator.process import SimulatorError

__all__ = ["FakeUpbit", "SimulatorError"]
