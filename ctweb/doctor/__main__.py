"""`python3 -m ctweb.doctor`, where the command `ctweb` is not there yet."""

from __future__ import annotations

import sys

from ctweb.doctor import main

sys.exit(main())
