"""Configs of MMDetection 2.x in the words of 3.x, and what differs between two of them; no model is built."""
