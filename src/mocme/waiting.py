"""Threads of arithmetic that wait for each other give the processor away soon.

GNU OpenMP lets them spin for milliseconds. On a machine that does other work too, whoever they wait
for cannot run meanwhile: beside three busy programs a training on two threads took twelve to twenty
times as long as it takes so (41 to 53 s a pass instead of 2 to 4), and on an idle one as long. Only
what the environment leaves open is set, and only before torch is there to read it.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
