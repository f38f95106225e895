"""Stands in for the process that tries one config: what it does is the config's name."""

import json
import os
import signal
import sys
import time
from pathlib import Path

asked, answer = map(Path, sys.argv[1:])
request = json.loads(asked.read_text())
with open(os.environ["ZOO_CALLS"], "a") as calls:
    calls.write(request["name"] + "\n")
if "stubborn" in request["name"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
if "slow" in request["name"]:
    time.sleep(60)
if "broken" in request["name"]:
    raise SystemExit("a bug of its own")
found = dict(name=request["name"], architecture=request["architecture"], verdict="MATCH", tolerance="exact", records=3)
answer.write_text(json.dumps(dict(found, identical=3, detections=[2], sizes=[[32, 48]], width=0.25, seconds=1.5)))
