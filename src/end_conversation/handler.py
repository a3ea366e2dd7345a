"""The Lambda entry point. It builds its parts during the cold start, when Lambda does not throttle the processor."""

import os

from end_conversation.bootstrap import bootstrap

handler = bootstrap(os.environ)
