"""Write a converted file with its manifest, and verify one."""
