"""Ends Tavus conversations on requests and session timeouts, and reports whether Tavus confirmed it."""

USER_AGENT = "end-conversation/1"  # to Tavus and to AWS
