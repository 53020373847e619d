"""The command `cantolyric`, also `python -m cantolyric`; Ctrl-C stops it quietly before anything is imported."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    "Import the command line and run it; its own handling of Ctrl-C starts there."
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)
    from cantolyric.cli.main import main as run

    return run()


def _stop(number: int, frame: FrameType | None) -> None:
    "End at once: nothing has begun yet."
    if "--json" in sys.argv:
        os.write(1, b'{"error": "stopped", "code": 130}\n')
    os.write(2, b"cantolyric: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
