"""Ends Tavus conversations from API Gateway or EventBridge, and says truthfully what happened."""
