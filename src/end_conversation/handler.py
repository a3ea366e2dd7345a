"""The Lambda entry. It composes itself once, at cold start, while Lambda gives it a whole processor."""

import os

from end_conversation.bootstrap import bootstrap

handler = bootstrap(os.environ)
