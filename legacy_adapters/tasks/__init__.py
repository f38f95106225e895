"""What a side does beside its recorded run: initialise, infer on made-up input, detect in image files."""
