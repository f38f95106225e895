"""Which files a process executed, and whether they are as they were published."""
