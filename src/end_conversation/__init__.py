"""Ends Tavus conversations from API Gateway or EventBridge, and reports whether they really ended."""

USER_AGENT = "end-conversation/1"  # to Tavus and to AWS
