"""What a person sees: messages, progress, curves, pictures."""
