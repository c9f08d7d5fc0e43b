"""`dispatch doctor`: which known fault does this host have, and which command mends it? It changes nothing.

The doctor reads credentials and what systemd knows, so it needs root. It runs on any Python 3.9 or later, which RHEL 9
and Amazon Linux 2023 bring themselves, and needs no working release: see standalone.py.

`examine` makes the checks and builds a report, `report` renders one report or those of a whole fleet, and `case` holds
what is known of one host: `host` (its unit, release and settings), `state` (its ledger and disk), `process` (what runs)
and `broker`.

To add a check, write its function and one `Check(...)` entry in the file of its area, `checks/<area>.py`. The entry's
place in its tuple says which causes are told before it, and `needs` names the checks whose findings hide it. Then name
it in dispatch_app/README.md and give it a fault in tests/integration/doctor/test_doctor.py; tests demand both.
"""
